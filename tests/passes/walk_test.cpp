// walk: what a chain takes in, and what it leaves alone though it reads the chain's result.

#include "passes/verify.h"
#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string body(const std::string& lines) { return "def forward(self, x, flag: bool):\n" + lines; }

// The pattern of the only chain.
std::string chain_of(const std::string& lines, Options options = {}) {
  Stages stages(script(body(lines), conv_and_norm()), std::move(options));
  const auto& chains = stages.decided().chains;
  return chains.size() == 1 ? chains[0].pattern() : std::to_string(chains.size()) + " chains";
}

TEST(Walk, ASlopeOrAWeightThatIsTheResultIsNoStepOfIt) {
  for (const char* lines : {"    return torch.prelu(x, torch.conv2d(x, self.w))",
                            "    return torch.batch_norm(x, torch.conv2d(x, self.w), self.h, self.m, self.v, False, 0.1, 1e-5, False)"}) {
    Stages stages(script(body(lines), conv_and_norm()));
    EXPECT_EQ(stages.decided().chains.at(0).pattern(), "conv") << lines;
    for (const auto& finding : stages.decided().findings) EXPECT_EQ(finding.pattern.find("conv+"), std::string::npos) << finding.pattern;
  }
}

TEST(Walk, ACompositeWhoseInnerValueIsReadElsewhereIsNone) {
  EXPECT_EQ(chain_of("    y = torch.conv2d(x, self.w)\n    s = torch.sigmoid(y)\n    return y * s, s"), "conv");
  EXPECT_EQ(chain_of("    y = torch.conv2d(x, self.w)\n    s = torch.sigmoid(y)\n    return y * s"), "conv+silu");
}

// The written result is read by nothing but the composite.
TEST(Walk, ACompositeMayHoldOperatorsInPlace) {
  for (const auto& [lines, pattern] : {std::pair{"    y = torch.conv2d(x, self.w)\n    return y * torch.relu6_(y + 3) / 6", "conv+hardswish"},
                                       {"    y = torch.conv2d(x, self.w)\n    s = torch.sigmoid(y)\n    return y.mul_(s)", "conv+silu"},
                                       {"    y = torch.conv2d(x, self.w).add_(1)\n    s = torch.sigmoid(y)\n    return y.mul_(s) + 1", "conv+add+silu+add"},
                                       {"    y = torch.conv2d(x, self.w)\n    s = torch.sigmoid(y)\n    return y.mul_(s), y", "conv"}}) {
    EXPECT_EQ(chain_of(lines), pattern);
    const auto module = script("def forward(self, x):\n" + std::string(lines) + "\n", conv_and_norm());
    const auto fused = fuse(module).module;
    for (const auto& input : {image(), image().contiguous(at::MemoryFormat::ChannelsLast)})
      EXPECT_EQ(compare(module, fused, {input}).outcome, Comparison::Outcome::equal) << lines;
  }
}

TEST(Walk, ACompositeInABranchIsLeftThere) {
  const char* const lines = "    z = x\n    y = torch.conv2d(x, self.w)\n    if flag:\n        z = y * torch.sigmoid(y)\n    return z";
  EXPECT_EQ(chain_of(lines), "conv");
}

// Of two composites that start at one value the larger is taken. The smaller one here, which a user might name too, is its beginning.
TEST(Walk, TheLargerCompositeIsTaken) {
  Options options;
  options.patterns = {"activation relu\n  spelling a = aten::abs(x); n = aten::neg(a); y = aten::erf(n)\n",
                      "activation sigmoid\n  spelling a = aten::abs(x); y = aten::neg(a)\n"};
  const auto module = script(body("    return torch.erf(torch.neg(torch.abs(torch.conv2d(x, self.w))))"), conv_and_norm());
  EXPECT_THAT(fuse(module, options).report, Fused("conv+relu"));
}

TEST(Walk, StrictFoldsNoFactorAndTakesNoComposite) {
  Options options;
  options.strict = true;
  Stages stages(script(body("    return torch.conv2d(x, self.w) * 3"), conv_and_norm()), options);
  const auto& chain = stages.decided().chains.at(0);
  ASSERT_EQ(chain.pattern(), "conv+mul");
  EXPECT_FALSE(chain.steps[0].affine);
  EXPECT_EQ(chain_of("    y = torch.conv2d(x, self.w)\n    return y * torch.sigmoid(y)", options), "conv");
}

TEST(Walk, AComplexFactorIsNoNumberOfAStep) {
  const auto module = script("def forward(self, x):\n    return torch.conv2d(x, self.w) * 2j", conv_and_norm());
  const auto fused = fuse(module);
  EXPECT_THAT(fused.report, Fused("conv"));
  EXPECT_TRUE(at::equal(run(fused.module, {image()}), run(module, {image()})));
}

