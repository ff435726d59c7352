// layout: where a run's borders lie, and that every result has the original's strides whatever the layouts of the inputs are.

#include "passes/verify.h"
#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

const Weights kWeights{{"a", seeded({6, 4, 3, 3}, 1)}, {"c", seeded({6, 6, 3, 3}, 2)}, {"d", seeded({5, 6, 1, 1}, 3)},
                       {"s", seeded({6, 1, 1}, 4)},    {"e", seeded({6, 10, 1, 1}, 5)}, {"one", seeded({1, 6, 1, 1}, 6)}, {"from_one", seeded({6, 1, 1, 1}, 7)}};

int borders(const std::string& body, const Weights& weights = kWeights) {
  Stages stages(script("def forward(self, x, z):\n" + body, weights));
  Graph& graph = stages.laid_out();
  graph.lint();
  return count_nodes(graph.block(), "fusible::to_channels_last") + count_nodes(graph.block(), "fusible::restore_layout");
}

TEST(Layout, AConstantOperandIsNoBorder) {
  EXPECT_EQ(borders("    return torch.conv2d(torch.relu(torch.conv2d(x, self.a)) + self.s, self.c)"), 2);
}

TEST(Layout, AReluBehindASumHasNoOperandOnTheLeft) {
  const auto of = [](const std::string& sum) { return "    return torch.conv2d(torch.conv2d(torch.relu(" + sum + "), self.c), self.d)"; };
  EXPECT_EQ(borders(of("torch.conv2d(x, self.a) + z")), 5);  // two of them for a z of more dimensions
  EXPECT_EQ(borders(of("z - torch.conv2d(x, self.a)")), 0);
}

TEST(Layout, RunsThatMeetAreOne) {
  EXPECT_EQ(borders("    y = torch.conv2d(x, self.a)\n    w = torch.max_pool2d(torch.conv2d(x, self.a), 1)\n    return torch.cat([y, w], 1)"), 2);
}

TEST(Layout, MoreBordersThanConvolutionsAreNotWorthIt) {
  EXPECT_EQ(borders("    y = torch.conv2d(x, self.a)\n    return torch.conv2d(y, self.c), y"), 0);
}

TEST(Layout, AWriteBeforeAValueWasMadeIsNoWriteToIt) {
  EXPECT_EQ(borders("    t = torch.tanh(x)\n    t.mul_(2)\n    return torch.conv2d(torch.conv2d(t.transpose(2, 3), self.a), self.c)"), 2);
}

TEST(Layout, StridesAreAskedOutsideOfARun) {
  EXPECT_EQ(borders("    y = torch.conv2d(torch.conv2d(torch.conv2d(x, self.a), self.c), self.c)\n    return torch.conv2d(y, self.d), y.is_contiguous()"), 3);
}

TEST(Layout, Float64AndOtherRanksStayAsTheyAre) {
  Weights wide = kWeights;
  for (auto& [name, weight] : wide) weight = weight.to(at::kDouble);
  EXPECT_EQ(borders("    return torch.conv2d(torch.conv2d(x, self.a), self.c)", wide), 0);
  EXPECT_EQ(borders("    return torch.conv3d(torch.conv3d(x, self.v), self.v)", {{"v", seeded({4, 4, 3, 3, 3}, 1)}}), 0);
}

TEST(Layout, OneChannelIsBothLayoutsAndStaysAsItIs) {
  for (const char* result : {"torch.conv2d(torch.conv2d(x, self.one), self.from_one)", "torch.conv2d(torch.conv2d(x, self.c), self.one)",
                             "torch.conv2d(torch.conv2d(x, self.from_one), self.c)"})
    EXPECT_EQ(borders("    return " + std::string(result)), 0) << result;
}

TEST(Layout, ConcatenationOfAnythingButChannelsEndsARun) {
  EXPECT_EQ(borders("    y = torch.conv2d(torch.conv2d(x, self.a), self.c)\n    return torch.cat([y, y], 2)"), 2);
  Stages stages(script("def forward(self, x):\n    y = torch.conv2d(torch.conv2d(x, self.a), self.c)\n    return torch.cat([y, y], 2)", kWeights));
  EXPECT_TRUE(stages.laid_out().outputs()[0]->node()->kind() == torch::jit::aten::cat);
}

