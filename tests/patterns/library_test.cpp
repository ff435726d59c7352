#include <torch/csrc/jit/api/compilation_unit.h>
#include <torch/csrc/jit/frontend/resolver.h>

#include "fusible/fusible.h"
#include "ops/post_op.h"
#include "passes/embedded.h"
#include "passes/patterns/library.h"

namespace fusible::patterns {
namespace {

using ::testing::Contains;
using ::testing::Field;
using ::testing::SizeIs;

TEST(Library, HasTheVocabularyWithDocsAndCases) {
  auto library = fusible::patterns::library();
  for (auto* name : {"conv", "conv_transpose", "linear", "relu", "relu6", "hardtanh", "clamp", "leaky_relu", "sigmoid", "tanh", "silu",
                     "hardswish", "hardsigmoid", "gelu", "gelu_tanh", "elu", "mish", "softplus", "prelu", "add", "sub", "mul", "div",
                     "batch_norm", "dropout"}) {
    EXPECT_NE(library->entry(name), nullptr) << name;
  }
  for (auto& entry : library->entries) {
    EXPECT_FALSE(entry.doc.empty()) << entry.name;
    EXPECT_FALSE(entry.algebra.empty()) << entry.name;
    EXPECT_THAT(entry.cases, Contains(Field(&Case::fuses, true))) << entry.name;
    EXPECT_THAT(entry.cases, Contains(Field(&Case::fuses, false))) << entry.name;
  }
}

TEST(Library, EveryCaseCompilesAndTakesTheArgumentsThatItNames) {
  auto library = fusible::patterns::library();
  for (auto& entry : library->entries) {
    for (auto& one : entry.cases) {
      torch::jit::CompilationUnit unit;
      ASSERT_NO_THROW(unit.define(std::nullopt, one.source, torch::jit::nativeResolver(), nullptr)) << entry.file << ":" << one.line;
      auto& schema = unit.get_functions().at(0)->getSchema();
      ASSERT_THAT(one.arguments, SizeIs(schema.arguments().size())) << entry.file << ":" << one.line;
      for (std::size_t i = 0; i < one.arguments.size(); ++i) EXPECT_EQ(one.arguments[i].name, schema.arguments()[i].name());
    }
  }
}

TEST(Library, EveryStepIsOneThatTheOperatorsKnow) {
  for (auto& entry : library()->entries) {
    if (entry.step.empty()) continue;
    auto text = entry.step;
    for (std::size_t i = 0; i < entry.step_args.size(); ++i) text += i ? ", 1" : "(1";
    if (!entry.step_args.empty()) text += ")";
    SCOPED_TRACE(text);
    ASSERT_THAT(parse_post_ops(text), SizeIs(1));
    EXPECT_EQ(parse_post_ops(text)[0].is_binary(), entry.kind == Entry::Kind::binary);
  }
}

TEST(Library, LoadPatternsAddsAllOrNothing) {
  auto before = library();
  EXPECT_THROW(
      load_patterns("activation ok_one\n  step relu\n  spelling y = aten::selu(x)\nactivation bad_one\n  spelling y = aten::seluu(x)\n"),
      Error);
  EXPECT_EQ(library(), before);
  load_patterns("activation test_selu\n  step relu\n  spelling y = aten::selu(x)\n", "mine.fus");
  EXPECT_EQ(before->entry("test_selu"), nullptr);
  ASSERT_NE(library()->entry("test_selu"), nullptr);
  EXPECT_EQ(library()->entry("test_selu")->file, "mine.fus");
  EXPECT_EQ(matcher(), matcher());
}

}  // namespace
}  // namespace fusible::patterns
