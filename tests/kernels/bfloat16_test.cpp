// Loop nests on weights of bfloat16: sums in float32, rounded once.

#include "tests/kernels/contractions.h"

namespace fusible {
namespace {

ContractionSpec in_bfloat16(ContractionSpec spec) {
  spec.weight = spec.weight.to(at::kBFloat16);
  if (spec.bias.defined()) spec.bias = spec.bias.to(at::kBFloat16);
  return spec;
}

// The exact result rounded once: sums are taken in float32, weights are widened bit for bit. ATen rounds after each operator.
TEST(Contraction, Bfloat16IsRoundedOnce) {
  int taken = 0, heavy = 0;
  const auto expect_rounded_once = [&](const ContractionSpec& spec, const at::Tensor& x, const char* ops, const std::vector<at::Tensor>& operands) {
    const auto packed = make_packed(spec);
    at::Tensor y;
    if (!try_panels(x, packed->spec(), packed.get(), parse_post_ops(ops), operands, y)) return;
    ++taken;
    heavy += kernels::packed_weights(*packed).weight_bytes() > 1 << 20;
    ASSERT_EQ(y.scalar_type(), at::kBFloat16);
    const at::Tensor exact = by_aten(x, spec, parse_post_ops(ops), operands, at::kDouble), sums = by_aten(x, spec, {}, {}, at::kDouble);
    const at::Tensor allowed = exact.abs() * 0x1p-8 + 1e-5 * sums.abs().max();
    EXPECT_TRUE(((y.to(at::kDouble) - exact).abs() <= allowed).all().item<bool>()) << packed->describe() << " " << ops;
    EXPECT_TRUE(at::equal(packed->values()->dense(), spec.weight)) << packed->describe();
  };
  for (unsigned seed = 0; seed < 120; ++seed) {
    Random random(seed);
    const ContractionSpec spec = in_bfloat16(seed % 4 ? random_conv(random) : random_grouped(random));
    const at::Tensor x = at::randn({random.one_of({1, 2, 3}), spec.weight.size(1) * spec.groups, random.in(7, 30), random.in(7, 30)}, at::kBFloat16)
                             .contiguous(at::MemoryFormat::ChannelsLast);
    try {
      const at::Tensor bare = at::conv2d(x, spec.weight, {}, spec.stride, spec.padding, spec.dilation, spec.groups);
      expect_rounded_once(spec, x, seed % 2 ? "add|silu" : "relu", seed % 2 ? std::vector<at::Tensor>{at::randn_like(bare)} : std::vector<at::Tensor>{});
    } catch (const c10::Error&) {
      continue;  // the image is smaller than the kernel
    }
  }
  for (const std::int64_t in : {2, 7, 64, 1030, 1031})
    for (const std::int64_t out : {1, 15, 64, 1100})
      for (const std::int64_t rows : {1, 2, 5, 6, 40}) {
        ContractionSpec spec;
        spec.kind = Contraction::linear;
        spec.weight = at::randn({out, in}) / std::sqrt(static_cast<double>(in));
        spec.bias = at::randn({out});
        expect_rounded_once(in_bfloat16(spec), at::randn({rows, in}, at::kBFloat16), "gelu(none)", {});
      }
  EXPECT_GT(taken, 150);
  EXPECT_GT(heavy, 5);
}

// Twice the weights of bfloat16 are read as pairs; where the depth is odd they are float32, and depthwise, too.
TEST(Contraction, Bfloat16WeightsStayBfloat16) {
  at::manual_seed(3);
  const ContractionSpec even = in_bfloat16(three_by_three(64, 64, 1)), odd = in_bfloat16(three_by_three(33, 64, 1));
  EXPECT_EQ(kernels::PackedWeights(even).weight_bytes(), 2 * 64 * 64 * 9);
  EXPECT_EQ(kernels::PackedWeights(odd).weight_bytes(), 4 * 33 * 64 * 9);
}

TEST(Contraction, DtypesThatDifferAreLeftToAten) {
  at::manual_seed(4);
  ContractionSpec spec = three_by_three(16, 24, 1);
  const at::Tensor x = at::randn({2, 16, 9, 9}).contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor y;
  const auto wide = make_packed(spec), narrow = make_packed(in_bfloat16(spec));
  EXPECT_FALSE(try_panels(x.to(at::kBFloat16), wide->spec(), wide.get(), {}, {}, y));
  EXPECT_FALSE(try_panels(x, narrow->spec(), narrow.get(), {}, {}, y));
  EXPECT_FALSE(try_panels(x.to(at::kBFloat16), narrow->spec(), narrow.get(), parse_post_ops("add"), {at::randn({24, 1, 1})}, y));
  EXPECT_TRUE(try_panels(x.to(at::kBFloat16), narrow->spec(), narrow.get(), parse_post_ops("add"), {at::randn({24, 1, 1}, at::kBFloat16)}, y));
  ContractionSpec mixed = in_bfloat16(spec);
  mixed.bias = spec.bias;
  EXPECT_FALSE(kernels::PackedWeights::takes(mixed));
}

}  // namespace
}  // namespace fusible