// Batches of images, as a product with a tensor of five dimensions gives them, have the original's strides, too: of inputs and weights of that rank.
TEST(Layout, OperandsOfMoreDimensionsMeetTheOriginalsLayout) {
  Weights weights = kWeights;
  weights.push_back({"five", seeded({3, 1, 6, 1, 1}, 8)});
  const auto x = seeded({2, 4, 13, 12}, 9);
  for (const std::string& y : {"torch.conv2d(torch.conv2d(torch.conv2d(x, self.a), self.c), self.c)", "torch.max_pool2d(torch.conv2d(torch.conv2d(torch.conv2d(x, self.a), self.c), self.c), 2)"})
    for (const std::string& result : {"y * self.five", "self.five * y", "y * z", "z * y", "y + torch.relu(z)", "torch.relu(torch.relu(y) * z)", "y + y * z", "torch.cat([y * z, y - z], 1)",
                                      "(y * z).reshape(6, 6, y.size(2), y.size(3)), torch.conv2d((y * z).reshape(6, 6, y.size(2), y.size(3)), self.d)"}) {
      const auto module = script("def forward(self, x, z):\n    y = " + y + "\n    return " + result, weights);
      const auto installed = Stages(module).installed();
      for (const auto& z : {seeded({3, 1, 6, 1, 1}, 10), seeded({6, 1, 1}, 11), seeded({1, 6, 1, 1}, 12)})
        for (const auto& image : {x, x.contiguous(at::MemoryFormat::ChannelsLast)}) {
          const auto expected = result_of(module, {image, z}), found = result_of(installed, {image, z});
          ASSERT_EQ(found.has_value(), expected.has_value()) << result;
          if (expected) EXPECT_THAT(*found, ComputesLike(*expected)) << y << " " << result << z.dim() << image.strides();
        }
    }
}

class LayoutOf : public ::testing::TestWithParam<const char*> {};

TEST_P(LayoutOf, IsTheOriginalsForInputsOfEitherLayout) {
  const auto module = script("def forward(self, x, z):\n    return " + std::string(GetParam()), kWeights);
  const auto installed = Stages(module).installed();
  for (const auto& sizes : {std::vector<std::int64_t>{2, 4, 9, 8}, {1, 4, 5, 5}, {2, 4, 5, 5}}) {
    const auto x = seeded(sizes, 8), z = seeded({sizes[0], 6, sizes[2] - 2, sizes[3] - 2}, 9);
    const auto last = [](const at::Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast); };
    for (const auto& [image, other] : {std::pair{x, z}, {last(x), z}, {x, last(z)}, {last(x), last(z)}}) {
      const auto expected = result_of(module, {image, other}), found = result_of(installed, {image, other});
      ASSERT_EQ(found.has_value(), expected.has_value());
      if (!expected) continue;
      EXPECT_THAT(*found, ComputesLike(*expected)) << image.strides() << other.strides();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, LayoutOf, ::testing::Values(
  "torch.conv2d(torch.relu(torch.conv2d(x, self.a) + z), self.c)", "torch.conv2d(torch.relu(z + torch.conv2d(x, self.a)), self.c)",
  "torch.max_pool2d(torch.conv2d(torch.conv2d(x, self.a), self.c) + z[:, :, 1:-1, 1:-1], 1)",
  "z[:, :, 1:-1, 1:-1] - torch.sigmoid(torch.conv2d(torch.conv2d(x, self.a), self.c))",
  "torch.cat([torch.conv2d(torch.conv2d(torch.conv2d(x, self.a), self.c), self.d), z[:, :, 1:-1, 1:-1]], 1)",
  "torch.relu(torch.cat([torch.conv2d(torch.conv2d(x, self.a), self.d), torch.conv2d(z, self.d)], 1))",
  "torch.conv2d(torch.conv2d(x, self.a), self.c)",
  // Runs of three convolutions, which are worth the two borders that the images take.
  "torch.conv2d(torch.conv2d(torch.relu(torch.conv2d(x, self.a) + z), self.c), self.d)",
  "torch.conv2d(torch.conv2d(torch.relu(z + torch.conv2d(x, self.a)), self.c), self.d)",
  "torch.conv2d(torch.conv2d(z - torch.sigmoid(torch.conv2d(x, self.a)), self.c), self.d)",
  "z[:, :, 2:-2, 2:-2] - torch.sigmoid(torch.conv2d(torch.conv2d(torch.conv2d(x, self.a), self.c), self.c))"));

}  // namespace
}  // namespace fusible::testing
