// Convolutions in groups of few channels: vectors of several groups (ops/kernels/grouped_nest.cpp).

#include "tests/kernels/contractions.h"

namespace fusible {
namespace {

TEST(Grouped, ConvolutionOfRandomShapes) { expect_random_convolutions(random_grouped, 75); }

// A vector's lanes of one group are not another's: what is no number stays in its own.
TEST(Grouped, NaNStaysInItsGroup) {
  for (const std::int64_t channels : {2, 4, 8, 12, 24}) {
    at::manual_seed(static_cast<std::uint64_t>(channels));
    ContractionSpec spec = three_by_three(channels, channels * 16, 1);
    spec.groups = 16;
    at::Tensor x = at::randn({1, channels * 16, 9, 11}).contiguous(at::MemoryFormat::ChannelsLast);
    for (const std::int64_t group : {0, 1, 6, 15}) x.slice(1, group * channels, group * channels + 1).fill_(std::numeric_limits<float>::quiet_NaN());
    const auto packed = make_packed(spec);
    at::Tensor y;
    ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), {}, {}, y));
    EXPECT_TRUE(at::equal(y.isnan(), at::conv2d(x, spec.weight, spec.bias, 1, 1, 1, 16).isnan())) << packed->describe();
    expect_close(y, x, spec, {}, {}, packed->describe());
  }
}

// Longer ones are taken in pieces: sequences, mostly.
TEST(Grouped, LinesOfManyColumns) {
  for (const std::int64_t channels : {4, 8, 24})
    for (const std::int64_t stride : {1, 2}) {
      at::manual_seed(static_cast<std::uint64_t>(channels));
      ContractionSpec spec = three_by_three(channels, channels * 4, 1);
      spec.weight = spec.weight.slice(2, 0, 1).contiguous();
      spec.groups = 4;
      spec.stride = {1, stride};
      spec.padding = {0, 1};
      const at::Tensor x = at::randn({2, channels * 4, 1, 1027}).contiguous(at::MemoryFormat::ChannelsLast);
      const std::vector<at::Tensor> operands = {at::conv2d(x, spec.weight, {}, spec.stride, spec.padding, 1, 4)};
      const auto packed = make_packed(spec);
      at::Tensor y;
      ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), parse_post_ops("add|silu"), operands, y));
      expect_close(y, x, spec, parse_post_ops("add|silu"), operands, packed->describe());
    }
}

// Numbers of one sign: each addition rounds by as much as the sum has grown.
TEST(Grouped, LongSumsRoundAsShortOnesDo) {
  at::manual_seed(5);
  ContractionSpec spec = three_by_three(1500, 16, 1);
  spec.weight = at::rand({16, 1500, 3, 3});
  spec.groups = 2;
  expect_short_rounding(at::rand({1, 3000, 7, 7}).contiguous(at::MemoryFormat::ChannelsLast), spec);
}

TEST(Grouped, UnpackGivesTheDenseWeightBack) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    Random random(seed);
    const ContractionSpec spec = random_grouped(random);
    if (!kernels::PackedWeights::takes(spec)) continue;
    const kernels::PackedWeights weights(spec);
    EXPECT_TRUE(at::equal(weights.unpack(), spec.weight)) << seed;
    const std::int64_t channels = spec.weight.size(0), lanes = kernels::isa().lanes, filled = (channels + lanes - 1) / lanes * lanes;
    if (kernels::PackedWeights::takes_grouped_lines(spec)) EXPECT_EQ(weights.weight_bytes(), 4 * filled * spec.weight.numel() / channels) << seed;
  }
}

}  // namespace
}  // namespace fusible
