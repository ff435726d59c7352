// load: private graphs, candidates, methods to treat. normalize: the canonical form.

#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::ThrowsMessage;

const char* const kTwoMethods = R"(
def helper(self, x):
    return torch.relu(torch.conv2d(x, self.w, self.b))
def forward(self, x):
    return self.helper(x) + 1
def other(self, x):
    return torch.conv2d(x, self.w)
)";

TEST(Load, CopiesAndInlinesEveryMethodAndLeavesTheModuleAlone) {
  const auto module = script(kTwoMethods, conv_and_norm());
  const std::string before = text_of(*graph_of(module));
  Stages stages(module);
  EXPECT_THAT(stages.loaded().methods[0].graph, HasNo("prim::CallMethod"));
  EXPECT_THAT(stages.loaded().methods[0].graph, Has("aten::conv2d"));
  stages.normalized();
  EXPECT_EQ(text_of(*graph_of(module)), before);
}

TEST(Load, TreatsForwardFirstAndWhatNoOtherMethodCalls) {
  Stages stages(script(kTwoMethods, conv_and_norm()));
  const auto& methods = stages.loaded().methods;
  ASSERT_THAT(methods, SizeIs(3));
  EXPECT_EQ(methods[0].name, "forward");
  EXPECT_TRUE(methods[0].treated);
  EXPECT_EQ(methods[1].name, "helper");
  EXPECT_FALSE(methods[1].treated);
  EXPECT_TRUE(methods[2].treated);
}

TEST(Load, CountsACandidateWhereATreatedMethodInlinesIt) {
  Stages stages(script(kTwoMethods, conv_and_norm()));
  ASSERT_THAT(stages.loaded().candidates, SizeIs(2));
  EXPECT_EQ(stages.loaded().candidates[0].site.op, "aten::conv2d");
  EXPECT_EQ(stages.loaded().candidates[1].method, 2);
}

TEST(Load, TreatsTheMethodsThatWereAskedFor) {
  Options options;
  options.methods = {"other"};
  Stages stages(script(kTwoMethods, conv_and_norm()), options);
  EXPECT_FALSE(stages.loaded().methods[0].treated);
  EXPECT_THAT(stages.loaded().candidates, SizeIs(1));
}

TEST(Load, NamesAMethodThatIsNotThere) {
  Options options;
  options.methods = {"encode"};
  EXPECT_THAT([&] { load(script(kTwoMethods, conv_and_norm()), options); }, ThrowsMessage<Error>(HasSubstr("'encode' was asked for, the module has: ")));
}

TEST(Load, RefusesAModuleInTrainingMode) {
  auto module = script(kTwoMethods, conv_and_norm());
  module.setattr("training", true);
  EXPECT_THAT([&] { load(module, {}); }, ThrowsMessage<Error>(HasSubstr("call module.eval()")));
}

TEST(Load, RefusesAnUnknownTarget) {
  Options options;
  options.target = "cuda";
  EXPECT_THAT([&] { load(script(kTwoMethods, conv_and_norm()), options); }, ThrowsMessage<Error>(HasSubstr("found \"cuda\"")));
}

