#pragma once
// Random contractions, and how near to ATen's in double precision a result has to be.

#include <random>

#include <ATen/Parallel.h>

#include "ops/kernels/packed_weights.h"
#include "ops/kernels/try_panels.h"
#include "ops/post_op.h"

namespace fusible {

struct Random {
  explicit Random(unsigned seed) : engine(seed) { at::manual_seed(seed); }
  std::int64_t in(std::int64_t low, std::int64_t high) { return std::uniform_int_distribution<std::int64_t>(low, high)(engine); }
  std::int64_t one_of(std::initializer_list<std::int64_t> list) { return list.begin()[in(0, static_cast<std::int64_t>(list.size()) - 1)]; }
  std::mt19937 engine;
};

inline ContractionSpec random_conv(Random& random) {
  ContractionSpec spec;
  const bool depthwise = random.in(0, 4) == 0;
  spec.groups = depthwise ? random.one_of({3, 16, 24, 67, 130}) : random.one_of({1, 1, 1, 2, 3});
  const std::int64_t in = depthwise ? 1 : spec.groups > 1 ? random.one_of({8, 11, 32}) : random.one_of({1, 3, 4, 7, 8, 16, 33, 64, 100});
  const std::int64_t out = depthwise ? 1 : spec.groups > 1 ? random.one_of({8, 9, 24}) : random.one_of({1, 5, 16, 24, 64, 65, 100, 144});
  const std::int64_t kh = random.one_of({1, 1, 2, 3, 3, 5, 7}), kw = random.in(0, 3) ? kh : random.one_of({1, 3, 5});
  spec.weight = at::randn({out * spec.groups, in, kh, kw}) / std::sqrt(static_cast<double>(in * kh * kw));
  if (random.in(0, 3)) spec.bias = at::randn({out * spec.groups});
  spec.stride = {random.one_of({1, 1, 2, 3}), random.one_of({1, 1, 2, 3})};
  spec.padding = {random.in(0, 4), random.in(0, 4)};
  spec.dilation = {random.one_of({1, 1, 2}), random.one_of({1, 1, 2})};
  return spec;
}

// Groups of which a vector holds several, or one and a part of the next: three taps wide, as most are.
inline ContractionSpec random_grouped(Random& random) {
  ContractionSpec spec;
  const std::int64_t in = random.one_of({2, 4, 8, 12, 16, 20, 24, 40}), out = random.in(0, 2) ? in : random.one_of({2, 4, 8, 9, 16, 21, 24, 40});
  spec.groups = random.one_of({2, 3, 4, 8, 16});
  const std::int64_t kh = random.one_of({1, 2, 3, 3, 3, 5});
  spec.weight = at::randn({out * spec.groups, in, kh, 3}) / std::sqrt(static_cast<double>(in * kh * 3));
  if (random.in(0, 3)) spec.bias = at::randn({out * spec.groups});
  spec.stride = {random.one_of({1, 1, 2, 3}), random.one_of({1, 1, 2})};
  spec.padding = {random.in(0, 3), random.in(0, 3)};
  spec.dilation = {random.one_of({1, 1, 2}), 1};
  return spec;
}

inline at::Tensor by_aten(const at::Tensor& x, const ContractionSpec& s, const PostOps& chain, at::TensorList operands, at::ScalarType dtype) {
  const auto bias = s.bias.defined() ? std::optional(s.bias.to(dtype)) : std::nullopt;
  std::vector<at::Tensor> cast;
  for (const auto& operand : operands) cast.push_back(operand.to(dtype));
  const at::Tensor y = s.kind == Contraction::linear
                           ? at::linear(x.to(dtype), s.weight.to(dtype), bias)
                           : at::conv2d(x.to(dtype), s.weight.to(dtype), bias, s.stride, s.padding, s.dilation, s.groups);
  return apply_post_ops(y, chain, cast);
}

inline double error_of(const at::Tensor& y, const at::Tensor& exact) {
  return (y.to(at::kDouble) - exact).abs().masked_select(exact.isfinite()).max().item<double>();
}

// The bound of fusible's verify: err <= 4 err(ATen in float) + 8 eps max|y|, errors against ATen in double. y before or behind the chain: what rounds
// a few large sums, of which gelu leaves small numbers, is the sums.
inline void expect_close(const at::Tensor& y, const at::Tensor& x, const ContractionSpec& spec, const PostOps& chain, at::TensorList operands,
                  const std::string& what) {
  const at::Tensor exact = by_aten(x, spec, chain, operands, at::kDouble), single = by_aten(x, spec, chain, operands, at::kFloat);
  ASSERT_EQ(y.sizes(), exact.sizes()) << what;
  const at::Tensor sums = by_aten(x, spec, {}, {}, at::kDouble);
  const auto greatest = [](const at::Tensor& y) { return y.abs().masked_select(y.isfinite()).max().item<double>(); };
  const double largest = std::max(greatest(exact), greatest(sums));
  const double ulps = kernels::isa().lanes > 4 ? 8 : 24;  // the plain kernels round each product, too
  EXPECT_LE(error_of(y, exact), 4 * error_of(single, exact) + ulps * 1.1920929e-7 * largest) << what;
}

inline void expect_random_convolutions(ContractionSpec (*make)(Random&), int least) {
  const char* const chains[] = {"", "relu", "add", "add|relu", "hardswish|add|clamp(none, 0.5)", "mul|silu", "gelu(none)|sub|relu6"};
  int taken = 0;
  for (unsigned seed = 0; seed < 150; ++seed) {
    Random random(seed);
    ContractionSpec spec = make(random);
    const at::Tensor x = at::randn({random.one_of({1, 1, 2, 3}), spec.weight.size(1) * spec.groups, random.in(7, 30), random.in(7, 30)})
                             .contiguous(at::MemoryFormat::ChannelsLast);
    const PostOps& chain = parse_post_ops(chains[random.in(0, 6)]);
    std::vector<at::Tensor> operands;
    at::Tensor bare;
    try {
      bare = at::conv2d(x, spec.weight, {}, spec.stride, spec.padding, spec.dilation, spec.groups);
    } catch (const c10::Error&) {
      continue;
    }
    for (const PostOp& step : chain) {
      if (!step.operands) continue;
      const std::int64_t n = bare.size(0), c = bare.size(1), h = bare.size(2), w = bare.size(3);
      const std::vector<std::vector<std::int64_t>> shapes = {{n, c, h, w}, {1, c, 1, 1}, {n, c, 1, 1}, {n, 1, h, w},
                                                             {c, 1, 1},    {1},          {1, c, h, w}};
      operands.push_back(at::randn(shapes[random.in(0, 6)]));
      if (operands.back().dim() == 4) operands.back() = operands.back().contiguous(at::MemoryFormat::ChannelsLast);
    }
    const auto packed = make_packed(spec);
    at::Tensor y;
    if (!try_panels(x, packed->spec(), packed.get(), chain, operands, y)) continue;
    ++taken;
    const std::string what = "seed " + std::to_string(seed) + " " + packed->describe() + " chain of " + std::to_string(chain.size());
    expect_close(y, x, spec, chain, operands, what);
    EXPECT_EQ(y.strides(), bare.strides()) << what;
    const int threads = at::get_num_threads();
    for (int other : {1, 2, 3}) {
      at::set_num_threads(other);
      at::Tensor again;
      ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), chain, operands, again));
      EXPECT_TRUE(at::equal(y, again)) << what << " with " << other << " threads";
    }
    at::set_num_threads(threads);
  }
  EXPECT_GT(taken, least);
}

// Sums of thousands of positive products, off by what some tens of additions round.
inline void expect_short_rounding(const at::Tensor& x, const ContractionSpec& spec) {
  const auto packed = make_packed(spec);
  at::Tensor y;
  ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), {}, {}, y));
  const at::Tensor exact = by_aten(x, spec, {}, {}, at::kDouble);
  EXPECT_LE(error_of(y, exact), 8 * 1.1920929e-7 * exact.max().item<double>());
}

inline ContractionSpec three_by_three(std::int64_t in, std::int64_t out, std::int64_t padding) {
  ContractionSpec spec;
  spec.weight = at::randn({out, in, 3, 3}) / std::sqrt(static_cast<double>(in * 9));
  spec.bias = at::randn({out});
  spec.stride = spec.dilation = {1, 1};
  spec.padding = {padding, padding};
  return spec;
}

}  // namespace fusible
