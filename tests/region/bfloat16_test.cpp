// Regions whose registers are all bfloat16: computed in float32 inside, rounded where results leave.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ops/region/region.h"
#include "ops/region/shapes.h"

namespace fusible {
namespace {

using Arg = Argument;
using Ints = std::vector<std::int64_t>;

ContractionSpec spec_of(Contraction kind, const Ints& weight, std::int64_t stride = 1, std::int64_t padding = 0, std::int64_t groups = 1) {
  ContractionSpec spec;
  spec.kind = kind;
  spec.weight = at::randn(weight) / std::sqrt(static_cast<double>(c10::multiply_integers(weight) / weight[0]));
  spec.groups = groups;
  spec.bias = at::randn({spec.out_channels()});
  if (kind == Contraction::linear) return spec;
  spec.stride = {stride, stride};
  spec.padding = {padding, padding};
  spec.dilation = {1, 1};
  spec.output_padding = {0, 0};
  return spec;
}

ContractionSpec conv(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride = 1, std::int64_t padding = 0, std::int64_t groups = 1) {
  return spec_of(Contraction::conv, {out, in / groups, kernel, kernel}, stride, padding, groups);
}

ContractionSpec linear(std::int64_t in, std::int64_t out) { return spec_of(Contraction::linear, {out, in}); }

struct Builder : Region::Builder {
  at::ScalarType dtype = at::kBFloat16;
  at::Tensor normal(Ints sizes) const { return at::randn(sizes).to(at::kBFloat16).to(dtype); }
  std::int64_t fused(const char* op, std::int64_t x, ContractionSpec spec, const std::string& ops = "", Ints operands = {}) {
    spec.weight = spec.weight.to(at::kBFloat16).to(dtype);
    if (spec.bias.defined()) spec.bias = spec.bias.to(at::kBFloat16).to(dtype);
    return call({op, ""}, {Arg::reg(x), Arg::constant(make_packed(std::move(spec))), Arg::constant(ops), Arg::regs(std::move(operands))});
  }
};

// A network of convolutions with everything that a plan does by itself, and operators that stay with ATen (softmax, cumsum).
c10::intrusive_ptr<Region> network(at::ScalarType dtype) {
  at::manual_seed(11);
  Builder b;
  b.dtype = dtype;
  const auto x = b.input();
  const auto stem = b.fused("fusible::conv", x, conv(3, 24, 3, 2, 1), "relu");
  const auto wide = b.fused("fusible::conv", stem, conv(24, 32, 1), "hardswish");
  const auto depthwise = b.fused("fusible::conv", wide, conv(32, 32, 3, 1, 1, 32), "silu");
  const auto sum = b.fused("fusible::conv", depthwise, conv(32, 24, 1), "add|relu", {stem});
  const auto three = b.fused("fusible::conv", sum, conv(24, 32, 3, 1, 1), "gelu(none)");
  const auto winograd = b.fused("fusible::conv", three, conv(32, 32, 3, 1, 1));
  const auto grouped = b.fused("fusible::conv", winograd, conv(32, 32, 5, 1, 2, 8), "relu");  // no loop nest takes it
  const auto norm = b.call({"aten::batch_norm", ""}, {Arg::reg(grouped), Arg::constant(b.normal({32})), Arg::constant(b.normal({32})), Arg::constant(b.normal({32})),
                                                      Arg::constant(b.normal({32}).abs() + 0.5), Arg::constant(false), Arg::constant(0.1), Arg::constant(1e-5), Arg::constant(false)});
  const auto pool = b.call({"aten::max_pool2d", ""}, {Arg::reg(norm), Arg::constant(Ints{2, 2}), Arg::constant(Ints{2, 2}), Arg::constant(Ints{0, 0}),
                                                      Arg::constant(Ints{1, 1}), Arg::constant(false)});
  const auto cat = b.call({"aten::cat", ""}, {Arg::regs({pool, pool}), Arg::constant(1)});
  const auto soft = b.call({"aten::softmax", "int"}, {Arg::reg(cat), Arg::constant(1), Arg::constant({})});
  const auto up = b.fused("fusible::conv_transpose", soft, spec_of(Contraction::conv_transpose, {64, 16, 2, 2}, 2), "sigmoid");
  const auto mean = b.call({"aten::mean", "dim"}, {Arg::reg(up), Arg::constant(Ints{2, 3}), Arg::constant(false), Arg::constant({})});
  const auto rows = b.fused("fusible::linear", mean, linear(16, 10), "tanh");
  b.output(rows);
  b.output(norm);
  b.output(up);
  return b.finish();
}

c10::intrusive_ptr<Region> encoder(at::ScalarType dtype) {
  at::manual_seed(12);
  Builder b;
  b.dtype = dtype;
  const auto x = b.input();
  const auto heads = [&] {
    const auto y = b.fused("fusible::linear", x, linear(64, 64));
    const auto split = b.call({"aten::view", ""}, {Arg::reg(y), Arg::constant(Ints{2, 20, 4, 16})});
    return b.call({"aten::transpose", "int"}, {Arg::reg(split), Arg::constant(1), Arg::constant(2)});
  };
  const auto q = heads(), k = heads(), v = heads();
  const auto attention = b.call({"aten::scaled_dot_product_attention", ""}, {Arg::reg(q), Arg::reg(k), Arg::reg(v), Arg::constant({}), Arg::constant(0.0),
                                                                             Arg::constant(false), Arg::constant({}), Arg::constant(false)});
  const auto back = b.call({"aten::transpose", "int"}, {Arg::reg(attention), Arg::constant(1), Arg::constant(2)});
  const auto merged = b.call({"aten::reshape", ""}, {Arg::reg(back), Arg::constant(Ints{2, 20, 64})});
  const auto projected = b.fused("fusible::linear", merged, linear(64, 64), "add", {x});
  const auto norm = b.call({"aten::layer_norm", ""}, {Arg::reg(projected), Arg::constant(Ints{64}), Arg::constant(b.normal({64})), Arg::constant(b.normal({64})),
                                                      Arg::constant(1e-5), Arg::constant(true)});
  b.output(b.fused("fusible::linear", norm, linear(64, 100), "gelu(tanh)"));
  return b.finish();
}

// Both have the same numbers as weights; the wide one is the reference.
void expect_nearer_than_one_by_one(const Region& narrow, const Region& wide, const at::Tensor& x) {
  const auto found = narrow.run({x}), one_by_one = narrow.interpret({x}), exact = wide.run({x.to(at::kFloat)});
  EXPECT_FALSE(narrow.explain({x}).empty());
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(found[i].scalar_type(), at::kBFloat16);
    ASSERT_EQ(found[i].sizes(), one_by_one[i].sizes());
    EXPECT_EQ(found[i].strides(), one_by_one[i].strides()) << i;
    EXPECT_TRUE(at::equal(found[i].isnan(), one_by_one[i].isnan())) << i;
    const auto error = [&](const at::Tensor& y) { return at::nan_to_num(y.to(at::kFloat) - exact[i]).abs().max().item<double>(); };
    const double largest = at::nan_to_num(exact[i]).abs().max().item<double>();
    EXPECT_LE(error(found[i]), error(one_by_one[i]) + largest * 0x1p-8) << i;
    EXPECT_LE(error(found[i]), largest * 0x1p-7) << i;  // half a step of bfloat16, and what ATen's steps between round
  }
}

TEST(Bfloat16, GivesWhatTheInstructionsGive) {
  const auto narrow = network(at::kBFloat16), wide = network(at::kFloat);
  for (const bool last : {false, true})
    for (const std::int64_t batch : {1, 3}) {
      at::Tensor x = at::randn({batch, 3, 37, 41}, at::kBFloat16);
      if (last) x = x.contiguous(at::MemoryFormat::ChannelsLast);
      expect_nearer_than_one_by_one(*narrow, *wide, x);
    }
  at::Tensor odd = at::randn({2, 3, 37, 41}, at::kBFloat16);
  odd[0][1][5][7] = std::numeric_limits<double>::quiet_NaN();
  const auto found = narrow->run({odd}), wanted = narrow->interpret({odd});
  for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(at::equal(found[i].isnan(), wanted[i].isnan())) << i;
}

TEST(Bfloat16, EncoderGivesWhatTheInstructionsGive) {
  const auto narrow = encoder(at::kBFloat16), wide = encoder(at::kFloat);
  expect_nearer_than_one_by_one(*narrow, *wide, at::randn({2, 20, 64}, at::kBFloat16));
}

TEST(Bfloat16, StepsAreThoseOfFloat32) {
  const at::Tensor tokens = at::randn({2, 20, 64});
  EXPECT_EQ(encoder(at::kBFloat16)->explain({tokens.to(at::kBFloat16)}), encoder(at::kFloat)->explain({tokens}));
  const at::Tensor x = at::randn({2, 3, 37, 41});
  const auto narrow = network(at::kBFloat16)->explain({x.to(at::kBFloat16)}), wide = network(at::kFloat)->explain({x});
  EXPECT_EQ(narrow, wide);
  EXPECT_EQ(std::count(narrow.begin(), narrow.end(), "ATen"), 4) << ::testing::PrintToString(narrow);  // the grouped convolution, batch_norm on it, softmax, a mean that drops dimensions
}

// What ATen's operators meet rounded is rounded for the steps behind them, too: of one element a mean is that element.
TEST(Bfloat16, WhatAnOperatorOfAtenMetIsRoundedForAll) {
  at::manual_seed(13);
  Builder b;
  const auto y = b.fused("fusible::linear", b.fused("fusible::linear", b.input(), linear(16, 8)), linear(8, 1));
  const auto mean = b.call({"aten::mean", ""}, {Arg::reg(y), Arg::constant({})});
  b.output(b.call({"aten::sub", "Tensor"}, {Arg::reg(y), Arg::reg(mean), Arg::constant(1)}));
  const auto region = b.finish();
  for (int i = 0; i < 20; ++i) {
    const at::Tensor x = at::randn({1, 16}, at::kBFloat16);
    EXPECT_EQ(region->run({x})[0].item<double>(), 0);
    EXPECT_EQ(region->interpret({x})[0].item<double>(), 0);
  }
}

// One register of another dtype: operators one by one, with their own rules of promotion.
TEST(Bfloat16, MixedDtypesGiveWhatTheOperatorsGive) {
  Builder b;
  const auto x = b.input(), z = b.input();
  const auto y = b.fused("fusible::linear", x, linear(32, 48), "relu");
  b.output(b.call({"aten::add", "Tensor"}, {Arg::reg(y), Arg::reg(z), Arg::constant(1)}));
  const auto region = b.finish();
  const std::vector<at::Tensor> inputs{at::randn({6, 32}, at::kBFloat16), at::randn({6, 48})};
  EXPECT_EQ(region->run(inputs)[0].scalar_type(), at::kFloat);
  EXPECT_TRUE(at::allclose(region->run(inputs)[0], region->interpret(inputs)[0], 1e-2, 5e-2));
}

// The shapes of a classifier are inferred, not seen: its dtypes are asked for, too.
TEST(Bfloat16, InputsOfAnotherDtypeThanTheWeightsRaise) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    Builder b;
    b.dtype = dtype;
    const auto x = b.input();
    b.output(b.fused("fusible::linear", b.fused("fusible::linear", x, linear(32, 48), "relu"), linear(48, 7)));
    const auto region = b.finish();
    const at::Tensor rows = at::randn({6, 32}, dtype);
    std::vector<at::Tensor> seen;
    EXPECT_EQ(infer_shapes(*region, {rows}, seen), dtype != at::kDouble);
    EXPECT_EQ(region->run({rows})[0].scalar_type(), dtype);
    for (const at::ScalarType other : {at::kFloat, at::kBFloat16, at::kDouble, at::kHalf})
      if (other != dtype) EXPECT_THROW(region->run({rows.to(other)}), c10::Error) << dtype << " " << other;
  }
}

}  // namespace
}  // namespace fusible