TEST(Load, FindsCandidatesInsideOfBlocks) {
  Stages stages(script(R"(
def forward(self, x, flag: bool):
    if flag:
        x = torch.conv2d(x, self.w)
    return x
)", conv_and_norm()));
  EXPECT_THAT(stages.loaded().candidates, SizeIs(1));
}

TEST(Normalize, MakesParametersConstantsThatAreKnownByName) {
  Stages stages(script("def forward(self, x):\n    return torch.conv2d(x, self.w, self.b)", conv_and_norm()));
  const auto& method = stages.normalized().methods[0];
  EXPECT_THAT(method.graph, HasNo("prim::GetAttr"));
  const auto* weight = stages.only("aten::conv2d")->input(1);
  ASSERT_TRUE(method.tensor_attributes.count(weight));
  EXPECT_EQ(method.tensor_attributes.at(weight).name, "w");
}

TEST(Normalize, OneAttributeIsOneConstant) {
  Stages stages(script("def forward(self, x):\n    return torch.conv2d(torch.conv2d(x, self.s), self.s)", {{"s", seeded({4, 4, 1, 1}, 1)}}));
  EXPECT_THAT(stages.normalized().methods[0].tensor_attributes, SizeIs(1));
}

TEST(Normalize, AnAssignedAttributeStaysAnAttribute) {
  Stages stages(script(R"(
def forward(self, x):
    self.count = self.count + 1
    return torch.conv2d(x, self.w) * self.count
)", conv_and_norm(), {{"count", at::ones({1})}}));
  const auto& model = stages.normalized();
  EXPECT_THAT(model.assigned, SizeIs(1));
  EXPECT_THAT(model.methods[0].graph, Has("prim::GetAttr", 2));
}

TEST(Normalize, SplicesABranchWhoseConditionIsConstant) {
  Stages stages(script(R"(
def forward(self, x):
    y = torch.conv2d(x, self.w)
    assert y.dim() == 4
    z = torch.relu(y)
    if self.training:
        z = torch.sigmoid(z)
    return z
)", conv_and_norm()));
  stages.normalized();
  for (const char* gone : {"prim::If", "prim::RaiseException", "aten::sigmoid"}) EXPECT_THAT(stages.loaded().methods[0].graph, HasNo(gone));
}

TEST(Normalize, ABranchThatDependsOnTheInputStays) {
  Stages stages(script(R"(
def forward(self, x):
    if x.dim() == 4:
        x = torch.conv2d(x, self.w)
    return x
)", conv_and_norm()));
  EXPECT_THAT(stages.normalized().methods[0].graph, Has("prim::If"));
}

TEST(Normalize, WhatRaisesIsNotFolded) {
  Stages stages(script("def forward(self, x):\n    return torch.conv2d(x, self.w) * (1 // 0)", conv_and_norm()));
  EXPECT_THAT(stages.normalized().methods[0].graph, Has("aten::floordiv"));
}

TEST(Normalize, AFactoryOfAnySizeIsNotRun) {
  Stages stages(script("def forward(self, x):\n    return torch.conv2d(x, self.w) + torch.zeros([1 << 40]).sum()", conv_and_norm()));
  EXPECT_THAT(stages.normalized().methods[0].graph, Has("aten::zeros"));
}

TEST(Normalize, DropoutInEvalIsGone) {
  Stages stages(script("def forward(self, x):\n    return torch.relu(torch.dropout(torch.conv2d(x, self.w), 0.5, self.training))", conv_and_norm()));
  EXPECT_THAT(stages.normalized().methods[0].graph, HasNo("aten::dropout"));
}

TEST(Normalize, ElementsOfATupleJustBuiltAreTheElements) {
  Stages stages(script("def forward(self, x):\n    pair = (torch.conv2d(x, self.w), x)\n    return torch.relu(pair[0])", conv_and_norm()));
  stages.normalized();
  EXPECT_THAT(stages.loaded().methods[0].graph, HasNo("prim::TupleConstruct"));
}

TEST(Normalize, AppendsToALocalListAreSpelledOut) {
  Stages stages(script(R"(
def forward(self, x):
    features = [x]
    features.append(torch.relu(x))
    return torch.conv2d(torch.cat(features, 1), self.s)
)", {{"s", seeded({6, 8, 3, 3}, 1)}}));
  EXPECT_THAT(stages.normalized().methods[0].graph, HasNo("aten::append"));
}

TEST(Normalize, ACandidateThatNeverRunsLosesItsNode) {
  Stages stages(script(R"(
def forward(self, x):
    if self.training:
        x = torch.conv2d(x, self.w)
    return torch.conv2d(x, self.w)
)", conv_and_norm()));
  const auto& model = stages.normalized();
  ASSERT_THAT(model.candidates, SizeIs(2));
  EXPECT_EQ(model.candidates[0].node, nullptr);
  EXPECT_NE(model.candidates[1].node, nullptr);
}

}  // namespace
}  // namespace fusible::testing
