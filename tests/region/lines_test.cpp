// Contractions that pass lines on to each other (ops/region/step_lines.cpp): the bits of the contractions one by one.

#include <algorithm>
#include <limits>
#include <random>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "ops/region/region.h"

namespace fusible {
namespace {

using Arg = Argument;

struct Layer {
  ContractionSpec spec;
  std::string chain;
  std::int64_t operand = -1;  // the layer whose result the chain reads; 0: the region's input
};

Layer conv(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride, std::int64_t padding, std::int64_t groups = 1,
           std::int64_t dilation = 1) {
  ContractionSpec spec;
  spec.weight = at::randn({out, in / groups, kernel, kernel}) / std::sqrt(static_cast<double>(in / groups * kernel * kernel));
  spec.bias = at::randn({out});
  spec.stride = {stride, stride};
  spec.padding = {padding, padding};
  spec.dilation = {dilation, dilation};
  spec.groups = groups;
  return {spec, "hardtanh(-1, 1.5)"};
}

Layer linear(std::int64_t in, std::int64_t out) {
  ContractionSpec spec;
  spec.kind = Contraction::linear;
  spec.weight = at::randn({out, in}) / std::sqrt(static_cast<double>(in));
  return {spec, "gelu(none)"};
}

// `escapes`: every result leaves the region, so that none is passed on in lines.
c10::intrusive_ptr<Region> region_of(const std::vector<Layer>& layers, bool escapes) {
  Region::Builder b;
  std::vector<std::int64_t> results{b.input()};
  for (const Layer& layer : layers) {
    const std::string op = layer.spec.kind == Contraction::linear ? "fusible::linear" : "fusible::conv";
    std::vector<std::int64_t> operands;
    if (layer.operand >= 0) operands.push_back(results[layer.operand]);
    results.push_back(b.call({op, ""}, {Arg::reg(results.back()), Arg::constant(make_packed(layer.spec)), Arg::constant(layer.chain),
                                        Arg::regs(operands)}));
  }
  b.output(results.back());
  for (size_t i = 1; escapes && i + 1 < results.size(); ++i) b.output(results[i]);
  return b.finish();
}

std::int64_t joined(const Region& region, const at::Tensor& x) {
  const auto steps = region.explain({x});
  return std::count(steps.begin(), steps.end(), "loop nest, line by line");
}

void expect_bits(const std::vector<Layer>& layers, const at::Tensor& x, std::int64_t joins) {
  const auto lines = region_of(layers, false), whole = region_of(layers, true);
  ASSERT_EQ(joined(*whole, x), 0);
  const at::Tensor wanted = whole->run({x})[0];
  const int threads = at::get_num_threads();
  for (const int asked : {1, 2, 3}) {
    at::set_num_threads(asked);
    const auto fresh = region_of(layers, false);  // plans are made for the threads at hand
    if (asked == 1) EXPECT_EQ(joined(*fresh, x), joins);
    const at::Tensor y = fresh->run({x})[0];
    EXPECT_EQ(y.strides(), wanted.strides());
    EXPECT_TRUE(at::equal(y.nan_to_num(7, 8, 9), wanted.nan_to_num(7, 8, 9))) << asked << " threads: " << (y - wanted).abs().max();
    EXPECT_TRUE(at::equal(lines->run({x})[0].isnan(), wanted.isnan()));
  }
  at::set_num_threads(threads);
}

at::Tensor image(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return at::randn({n, c, h, w}).contiguous(at::MemoryFormat::ChannelsLast);
}

TEST(Lines, InvertedResidualsFromTheImageOn) {
  at::manual_seed(1);
  const std::vector<Layer> layers = {conv(3, 32, 3, 2, 1),       conv(32, 32, 3, 1, 1, 32), conv(32, 16, 1, 1, 0),
                                     conv(16, 96, 1, 1, 0),      conv(96, 96, 3, 2, 1, 96), conv(96, 24, 1, 1, 0)};
  for (const auto& x : {at::randn({1, 3, 224, 224}), image(2, 3, 224, 200)}) expect_bits(layers, x, 6);
}

TEST(Lines, ResidualsAndGatesMeetTheirRows) {
  at::manual_seed(2);
  std::vector<Layer> layers = {conv(24, 144, 1, 1, 0), conv(144, 144, 5, 1, 2, 144), conv(144, 24, 1, 1, 0)};
  layers[2].chain = "add|silu";
  layers[2].operand = 0;
  expect_bits(layers, image(3, 24, 57, 49), 3);
}

TEST(Lines, GroupsOfFewChannels) {
  at::manual_seed(8);
  for (const std::int64_t groups : {4, 8, 24})
    for (const std::int64_t stride : {1, 2})
      expect_bits({conv(32, 96, 1, 1, 0), conv(96, 96, 3, stride, 1, groups), conv(96, 24, 1, 1, 0)}, image(2, 32, 85, 67), 3);
}

TEST(Lines, MatrixProductsTakeAnyRows) {
  at::manual_seed(3);
  expect_bits({linear(96, 384), linear(384, 96)}, at::randn({2, 40, 33, 96}), 2);
  expect_bits({conv(64, 200, 1, 1, 0), conv(200, 70, 1, 1, 0)}, image(2, 64, 61, 53), 2);
}

// A linear reads rows along the last dimension, a convolution pixels along the channels: what one makes lies otherwise than the other reads it.
TEST(Lines, RowsAndPixelsAreNotPassedOnToEachOther) {
  at::manual_seed(9);
  Layer sequence = conv(64, 64, 1, 1, 0);
  sequence.spec.weight = sequence.spec.weight.squeeze(-1);
  sequence.spec.stride = sequence.spec.dilation = {1};
  sequence.spec.padding = {0};
  expect_bits({conv(64, 64, 1, 1, 0), linear(64, 64)}, image(4, 64, 64, 64), 0);
  expect_bits({linear(64, 64), conv(64, 64, 1, 1, 0)}, at::randn({4, 64, 64, 64}), 0);
  for (const std::int64_t length : {64, 256}) {
    expect_bits({sequence, linear(length, 96)}, at::randn({96, 64, length}), 0);
    expect_bits({linear(96, length), sequence}, at::randn({96, 64, 96}), 0);
  }
}

TEST(Lines, NaNAndInfReachWhatReadsThem) {
  at::manual_seed(4);
  at::Tensor x = image(1, 16, 113, 111);
  x[0][3][55][60] = std::numeric_limits<float>::quiet_NaN();
  x[0][5][112][110] = std::numeric_limits<float>::infinity();
  expect_bits({conv(16, 96, 1, 1, 0), conv(96, 96, 3, 1, 1, 96), conv(96, 24, 1, 1, 0)}, x, 3);
}

TEST(Lines, WinogradKeepsItsSums) {
  at::manual_seed(7);
  const std::vector<Layer> into = {conv(64, 128, 1, 1, 0), conv(128, 64, 3, 1, 1)}, out_of = {conv(64, 128, 3, 1, 1), conv(128, 64, 1, 1, 0)};
  expect_bits(into, image(1, 64, 64, 60), 0);
  expect_bits(out_of, image(1, 64, 64, 60), 0);
}

TEST(Lines, SmallResultsStayAsTheyAre) {
  at::manual_seed(5);
  expect_bits({conv(16, 32, 1, 1, 0), conv(32, 32, 3, 1, 1, 32)}, image(1, 16, 20, 20), 0);
}

// Kernels that reach over the borders, strides that leave pixels out, dilation, groups.
TEST(Lines, RandomRunsOfConvolutions) {
  std::mt19937 random(6);
  at::manual_seed(6);
  std::int64_t joins = 0;
  for (int round = 0; round < 40; ++round) {
    std::int64_t channels = 8 * (1 + random() % 6), height = 90 + random() % 60, width = 90 + random() % 60;
    const at::Tensor x = image(1 + random() % 2, channels, height, width);
    std::vector<Layer> layers;
    for (int i = 0, count = 2 + random() % 3; i < count; ++i) {
      const bool depthwise = random() % 2;
      const std::int64_t kernel = std::vector<std::int64_t>{1, 2, 3, 5, 7}[random() % 5], dilation = 1 + random() % 2, stride = 1 + (random() % 4 == 0);
      const std::int64_t padding = random() % (kernel + 2), out = depthwise ? channels : 8 * (4 + random() % 10);
      if (height + 2 * padding < dilation * (kernel - 1) + 20) break;
      layers.push_back(conv(channels, out, kernel, stride, padding, depthwise ? channels : 1, dilation));
      layers.back().chain = std::vector<std::string>{"", "relu", "silu", "leaky_relu(0.1)|add(1)"}[random() % 4];
      height = (height + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
      channels = out;
    }
    const auto lines = region_of(layers, false), whole = region_of(layers, true);
    const at::Tensor y = lines->run({x})[0], wanted = whole->run({x})[0];
    joins += joined(*lines, x) > 0;
    ASSERT_TRUE(at::equal(y, wanted)) << "round " << round << ": " << (y - wanted).abs().max();
  }
  EXPECT_GT(joins, 10);
}

}  // namespace
}  // namespace fusible
