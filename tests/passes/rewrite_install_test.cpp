// rewrite: one operator at the chain's root. layout: channels_last inside of runs. install: a module of its own. verify: what it accepts.

#include "passes/verify.h"
#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

using ::testing::SizeIs;
using Outcome = Comparison::Outcome;

const char* const kResidual = R"(
def forward(self, x, z):
    y = torch.batch_norm(torch.conv2d(x, self.w, self.b), self.g, self.h, self.m, self.v, False, 0.1, 1e-5, False)
    return torch.relu(y + z)
)";

TEST(Rewrite, AChainIsOneOperatorWithItsPostOpsAndOperands) {
  Stages stages(script(kResidual, conv_and_norm()));
  stages.rewritten();
  Node* fused = stages.only("fusible::conv");
  EXPECT_EQ(torch::jit::toIValue(fused->input(2))->toStringRef(), "add|relu");
  EXPECT_EQ(fused->input(3)->node()->inputs().vec(), std::vector<Value*>{stages.graph().inputs()[2]});
  for (const char* gone : {"aten::conv2d", "aten::batch_norm", "aten::add", "aten::relu"}) EXPECT_EQ(count_nodes(stages.graph().block(), gone), 0);
  stages.graph().lint();
}

TEST(Rewrite, ThePackedWeightsHoldTheFold) {
  Stages stages(script(kResidual, conv_and_norm()));
  stages.rewritten();
  ASSERT_THAT(stages.store().objects(), SizeIs(1));
  const auto& spec = stages.store().objects().begin()->second->spec();
  EXPECT_EQ(spec.folded_ops, "batch_norm(1e-05)");
  EXPECT_FALSE(stages.store().objects().begin()->second->values()->dense().equal(seeded({6, 4, 3, 3}, 1)));
}

TEST(Rewrite, OneWeightWithOneFoldIsPackedOnce) {
  Stages stages(script("def forward(self, x):\n    return torch.conv2d(torch.relu(torch.conv2d(x, self.s)), self.s)", {{"s", seeded({4, 4, 1, 1}, 1)}}));
  stages.rewritten();
  EXPECT_EQ(count_nodes(stages.graph().block(), "fusible::conv"), 2);
  EXPECT_THAT(stages.store().objects(), SizeIs(1));
}

TEST(Rewrite, TwoFoldsOfOneWeightArePackedTwice) {
  Stages stages(script("def forward(self, x):\n    return torch.conv2d(x, self.w) * 2, torch.conv2d(x, self.w) * 3", conv_and_norm()));
  stages.rewritten();
  EXPECT_THAT(stages.store().objects(), SizeIs(2));
}

