// Builders and conditions of free-form rules by value, and what a rule must leave alone.

#include "fusible/fusible.h"
#include "fusible/pattern.h"
#include "tests/graph_matchers.h"
#include "tests/script.h"
#include "tests/tensor_matchers.h"

namespace fusible::testing {
namespace {

const auto kImage = seeded({2, 4, 7, 7}, 1);
const Weights kWeights{{"w", seeded({6, 4, 3, 3}, 2)}, {"b", seeded({6}, 3)}, {"g", seeded({6}, 4)}, {"h", seeded({6}, 5)},
                       {"m", seeded({6}, 6)},          {"v", seeded({6}, 7).abs() + 0.3}, {"s", seeded({6, 1, 1}, 8)}};
const Weights kBuffers{{"i", at::ones({6, 1, 1}, at::kLong)}, {"state", seeded({6, 1, 1}, 9)}};

// What fuse gives with the rules, which computes what the original computes.
fusible::Fused fused_with(const std::string& body, const std::string& rules, Options options = {}) {
  const auto module = script("def forward(self, x):\n" + body, kWeights, kBuffers);
  options.patterns = {rules};
  options.verify = false;
  auto fused = fuse(module, options);
  at::manual_seed(5);
  const auto expected = run(module, {kImage.clone()});
  at::manual_seed(5);
  EXPECT_THAT(run(fused.module, {kImage.clone()}), ComputesLike(expected)) << *graph_of(fused.module);
  return fused;
}

TEST(RuleParts, FoldBnIsTheAlgebraOfBatchNorm) {
  const char* const rule = R"(
rule fold_it
  match c = conv(x, w, b, groups=1); y = aten::batch_norm(c, g, h, m, v, false, _, e, _)
  emit  w2, b2 = fold_bn(w, b, g, h, m, v, e)
  emit  y2 = aten::conv2d(x, w2, b2, c.stride, c.padding, c.dilation, 1)
)";
  for (const char* bias : {"self.b", "None"}) {
    for (const char* affine : {"self.g, self.h", "None, None", "self.g, None"}) {
      const auto fused = fused_with("    return torch.batch_norm(torch.conv2d(x, self.w, " + std::string(bias) + "), " + affine +
                                    ", self.m, self.v, False, 0.1, 0.5, False)", rule);
      EXPECT_THAT(fused.report, Fused("fold_it"));
      EXPECT_THAT(graph_of(fused.module), HasNo("aten::batch_norm"));
    }
  }
}

TEST(RuleParts, FoldAffineScalesTheBias) {
  const auto fused = fused_with("    return torch.erf(torch.conv2d(x, self.w, self.b) * self.s)", R"(
rule scale
  match c = conv(x, w, b, groups=1); y = aten::mul.Tensor(c, s)
  emit  w2, b2 = fold_affine(w, b, s, none)
  emit  y2 = aten::conv2d(x, w2, b2, c.stride, c.padding, c.dilation, 1)
)");
  EXPECT_THAT(fused.report, Fused("scale"));
}

struct Declining {
  const char* body;
  const char* rule;
  const char* code;
};

class RulePartsDecline : public ::testing::TestWithParam<Declining> {};

TEST_P(RulePartsDecline, WithACode) { EXPECT_THAT(fused_with(GetParam().body, GetParam().rule).report, Says(GetParam().code, "r")); }

#define RULE_WITH(need) "rule r\n  match e = aten::erf(x); y = aten::mul.Tensor(e, s)\n  need  " need "\n  emit  e2 = aten::erf(x)\n  emit  y2 = aten::mul(s, e2)\n"

INSTANTIATE_TEST_SUITE_P(All, RulePartsDecline, ::testing::Values(
  Declining{"    return torch.erf(x[:, :1]) * self.i", RULE_WITH("float(s)"), "FUS401"},
  Declining{"    return torch.erf(x[:, :1]) * self.s", RULE_WITH("shape_equal(s, x)"), "FUS403"},
  Declining{"    return torch.erf(x[:, :1]) * self.s", RULE_WITH("rank(s, 2)"), "FUS402"},
  Declining{"    return torch.erf(x[:, :1]) * torch.neg(x[:, :1])", RULE_WITH("constant(s)"), "FUS303"},
  // Random numbers are drawn where they were drawn.
  Declining{"    return torch.exp(torch.dropout(x, 0.5, True))",
            "rule r\n  match d = aten::dropout(x, p, t); y = aten::exp(d)\n  emit  d2 = aten::dropout(x, p, t)\n  emit  y2 = aten::exp(d2)\n", "FUS203"},
  Declining{"    self.state.mul_(2)\n    return torch.erf(x[:, :1]) * self.state",
            "rule r\n  match e = aten::erf(x); y = aten::mul.Tensor(e, s)\n  emit  s2 = transpose(s)\n  emit  e2 = aten::erf(x)\n  emit  y2 = aten::mul(e2, s2)\n",
            "FUS802"},
  // The indices of the maximum are read, and no emit line gives them.
  Declining{"    v, i = torch.max(x, 1)\n    return v + i", "rule r\n  match v, i = aten::max.dim(x, d, k)\n  emit  v2 = aten::amax(x, [1], k)\n", "FUS802"}));

TEST(RuleParts, EmitLinesMayReadWhatIsMadeInsideTheSequence) {
  const auto fused = fused_with("    e = torch.erf(x)\n    z = torch.cumsum(x, 1)\n    return e * z",
                                "rule r\n  match e = aten::erf(x); y = aten::mul.Tensor(e, z)\n  emit  e2 = aten::erf(x)\n  emit  y2 = aten::mul(z, e2)\n");
  const auto* product = graph_of(fused.module)->outputs()[0]->node();
  EXPECT_STREQ(product->input(0)->node()->kind().toQualString(), "aten::cumsum");
  EXPECT_NE(product->sourceRange().str().find("e * z"), std::string::npos) << product->sourceRange().str();
}

TEST(RuleParts, EmitLinesMayReadAResultOfTheSequence) {
  const auto fused = fused_with("    return torch.erf(x[:, :1]) * self.s", "rule r\n  match e = aten::erf(x); y = aten::mul.Tensor(e, s)\n  emit  y2 = aten::mul(s, e)\n");
  EXPECT_STREQ(graph_of(fused.module)->outputs()[0]->node()->input(1)->node()->kind().toQualString(), "aten::erf");
}

// Both match by the same nodes; each reads the arguments by its own names.
TEST(RuleParts, RulesThatNameArgumentsTheOtherWayRound) {
  fused_with("    return torch.atan2(torch.neg(x), x)", R"(
rule first
  match y = aten::atan2(a, b)
  need  constant(a)
  emit  y2 = aten::atan2(a, b)
rule second
  match y = aten::atan2(b, a)
  emit  p = aten::neg(b)
  emit  q = aten::neg(p)
  emit  y2 = aten::atan2(q, a)
)");
}

TEST(RuleParts, TwoRulesOnOneOperatorTakeItOnce) {
  const auto fused = fused_with("    return torch.neg(torch.exp(torch.erf(x)))", R"(
rule first
  match e = aten::erf(x); y = aten::exp(e)
  emit  e2 = aten::erf(x)
  emit  y2 = aten::exp(e2)
rule second
  match e = aten::exp(x); y = aten::neg(e)
  emit  e2 = aten::exp(x)
  emit  y2 = aten::neg(e2)
)");
  for (const char* op : {"aten::erf", "aten::exp", "aten::neg"}) EXPECT_THAT(graph_of(fused.module), Has(op));
}

TEST(RuleParts, WhatARuleTookIsNoPartOfABuiltInSequence) {
  const char* const rule = "rule r\n  match y = aten::relu6(x)\n  emit  y2 = aten::hardtanh(x, 0, 6)\n";
  fused_with("    y = torch.conv2d(x, self.w)\n    return y * torch.relu6(y + 3) / 6", rule);
  fused_with("    return torch.relu6(torch.conv2d(x, self.w))", rule);
  fused_with("    return torch.erf(torch.conv2d(x, self.w))", "rule r\n  match c = conv(x, w, none, groups=1); y = aten::erf(c)\n"
             "  emit  c2 = aten::conv2d(x, w, none, c.stride, c.padding, c.dilation, 1)\n  emit  y2 = aten::erf(c2)\n");
}

TEST(RuleParts, TargetAtenTakesNoRuleWithOtherOperators) {
  Options options;
  options.target = "aten";
  EXPECT_THAT(fused_with("    return torch.erf(x)", "rule r\n  match y = aten::erf(x)\n  emit  c = fusible::to_channels_last(x)\n  emit  y2 = aten::erf(c)\n", options).report,
              Says("FUS603", "r"));
}

}  // namespace
}  // namespace fusible::testing
