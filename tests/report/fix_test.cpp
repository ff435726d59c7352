// A fix is verified only when deciding anew, on a clone with that fix, fuses the sequence.

#include "fusible/fusible.h"
#include "tests/graph_matchers.h"
#include "tests/script.h"

namespace fusible {
namespace {

using testing::script;
using testing::seeded;
using torch::jit::Module;

const testing::Weights kConv{{"w", seeded({6, 4, 3, 3}, 2)}, {"b", seeded({6}, 3)}, {"gamma", seeded({6}, 4)}, {"beta", seeded({6}, 5)},
                             {"mean", seeded({6}, 6)}, {"var", seeded({6}, 7).abs() + 0.5}, {"k", seeded({6, 6, 3, 3}, 8)}};
const std::string kConvolution = "    y = torch.conv2d(x, self.w, self.b, [1, 1], [1, 1])\n";
const std::string kNorm = "torch.batch_norm(y, self.gamma, self.beta, self.mean, self.var, False, 0.1, 1e-5, True)\n";

Fix fix_of(const Module& module, const std::string& code, const Options& options = {}) {
  const auto report = lint(module, options);
  for (const auto& diagnostic : report.diagnostics) {
    if (diagnostic.code == code) return diagnostic.fix;
  }
  ADD_FAILURE() << code << " was not found\n" << report.to_string();
  return {};
}

Fix fix_of(const std::string& body, const std::string& code, const Options& options = {}, const std::string& arguments = "self, x") {
  return fix_of(script("def forward(" + arguments + "):\n" + body, kConv), code, options);
}

struct Edit {
  const char *name, *body, *code;
  bool verified;
};

class FixOf : public ::testing::TestWithParam<Edit> {};

TEST_P(FixOf, AModelEditIsTriedOnACopyOfTheGraph) {
  const auto& edit = GetParam();
  const auto fix = fix_of(kConvolution + edit.body, edit.code, {}, "self, x, z");
  EXPECT_EQ(fix.kind, Fix::Kind::model_edit);
  EXPECT_EQ(fix.verified, edit.verified);
}

INSTANTIATE_TEST_SUITE_P(Edits, FixOf, ::testing::Values(
    Edit{"second_use", "    return torch.relu(y) + torch.exp(y)\n", "FUS201", true},
    Edit{"second_use_before", "    e = torch.exp(y)\n    return torch.relu(y) + e\n", "FUS201", true},
    Edit{"graph_output", "    return y, torch.relu(y)\n", "FUS202", true},
    Edit{"wrong_order", "    y = torch.relu(y)\n    return torch.batch_norm(y, self.gamma, self.beta, self.mean, self.var, False, 0.1, 1e-5, True)\n", "FUS101", true},
    Edit{"view_between", "    return torch.relu(torch.flatten(y, 1))\n", "FUS204", true},
    Edit{"intervening_op", "    return torch.relu(torch.exp(y))\n", "FUS102", true},
    Edit{"in_place_on_other", "    z = z.clone()\n    z.add_(y)\n    return z\n", "FUS205", true},
    Edit{"alpha", "    return torch.add(y, z, alpha=2)\n", "FUS501", true}),
    [](const auto& info) { return info.param.name; });

// A submodule in training mode inside a model in eval mode.
Module with_norm(const std::string& training) {
  Module norm("norm");
  for (const auto& [name, tensor] : kConv) {
    if (tensor.dim() == 1 && name != "b") norm.register_buffer(name, tensor.clone());
  }
  norm.register_attribute("training", c10::BoolType::get(), true);
  norm.define("def forward(self, y):\n    return torch.batch_norm(y, self.gamma, self.beta, self.mean, self.var, " + training + ", 0.1, 1e-5, True)\n");
  Module model("model");
  model.register_parameter("w", kConv[0].second.clone(), false);
  model.register_module("norm", norm);
  model.register_attribute("training", c10::BoolType::get(), false);
  model.define("def forward(self, x):\n    return self.norm.forward(torch.conv2d(x, self.w))\n");
  return model;
}

TEST(Fix, EvalIsVerifiedWhereTheModeComesFromTheModuleAndChangesOnlyAClone) {
  const auto model = with_norm("self.training");
  const auto fix = fix_of(model, "FUS301");
  EXPECT_EQ(fix.kind, Fix::Kind::call);
  EXPECT_TRUE(fix.verified);
  EXPECT_TRUE(model.attr("norm").toModule().attr("training").toBool());
}

TEST(Fix, EvalIsNotVerifiedWhereTheModelSaysTrueItself) { EXPECT_FALSE(fix_of(with_norm("True"), "FUS301").verified); }

TEST(Fix, OptionsAreVerifiedByDecidingWithThem) {
  Options strict, stock;
  strict.strict = true;
  stock.target = "aten";
  EXPECT_TRUE(fix_of(kConvolution + "    return " + kNorm, "FUS701", strict).verified);
  EXPECT_TRUE(fix_of(kConvolution + "    return torch.relu(y)\n", "FUS603", stock).verified);
}

// The sum needs a value that is made from the convolution's own result: the two cannot be one.
TEST(Fix, ThereIsNoneForASumOfAValueAndWhatIsMadeFromIt) {
  const auto fix = fix_of(kConvolution + "    return y + torch.exp(y)\n", "FUS206");
  EXPECT_EQ(fix.kind, Fix::Kind::none);
  EXPECT_FALSE(fix.verified);
}

TEST(Fix, NothingIsVerifiedWhereThereIsNoFix) {
  const auto fix = fix_of("    return torch.relu(torch.matmul(x, x))\n", "FUS303");
  EXPECT_EQ(fix.kind, Fix::Kind::none);
  EXPECT_FALSE(fix.verified);
}

}  // namespace
}  // namespace fusible
