// regions: what runs as one computes what the single operators compute, writes, views, random numbers and warnings included.

#include <c10/util/Exception.h>

#include "ops/region/region.h"
#include "passes/verify.h"
#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

const Weights kWeights{{"a", seeded({6, 4, 3, 3}, 1)}, {"c", seeded({6, 6, 3, 3}, 2)}, {"k", seeded({6, 1, 1}, 3)},
                       {"g", seeded({6}, 4)},          {"h", seeded({6}, 5)}};
const auto kX = seeded({2, 4, 11, 11}, 6);

torch::jit::Module forward_of(const std::string& body) { return script("def forward(self, x):\n" + body, kWeights); }

// The fused module's graph, which computes the same and changes the same inputs.
GraphPtr fused_graph(const std::string& body) {
  const auto module = forward_of(body);
  const auto fused = fuse(module).module;
  for (const auto& x : {kX, kX.contiguous(at::MemoryFormat::ChannelsLast)}) {
    const auto found = compare(module, fused, {x});
    EXPECT_EQ(found.outcome, Comparison::Outcome::equal) << found.why << "\n" << *graph_of(fused);
  }
  return graph_of(fused);
}

TEST(Regions, HoldTwoContractionsAndWhatStandsBetweenThem) {
  const auto graph = fused_graph("    return torch.conv2d(torch.max_pool2d(torch.conv2d(x, self.a), 2), self.c)");
  EXPECT_THAT(graph, Has("fusible::region"));
  EXPECT_THAT(graph, HasNo("aten::max_pool2d"));
}

// Of three dimensions batch_norm's channels are the second, and those of a linear the last: the fold does not hold, and no plan takes it.
TEST(Regions, RowsOfThreeDimensionsUndoTheFoldOfABatchNorm) {
  const auto module = script(R"(
def forward(self, x):
    y = torch.batch_norm(torch.linear(x, self.l), self.g, self.h, self.m, self.v, False, 0.1, 1e-5, False)
    return torch.linear(torch.relu(y), self.l))", {{"l", seeded({6, 6}, 1)}, {"g", seeded({6}, 4)}, {"h", seeded({6}, 5)}, {"m", seeded({6}, 6)}, {"v", seeded({6}, 7).abs() + 0.3}});
  const auto fused = fuse(module).module;
  ASSERT_THAT(graph_of(fused), Has("fusible::region"));
  for (const auto& x : {seeded({5, 6}, 8), seeded({3, 6, 6}, 8)}) EXPECT_EQ(compare(module, fused, {x}).outcome, Comparison::Outcome::equal) << x.sizes();
}

TEST(Regions, HoldNoSingleContraction) {
  EXPECT_THAT(fused_graph("    return torch.max_pool2d(torch.conv2d(x, self.a), 2)"), HasNo("fusible::region"));
}

TEST(Regions, StandBehindNoWriteToWhatTheyRead) {
  fused_graph("    y = torch.conv2d(x, self.a)\n    x.mul_(2)\n    return torch.conv2d(torch.max_pool2d(y, 2), self.c)");
}

TEST(Regions, AreFollowedByWhatReadsTheirInnerValues) {
  const auto graph = fused_graph(R"(
    y = torch.conv2d(x, self.a)
    t = torch.cumprod(y, 1)
    u = torch.cumprod(t, 2)
    z = torch.conv2d(torch.max_pool2d(y, 2), self.c)
    return z, t, u)");
  EXPECT_THAT(graph, Has("fusible::region"));
}

TEST(Regions, EndBeforeAMemberThatReadsWhatStandsBehindThem) {
  fused_graph(R"(
    y = torch.conv2d(x, self.a)
    t = torch.cumprod(y, 1)
    z = torch.conv2d(torch.max_pool2d(y, 2), self.c)
    w = torch.conv2d(t, self.c)
    return z, torch.conv2d(torch.sigmoid(w), self.c))");
}

TEST(Regions, AViewThatLeavesShowsWhatTheViewedResultShows) {
  for (const char* view : {"y.flatten(1)", "y.reshape([2, -1])", "y.transpose(1, 2)"}) {
    SCOPED_TRACE(view);
    fused_graph("    y = torch.conv2d(torch.conv2d(x, self.a), self.c)\n    v = " + std::string(view) + "\n    v.mul_(2)\n    return y, v");
    fused_graph("    y = torch.conv2d(torch.conv2d(x, self.a), self.c)\n    return " + std::string(view));
  }
}

