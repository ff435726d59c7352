// verify: what a comparison of two modules sees in containers, at infinities, and in models that differ from themselves.

#include <torch/csrc/jit/ir/irparser.h>
#include <torch/library.h>

#include "passes/verify.h"
#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

using Outcome = Comparison::Outcome;

Outcome outcome_of(const std::string& original, const std::string& other) {
  return compare(script("def forward(self, x):\n" + original), script("def forward(self, x):\n" + other), {image()}).outcome;
}

TEST(Verify, SeesWhatContainersHold) {
  for (const auto& [one, other] : {std::pair{"return x, x * 2", "return x, x * 3"}, {"return [x, x * 2]", "return [x, x * 3]"},
                                   {"return {'a': x}", "return {'a': x * 2}"}, {"return {'a': x}", "return {'b': x}"}, {"return 1", "return 2"},
                                   {"return 'a'", "return 'b'"}, {"return [x]", "return [x, x]"}, {"return x > 0", "return x > 1"}}) {
    EXPECT_EQ(outcome_of(std::string("    ") + one, std::string("    ") + other), Outcome::different) << one << " and " << other;
    EXPECT_EQ(outcome_of(std::string("    ") + one, std::string("    ") + one), Outcome::equal) << one;
  }
}

TEST(Verify, TellsInfinitiesApart) {
  EXPECT_EQ(outcome_of("    return torch.relu(x) / 0", "    return torch.relu(x) / -0.0"), Outcome::different);
  EXPECT_EQ(outcome_of("    return 1 / torch.relu(x)", "    return 2 / torch.relu(x) / 2"), Outcome::equal);
}

TEST(Verify, SharedMemoryIsShared) {
  const char* const head = "def forward(self, x, y):\n    x.add_(1)\n    return y * ";
  const auto x = image();
  EXPECT_EQ(compare(script(std::string(head) + "2"), script(std::string(head) + "2.1"), {x, x}).outcome, Outcome::different);
}

TEST(Verify, ViewsInTheModuleAreOneMemory) {
  const auto make = [](bool shared) {
    const auto kv = seeded({2, 3}, 7);
    auto module = script("def forward(self, x):\n    self.kv[1].add_(x[0, 0, 0, 0])\n    return self.k * 1.1", {}, {{"kv", kv}, {"k", kv.select(0, 1)}});
    if (shared) module.setattr("k", module.attr("kv").toTensor().select(0, 1));
    return module;
  };
  EXPECT_EQ(compare(make(true), make(true), {image()}).outcome, Outcome::equal);
  EXPECT_EQ(compare(make(true), make(false), {image()}).outcome, Outcome::different);
}

TEST(Verify, ComplexNumbersAreComparedToRounding) {
  const char* const x = "    z = torch.view_as_complex(x.reshape(-1, 2))\n";
  EXPECT_EQ(outcome_of(std::string(x) + "    return z * 3", std::string(x) + "    return z * 0.3 * 10"), Outcome::equal);
  EXPECT_EQ(outcome_of(std::string(x) + "    return z * 3", std::string(x) + "    return z * 3.01"), Outcome::different);
}

TEST(Verify, WhatHasNoNumbersIsUnverifiable) {
  const auto module = script("def forward(self, x):\n    return x * 2");
  EXPECT_EQ(compare(module, module, {image().to(at::kMeta)}).outcome, Outcome::unverifiable);
}

TORCH_LIBRARY_FRAGMENT(fusible_test, m) {
  m.def("tick(Tensor x) -> Tensor", [](const at::Tensor& x) {
    static int calls = 0;
    return x + calls++;
  });
}

TEST(Verify, AModelThatDiffersFromItselfIsNoEvidence) {
  torch::jit::Module module("model");
  const auto graph = std::make_shared<torch::jit::Graph>();
  torch::jit::parseIR("graph(%self, %x : Tensor):\n  %y : Tensor = fusible_test::tick(%x)\n  return (%y)", graph.get());
  graph->inputs()[0]->setType(module.type());
  module.type()->addMethod(module._ivalue()->compilation_unit()->create_function(c10::QualifiedName(*module.type()->name(), "forward"), graph));
  EXPECT_EQ(compare(module, module, {image()}).outcome, Outcome::unverifiable);
}

}  // namespace
}  // namespace fusible::testing