// A gate of one number per channel times a map: the map's producer would take the product, not the gate's.
TEST(Walk, AGateDoesNotTakeTheProduct) {
  EXPECT_EQ(chain_of("    return x * torch.sigmoid(torch.conv2d(x, self.w))"), "conv+sigmoid");
  EXPECT_EQ(chain_of("    return x * torch.relu(torch.conv2d(x, self.w))"), "conv+relu+mul");
}

struct Held {
  const char* lines;
  const Code& code;
};

class WalkStops : public ::testing::TestWithParam<Held> {};

TEST_P(WalkStops, WithTheCode) {
  Stages stages(script(body(GetParam().lines), conv_and_norm(), {{"k", seeded({6, 1, 1}, 7)}}));
  ASSERT_THAT(stages.decided().findings, SizeIs(1));
  EXPECT_EQ(stages.decided().findings[0].code.id, std::string(GetParam().code.id));
}

INSTANTIATE_TEST_SUITE_P(All, WalkStops, ::testing::Values(
  // The write is to memory of the method's own: only who read it before can tell.
  Held{"    h = torch.tanh(x)\n    y = torch.conv2d(h, self.w)\n    h.mul_(2)\n    return torch.relu(y), h", codes::mutation_between},
  Held{"    z = torch.tanh(x)\n    y = torch.conv2d(x, self.w) + z\n    z.mul_(2)\n    return torch.relu(y), z", codes::mutation_between},
  // The convolution may raise: then the attribute has not been written.
  Held{"    y = torch.conv2d(x, self.w)\n    self.k.mul_(2)\n    return torch.relu(y)", codes::mutation_between},
  Held{"    y = torch.conv2d(x, self.w)\n    return torch.batch_norm(y, self.g, self.h, self.m, self.v, True, 0.1, 1e-5, False) + y", codes::training_batch_norm}));

TEST(Walk, AFindingIsMootOnceAnotherChainTookWhatItMissed) {
  Stages stages(script(body("    a = torch.conv2d(x, self.w)\n    b = torch.conv2d(x, self.w, self.b)\n    return a + b, b.mean()"), conv_and_norm()));
  const auto& decision = stages.decided();
  EXPECT_EQ(decision.chains.at(0).pattern(), "conv+add");
  EXPECT_THAT(decision.findings, IsEmpty());
}

TEST(Decide, WhatAnIgnoredSequenceWouldTakeIsNoOthers) {
  Options options;
  options.ignore = {"conv+add"};
  auto weights = conv_and_norm();
  weights.push_back({"l", seeded({5, 5}, 7)});
  Stages stages(script(body("    y = torch.linear(x, self.l)\n    return torch.conv2d(x, self.w) + y"), weights), options);
  ASSERT_THAT(stages.decided().chains, SizeIs(1));
  EXPECT_EQ(stages.decided().chains[0].pattern(), "linear");
}

// [1, 6, 1, 1] lies along the width of an image without a batch: stock operators cannot tell, so neither it nor what follows is folded.
TEST(Decide, TargetAtenEndsAtTheFirstStepThatItLeaves) {
  Options options;
  options.target = "aten";
  Stages stages(script(body("    return torch.conv2d(x, self.w) * self.k * 2"), conv_and_norm(), {{"k", seeded({1, 6, 1, 1}, 7)}}), options);
  EXPECT_THAT(stages.decided().chains, IsEmpty());
}

// The rank of a contraction's result is asked of its input, and no further up: the sum before it is read by its activation alone.
TEST(Decide, ARankQueryIsNoSecondUseOfWhatStandsBetween) {
  auto weights = conv_and_norm();
  weights.push_back({"l", seeded({7, 7}, 7)});
  Stages stages(script(body("    y = torch.linear(torch.relu(torch.linear(x, self.l) + x), self.l)\n    return torch.tanh(y), y.dim()"), weights));
  ASSERT_THAT(stages.decided().chains, SizeIs(2));
  EXPECT_EQ(stages.decided().chains[0].pattern(), "linear+add+relu");
}

TEST(Contraction, OneNumberStandsForEveryDimension) {
  Stages stages(script(body("    return torch.conv2d(x, self.w, None, [2], [1], [1])"), conv_and_norm()));
  const auto& spec = stages.decided().chains.at(0).spec;
  EXPECT_EQ(spec.stride, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(spec.padding, (std::vector<std::int64_t>{1, 1}));
}

TEST(Contraction, IntegerWeightsAndWrittenBiasesAreLeft) {
  const auto code_of = [](const char* lines) {
    Stages stages(script(body(lines), conv_and_norm(), {{"n", at::ones({6, 4, 3, 3}, at::kLong)}}));
    EXPECT_THAT(stages.decided().chains, IsEmpty()) << lines;
    return stages.verdicts().at(0).code;
  };
  EXPECT_EQ(code_of("    return torch.conv2d(x, self.n)"), codes::dtype.id);
  EXPECT_EQ(code_of("    self.b.mul_(2)\n    return torch.conv2d(x, self.w, self.b)"), codes::weight_written.id);
}

}  // namespace
}  // namespace fusible::testing