// Two results that share memory have no plan: the view is made outside.
TEST(Regions, AViewThatLeavesDoesNotCostThePlan) {
  for (const char* view : {"y.flatten(1)", "y.reshape([2, -1])", "y.transpose(1, 2)"}) {
    const auto fused = fuse(forward_of("    y = torch.conv2d(torch.conv2d(x, self.a), self.c)\n    return y, " + std::string(view))).module;
    EXPECT_FALSE(fused.attr("_fusible_region_0").toCustomClass<Region>()->explain({kX}).empty()) << view;
  }
}

TEST(Regions, AnActivationInPlaceIsSeenByLaterReaders) {
  const auto graph = fused_graph(R"(
    y = torch.conv2d(x, self.a)
    torch.relu_(y)
    return torch.conv2d(y, self.c) + y[:, :, 1:8, 1:8])");
  EXPECT_THAT(graph, Has("fusible::region"));
}

TEST(Regions, AnActivationInPlaceIsSeenThroughViews) {
  fused_graph("    y = torch.conv2d(x, self.a)\n    v = y.transpose(1, 2)\n    torch.relu_(y)\n    return torch.conv2d(y, self.c), v");
  fused_graph("    y = torch.conv2d(x, self.a)\n    v = y.flatten(1)\n    torch.relu_(v)\n    return torch.conv2d(y, self.c), v");
}

TEST(Regions, AnActivationInPlaceOnAnInputReachesTheCaller) {
  fused_graph("    torch.relu_(x)\n    return torch.conv2d(torch.max_pool2d(torch.conv2d(x, self.a), 2), self.c)");
}

TEST(Regions, DrawRandomNumbersInTheirOrder) {
  fused_graph(R"(
    y = torch.conv2d(x, self.a)
    r = torch.rand_like(y)
    s = torch.rand([3])
    return torch.conv2d(torch.max_pool2d(y, 2), self.c), r, s)");
}

TEST(Regions, WarnBeforeTheyRaise) {
  struct Heard : c10::WarningHandler {
    void process(const c10::Warning& warning) override { text += warning.msg(); }
    std::string text;
  } heard;
  const c10::WarningUtils::WarningHandlerGuard guard(&heard);
  auto fused = fuse(forward_of(R"(
    y = torch.conv2d(x, self.a)
    torch.warn(str(torch.cumprod(y, 1).dim()))
    return torch.conv2d(torch.max_pool2d(y, 2), self.a))")).module;
  heard.text.clear();
  EXPECT_THROW(fused.forward({kX}), std::exception);
  EXPECT_NE(heard.text.find('4'), std::string::npos) << heard.text;
}

TEST(Regions, ATrainingBatchNormUpdatesItsStatisticsOncePerCall) {
  const auto make = [] {
    return script(R"(
def forward(self, x):
    y = torch.max_pool2d(torch.conv2d(x, self.a), 2)
    y = torch.batch_norm(y, self.g, self.h, self.m, self.v, True, 0.1, 1e-5, False)
    return torch.conv2d(y, self.c))", kWeights, {{"m", at::zeros({6})}, {"v", at::ones({6})}});
  };
  auto original = make();
  auto fused = fuse(make()).module;
  for (int call = 0; call < 2; ++call) {
    EXPECT_THAT(run(fused, {kX}), ComputesLike(run(original, {kX})));
    EXPECT_THAT(fused.attr("m").toTensor(), ComputesLike(original.attr("m").toTensor()));
  }
}

TEST(Regions, ReadWhatAnotherMethodWroteMeanwhile) {
  const auto make = [] {
    return script(R"(
def forward(self, x):
    return torch.conv2d(torch.max_pool2d(torch.conv2d(x, self.a), 2) + self.k, self.c)
def grow(self):
    self.k.mul_(3)
    return 0)", kWeights);
  };
  auto original = make(), fused = fuse(make()).module;
  for (int call = 0; call < 2; ++call) {
    EXPECT_THAT(run(fused, {kX}), ComputesLike(run(original, {kX})));
    const at::NoGradGuard no_grad;
    original.get_method("grow")({});
    fused.get_method("grow")({});
  }
}

}  // namespace
}  // namespace fusible::testing