TEST(Rewrite, AChainReadsTheResultOfAnother) {
  Stages stages(script(R"(
def forward(self, x):
    y = torch.relu(torch.conv2d(x, self.s))
    return torch.tanh(torch.conv2d(y, self.s) + y)
)", {{"s", seeded({4, 4, 1, 1}, 1)}}));
  Graph& graph = stages.rewritten();
  Node* last = graph.outputs()[0]->node();
  ASSERT_STREQ(last->kind().toQualString(), "fusible::conv");
  EXPECT_STREQ(last->input(0)->node()->kind().toQualString(), "fusible::conv");
  EXPECT_EQ(last->input(3)->node()->input(0), last->input(0));
}

TEST(Rewrite, TheOperatorStandsAtTheRootAndKeepsTheAnchorsPlace) {
  Stages stages(script(R"(
def forward(self, x):
    y = torch.conv2d(x, self.w)
    z = torch.tanh(x)
    return torch.relu(y), z
)", conv_and_norm()));
  stages.decided();
  const auto place = stages.only("aten::conv2d")->sourceRange().str();
  Stages again(script("def forward(self, x):\n    y = torch.conv2d(x, self.w)\n    z = torch.tanh(x)\n    return torch.relu(y), z\n", conv_and_norm()));
  again.rewritten();
  EXPECT_TRUE(again.only("aten::tanh")->isBefore(again.only("fusible::conv")));
  EXPECT_NE(again.only("fusible::conv")->sourceRange().str().find("torch.conv2d"), std::string::npos) << place;
}

TEST(Rewrite, TargetAtenEmitsStockOperatorsOnly) {
  Options options;
  options.target = "aten";
  Stages stages(script(kResidual, conv_and_norm()), options);
  Graph& graph = stages.rewritten();
  for_each_node(graph.block(), [](Node* node) { EXPECT_NE(std::string(node->kind().ns().toUnqualString()), "fusible"); });
  for (Node* node : graph.nodes()) EXPECT_STRNE(node->kind().toQualString(), "aten::batch_norm");
  EXPECT_EQ(count_nodes(graph.block(), "aten::batch_norm"), 1);  // for an unbatched image
  EXPECT_EQ(count_nodes(graph.block(), "aten::relu"), 1);
}

TEST(Rewrite, AChainInsideOfABlockStaysThere) {
  Stages stages(script(R"(
def forward(self, x, flag: bool):
    if flag:
        x = torch.relu(torch.conv2d(x, self.w))
    return x
)", conv_and_norm()));
  stages.rewritten();
  EXPECT_STREQ(stages.only("fusible::conv")->owningBlock()->owningNode()->kind().toQualString(), "prim::If");
}

const Weights kThree{{"a", seeded({6, 4, 3, 3}, 1)}, {"c", seeded({6, 6, 3, 3}, 2)}, {"d", seeded({5, 6, 1, 1}, 3)}};

TEST(Layout, ARunIsConvertedOnceOnEitherSide) {
  Stages stages(script("def forward(self, x):\n    return torch.conv2d(torch.relu(torch.conv2d(torch.conv2d(x, self.a), self.c)), self.d)", kThree));
  Graph& graph = stages.laid_out();
  EXPECT_EQ(count_nodes(graph.block(), "fusible::to_channels_last"), 1);
  EXPECT_EQ(count_nodes(graph.block(), "fusible::restore_layout"), 1);
  EXPECT_EQ(stages.only("fusible::restore_layout")->output(), graph.outputs()[0]);
}

TEST(Layout, OneConvolutionAloneIsNotConverted) {
  Stages stages(script("def forward(self, x):\n    return torch.relu(torch.conv2d(x, self.a))", kThree));
  EXPECT_EQ(count_nodes(stages.laid_out().block(), "fusible::to_channels_last"), 0);
}

TEST(Layout, SizesMayBeAskedInsideOfARun) {
  Stages stages(script("def forward(self, x):\n    y = torch.conv2d(x, self.a)\n    return torch.conv2d(torch.conv2d(y, self.c), self.d), y.size(2)", kThree));
  EXPECT_EQ(count_nodes(stages.laid_out().block(), "fusible::restore_layout"), 1);
}

TEST(Layout, WhatIsWrittenLaterCrossesNoBorder) {
  Stages stages(script("def forward(self, x):\n    y = torch.conv2d(torch.conv2d(x, self.a), self.c)\n    z = y.view(-1)\n    z.mul_(2)\n    return y, z", kThree));
  EXPECT_EQ(count_nodes(stages.laid_out().block(), "fusible::restore_layout"), 0);
}

TEST(Layout, StridesAreThoseOfTheOriginalForEitherLayout) {
  const auto module = script("def forward(self, x):\n    return torch.conv2d(torch.relu(torch.conv2d(torch.conv2d(x, self.a), self.c)), self.d)", kThree);
  Stages stages(module);
  const auto installed = stages.installed();
  const auto x = seeded({2, 4, 9, 9}, 7);
  for (const auto& input : {x, x.contiguous(at::MemoryFormat::ChannelsLast), x.transpose(2, 3)})
    EXPECT_THAT(run(installed, {input}), ComputesLike(run(module, {input})));
}

TEST(Install, ComputesTheSameAndLeavesTheOriginalAsItWas) {
  const auto module = script(kResidual, conv_and_norm());
  const auto z = seeded({2, 6, 5, 5}, 8);
  const auto before = run(module, {image(), z});
  Stages stages(module);
  EXPECT_THAT(run(stages.installed(), {image(), z}), ComputesLike(before));
  EXPECT_TRUE(run(module, {image(), z}).equal(before));
  EXPECT_THAT(graph_of(module), Has("aten::batch_norm"));
}

TEST(Install, WhatWasFoldedIsNoParameterAnyMoreAndTheRestStays) {
  auto module = script("def forward(self, x):\n    return torch.relu(torch.conv2d(x, self.w, self.b)) * self.k", conv_and_norm(), {{"k", seeded({5}, 3)}});
  module.register_attribute("labels", c10::ListType::ofStrings(), c10::List<std::string>({"cat", "dog"}));
  const auto installed = Stages(module).installed();
  EXPECT_FALSE(installed.hasattr("w"));
  EXPECT_TRUE(installed.hasattr("k"));
  EXPECT_THAT(installed.attr("labels").toListRef(), SizeIs(2));
  EXPECT_TRUE(installed.hasattr("_fusible_0"));
}

TEST(Install, ABufferThatAMethodWritesIsCopied) {
  auto module = script("def forward(self, x):\n    self.n.add_(1)\n    return torch.relu(torch.conv2d(x, self.w)) * self.n", conv_and_norm(), {{"n", at::ones({1})}});
  const auto installed = fuse(module).module;
  run(installed, {image()});
  EXPECT_EQ(module.attr("n").toTensor().item<float>(), 1);
  EXPECT_EQ(installed.attr("n").toTensor().item<float>(), 2);
}

TEST(Install, EveryMethodIsThere) {
  const auto module = script("def forward(self, x):\n    return torch.relu(torch.conv2d(x, self.w))\ndef name(self):\n    return 'm'", conv_and_norm());
  const auto installed = Stages(module).installed();
  EXPECT_EQ(installed.get_method("name")({}).toStringRef(), "m");
}

TEST(Install, TheFusedModuleSharesNoTypeWithTheOriginal) {
  const auto module = script(kResidual, conv_and_norm());
  EXPECT_NE(Stages(module).installed().type(), module.type());
}

Outcome outcome_of(const std::string& original, const std::string& other, const Weights& weights = conv_and_norm()) {
  const auto source = [](const std::string& body) { return "def forward(self, x):\n" + body; };
  return compare(script(source(original), weights), script(source(other), weights), {image()}).outcome;
}

TEST(Verify, AcceptsAnotherOrderOfRounding) {
  EXPECT_EQ(outcome_of("    return torch.conv2d(x, self.w) * 3", "    return torch.conv2d(x, self.w * 3)"), Outcome::equal);
}

TEST(Verify, RefusesAnotherResult) {
  EXPECT_EQ(outcome_of("    return torch.conv2d(x, self.w)", "    return torch.conv2d(x, self.w * 1.0001)"), Outcome::different);
}

TEST(Verify, RefusesOtherStridesDtypesAndShapes) {
  const char* const plain = "    return torch.conv2d(x, self.w)";
  for (const char* other : {"    return torch.conv2d(x, self.w).transpose(2, 3).contiguous().transpose(2, 3)", "    return torch.conv2d(x, self.w).double()",
                            "    return torch.conv2d(x, self.w).flatten(2)"}) {
    EXPECT_EQ(outcome_of(plain, other), Outcome::different) << other;
  }
}

TEST(Verify, RefusesNumbersWhereTheOriginalHasNaN) {
  EXPECT_EQ(outcome_of("    return torch.relu(torch.log(x))", "    return torch.relu(torch.nan_to_num(torch.log(x)))"), Outcome::different);
  EXPECT_EQ(outcome_of("    return torch.log(x)", "    return torch.log(x)"), Outcome::equal);
}

TEST(Verify, RefusesAnotherInputAfterTheCall) {
  EXPECT_EQ(outcome_of("    return x * 2", "    return x.mul_(2)"), Outcome::different);
  EXPECT_EQ(outcome_of("    return x.mul_(2)", "    x.mul_(2)\n    return x"), Outcome::equal);
}

TEST(Verify, RefusesAResultInPlaceOfAnException) {
  EXPECT_EQ(outcome_of("    assert x.dim() == 0\n    return x", "    return x"), Outcome::different);
}

TEST(Verify, RandomnessWithTheSameGeneratorStateIsEqual) {
  EXPECT_EQ(outcome_of("    return torch.dropout(x, 0.5, True)", "    return torch.dropout(x, 0.5, True)"), Outcome::equal);
}

TEST(Verify, ChangesNeitherInputsNorTheGenerator) {
  const auto module = script("def forward(self, x):\n    return x.mul_(torch.rand([1]))");
  const auto x = image();
  at::manual_seed(4);
  const auto expected = at::rand({1});
  at::manual_seed(4);
  compare(module, module, {x});
  EXPECT_TRUE(at::rand({1}).equal(expected));
  EXPECT_TRUE(x.equal(image()));
}

TEST(Verify, InputsThatShareMemoryStayShared) {
  const char* const source = "def forward(self, x, y):\n    x.add_(1)\n    return y * 2";
  const auto other = script("def forward(self, x, y):\n    z = y * 2\n    x.add_(1)\n    return z");
  const auto x = image();
  EXPECT_EQ(compare(script(source), other, {x, x}).outcome, Outcome::different);
  EXPECT_EQ(compare(script(source), other, {x, image()}).outcome, Outcome::equal);
}

}  // namespace
}  // namespace fusible::testing
