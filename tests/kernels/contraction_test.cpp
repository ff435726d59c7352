// Loop nests against ATen over random shapes, and the properties that the operators rely on: same bits for any number of threads, NaN kept,
// packed weights that give the dense ones back.

#include <random>

#include <ATen/Parallel.h>

#include "ops/kernels/chain.h"
#include "ops/kernels/packed_weights.h"
#include "ops/kernels/try_panels.h"
#include "ops/post_op.h"

namespace fusible {
namespace {

struct Random {
  explicit Random(unsigned seed) : engine(seed) { at::manual_seed(seed); }
  std::int64_t in(std::int64_t low, std::int64_t high) { return std::uniform_int_distribution<std::int64_t>(low, high)(engine); }
  std::int64_t one_of(std::initializer_list<std::int64_t> list) { return list.begin()[in(0, static_cast<std::int64_t>(list.size()) - 1)]; }
  std::mt19937 engine;
};

ContractionSpec random_conv(Random& random) {
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
ContractionSpec random_grouped(Random& random) {
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

at::Tensor by_aten(const at::Tensor& x, const ContractionSpec& s, const PostOps& chain, at::TensorList operands, at::ScalarType dtype) {
  const auto bias = s.bias.defined() ? std::optional(s.bias.to(dtype)) : std::nullopt;
  std::vector<at::Tensor> cast;
  for (const auto& operand : operands) cast.push_back(operand.to(dtype));
  const at::Tensor y = s.kind == Contraction::linear
                           ? at::linear(x.to(dtype), s.weight.to(dtype), bias)
                           : at::conv2d(x.to(dtype), s.weight.to(dtype), bias, s.stride, s.padding, s.dilation, s.groups);
  return apply_post_ops(y, chain, cast);
}

double error_of(const at::Tensor& y, const at::Tensor& exact) {
  return (y.to(at::kDouble) - exact).abs().masked_select(exact.isfinite()).max().item<double>();
}

// The bound of fusible's verify: err <= 4 err(ATen in float) + 8 eps max|y|, errors against ATen in double. y before or behind the chain: what rounds
// a few large sums, of which gelu leaves small numbers, is the sums.
void expect_close(const at::Tensor& y, const at::Tensor& x, const ContractionSpec& spec, const PostOps& chain, at::TensorList operands,
                  const std::string& what) {
  const at::Tensor exact = by_aten(x, spec, chain, operands, at::kDouble), single = by_aten(x, spec, chain, operands, at::kFloat);
  ASSERT_EQ(y.sizes(), exact.sizes()) << what;
  const at::Tensor sums = by_aten(x, spec, {}, {}, at::kDouble);
  const auto greatest = [](const at::Tensor& y) { return y.abs().masked_select(y.isfinite()).max().item<double>(); };
  const double largest = std::max(greatest(exact), greatest(sums));
  const double ulps = kernels::isa().lanes > 4 ? 8 : 24;  // the plain kernels round each product, too
  EXPECT_LE(error_of(y, exact), 4 * error_of(single, exact) + ulps * 1.1920929e-7 * largest) << what;
}

void expect_random_convolutions(ContractionSpec (*make)(Random&), int least) {
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

TEST(Contraction, ConvolutionOfRandomShapes) { expect_random_convolutions(random_conv, 75); }

TEST(Contraction, ConvolutionInGroupsOfFewChannels) { expect_random_convolutions(random_grouped, 75); }

ContractionSpec three_by_three(std::int64_t in, std::int64_t out, std::int64_t padding) {
  ContractionSpec spec;
  spec.weight = at::randn({out, in, 3, 3}) / std::sqrt(static_cast<double>(in * 9));
  spec.bias = at::randn({out});
  spec.stride = spec.dilation = {1, 1};
  spec.padding = {padding, padding};
  return spec;
}

// Most taps of most results read padding alone, all but one where the dilation is the image's size; long sums are taken in parts.
TEST(Contraction, DilationsOfTheImagesSize) {
  for (const std::int64_t in : {8, 64, 300})
    for (const std::int64_t groups : {1, 2})
      for (const std::int64_t kernel : {2, 3, 5})
        for (const std::int64_t dilation : {1, 3, 6, 9, 14})
          for (const std::int64_t stride : {1, 2}) {
            ContractionSpec spec;
            spec.weight = at::randn({64 * groups, in, kernel, kernel}) / std::sqrt(static_cast<double>(in));
            spec.bias = at::randn({64 * groups});
            spec.groups = groups;
            spec.stride = {stride, stride};
            spec.padding = {dilation * (kernel / 2), dilation * (kernel / 2)};
            spec.dilation = {dilation, dilation};
            const at::Tensor x = at::randn({2, in * groups, 9, 13}).contiguous(at::MemoryFormat::ChannelsLast);
            const at::Tensor bare = at::conv2d(x, spec.weight, {}, spec.stride, spec.padding, spec.dilation, groups);
            const std::vector<at::Tensor> operands = {at::randn_like(bare)};
            const PostOps& chain = parse_post_ops("add|leaky_relu(0.1)");
            const auto packed = make_packed(spec);
            at::Tensor y;
            ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), chain, operands, y));
            expect_close(y, x, spec, chain, operands, packed->describe());
          }
}

// Winograd's products: odd and even sizes, both orders of work, batches, any number of threads.
TEST(Contraction, ThreeByThreeOfManySizes) {
  struct Case {
    std::int64_t in, out, height, width, images, padding, dilation = 1;
  };
  for (const Case& c : {Case{32, 32, 14, 14, 1, 1}, Case{64, 96, 15, 21, 1, 1}, Case{48, 80, 13, 16, 3, 0}, Case{160, 256, 17, 14, 1, 1},
                        Case{256, 512, 14, 15, 2, 1}, Case{64, 64, 40, 33, 1, 2}, Case{32, 48, 200, 9, 1, 1},
                        // Parts of a dilated convolution, of equal and of different size, and some that leave tiles half empty.
                        Case{32, 48, 28, 28, 1, 2, 2}, Case{64, 32, 29, 31, 2, 2, 2}, Case{48, 64, 40, 44, 1, 4, 4}, Case{32, 32, 33, 27, 3, 0, 3},
                        Case{256, 512, 28, 30, 1, 4, 4}, Case{64, 64, 26, 26, 1, 12, 12}, Case{64, 64, 30, 30, 1, 1, 2}, Case{32, 32, 45, 24, 2, 6, 3}}) {
    ContractionSpec spec = three_by_three(c.in, c.out, c.padding);
    spec.dilation = {c.dilation, c.dilation};
    const auto packed = make_packed(spec);
    const at::Tensor x = at::randn({c.images, c.in, c.height, c.width}).contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor bare = at::conv2d(x, spec.weight, {}, spec.stride, spec.padding, spec.dilation);
    const std::vector<at::Tensor> operands = {at::randn_like(bare)};
    const PostOps& chain = parse_post_ops("add|hardswish");
    const std::string what = packed->describe() + " " + std::to_string(c.height) + " x " + std::to_string(c.width);
    const int threads = at::get_num_threads();
    at::Tensor first;
    for (int count : {1, 2, 3, threads}) {
      at::set_num_threads(count);
      at::Tensor y;
      ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), chain, operands, y)) << what;
      if (!first.defined()) {
        first = y;
        expect_close(y, x, spec, chain, operands, what);
      }
      EXPECT_TRUE(at::equal(first, y)) << what << " with " << count << " threads";
    }
    at::set_num_threads(threads);
    // No further from the sum in float64 than a few roundings of the direct sum.
    const at::Tensor exact = at::conv2d(x.to(at::kDouble), spec.weight.to(at::kDouble), spec.bias.to(at::kDouble), spec.stride, spec.padding, spec.dilation);
    at::Tensor plain;
    ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), {}, {}, plain));
    const double ours = (plain - exact).abs().max().item<double>();
    const double direct = (at::conv2d(x, spec.weight, spec.bias, spec.stride, spec.padding, spec.dilation) - exact).abs().max().item<double>();
    EXPECT_LE(ours, 4 * direct + 8 * 1.2e-7 * exact.abs().max().item<double>()) << what;
  }
}

// Winograd's sum is of neighbours one pixel apart.
TEST(Contraction, ThreeByThreeWithStridesAndDilations) {
  for (const auto& [stride, dilation] : {std::pair<std::int64_t, std::int64_t>{2, 1}, {1, 2}}) {
    ContractionSpec spec = three_by_three(64, 64, 1);
    spec.stride = {stride, stride};
    spec.dilation = {dilation, dilation};
    const auto packed = make_packed(spec);
    const at::Tensor x = at::randn({2, 64, 32, 30}).contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor y;
    ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), {}, {}, y));
    expect_close(y, x, spec, {}, {}, packed->describe());
  }
}

// A transformed tile mixes neighbours: what is not finite, or overflows, must reach exactly the results that read it.
TEST(Contraction, ThreeByThreeKeepsNumbersThatAreNotFiniteInTheirPlaces) {
  const float infinity = std::numeric_limits<float>::infinity(), largest = std::numeric_limits<float>::max();
  for (const auto& [in, out] : {std::pair<std::int64_t, std::int64_t>{32, 48}, {256, 256}})
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity, largest, -largest}) {
      const ContractionSpec spec = three_by_three(in, out, 1);
      const auto packed = make_packed(spec);
      at::Tensor x = at::randn({2, in, 16, 15}).contiguous(at::MemoryFormat::ChannelsLast);
      x[1][5][7][8] = value;
      x[1][5][7][9] = value;
      at::Tensor y;
      ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), {}, {}, y));
      const at::Tensor reference = at::conv2d(x, spec.weight, spec.bias, spec.stride, spec.padding);
      EXPECT_TRUE(at::equal(y.isnan(), reference.isnan())) << value;
      EXPECT_TRUE(at::equal(y.isinf(), reference.isinf())) << value;
      const at::Tensor small = reference.isfinite() & (reference.abs() < 1e6);
      EXPECT_LT((y - reference).masked_select(small).abs().max().item<float>(), 1e-3) << value;
    }
}

TEST(Contraction, LinearOfRandomShapes) {
  const char* const chains[] = {"", "relu", "gelu(none)", "add|relu", "add|gelu(tanh)|mul(0.5)", "mul|silu"};
  for (unsigned seed = 0; seed < 120; ++seed) {
    Random random(seed);
    ContractionSpec spec;
    spec.kind = Contraction::linear;
    const std::int64_t in = random.one_of({1, 7, 64, 129, 512, 1000}), out = random.one_of({1, 10, 64, 100, 300});
    spec.weight = at::randn({out, in}) / std::sqrt(static_cast<double>(in));
    if (random.in(0, 3)) spec.bias = at::randn({out});
    const std::int64_t m = random.one_of({1, 2, 5, 6, 13, 50}), b = random.one_of({1, 3});
    const at::Tensor x = random.in(0, 1) ? at::randn({m, in}) : at::randn({b, m, in});
    const PostOps& chain = parse_post_ops(chains[random.in(0, 5)]);
    std::vector<at::Tensor> operands;
    for (const PostOp& step : chain) {
      if (!step.operands) continue;
      const std::vector<std::vector<std::int64_t>> shapes = {{m, out}, {out}, {m, 1}, {1}};
      operands.push_back(at::randn(shapes[random.in(0, 3)]));
    }
    const auto packed = make_packed(spec);
    at::Tensor y;
    if (!try_panels(x, packed->spec(), packed.get(), chain, operands, y)) continue;
    const std::string what = "seed " + std::to_string(seed) + " m " + std::to_string(m) + " " + packed->describe();
    expect_close(y, x, spec, chain, operands, what);
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    at::Tensor again;
    ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), chain, operands, again));
    at::set_num_threads(threads);
    EXPECT_TRUE(at::equal(y, again)) << what;
  }
}

TEST(Contraction, EveryActivation) {
  at::manual_seed(5);
  ContractionSpec spec;
  spec.kind = Contraction::linear;
  spec.weight = at::randn({70, 64}) / 8;
  spec.bias = at::randn({70});
  const auto packed = make_packed(spec);
  at::Tensor x = at::randn({9, 64}) * 6;
  x[1] *= 1e4;  // both tails
  x[2].fill_(std::numeric_limits<float>::quiet_NaN());
  x[3][0] = std::numeric_limits<float>::infinity();
  for (const char* text : {"relu", "relu6", "hardtanh(-0.5, 2)", "clamp(none, 3)", "clamp(0.1, none)", "leaky_relu(0.2)", "sigmoid", "tanh",
                           "silu", "hardswish", "hardsigmoid", "gelu(none)", "gelu(tanh)", "gelu(erf)", "elu(1.5, 0.7, 1.1)", "mish",
                           "softplus(1.3, 20)", "add(0.3)", "rsub(2)", "sub(1)|mul(0.5)|div(3)"}) {
    at::Tensor y;
    ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), parse_post_ops(text), {}, y)) << text;
    // oneDNN's gelu makes NaN of +inf; ATen's own keeps it.
    at::globalContext().setUserEnabledMkldnn(false);
    const at::Tensor single = apply_post_ops(at::linear(x, spec.weight, spec.bias), parse_post_ops(text), {});
    at::globalContext().setUserEnabledMkldnn(true);
    EXPECT_TRUE(at::equal(y.isnan(), single.isnan())) << text;
    EXPECT_TRUE(at::equal(y.isinf(), single.isinf())) << text;
    expect_close(y, x, spec, parse_post_ops(text), {}, text);
  }
}

TEST(Contraction, PreluAndBatchNormPerChannel) {
  at::manual_seed(6);
  ContractionSpec spec;
  spec.weight = at::randn({20, 16, 3, 3}) / 12;
  spec.stride = spec.dilation = spec.padding = {1, 1};
  const auto packed = make_packed(spec);
  const at::Tensor x = at::randn({2, 16, 9, 11}).contiguous(at::MemoryFormat::ChannelsLast);
  const std::vector<at::Tensor> operands = {at::rand({20}), at::randn({20}), at::randn({20}), at::randn({20}), at::rand({20}) + 0.5};
  const PostOps& chain = parse_post_ops("prelu|batch_norm(1e-05)");
  at::Tensor y;
  ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), chain, operands, y));
  expect_close(y, x, spec, chain, operands, "prelu, batch_norm");
}

// A vector's lanes of one group are not another's: what is no number stays in its own.
TEST(Contraction, NaNStaysInItsGroup) {
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

TEST(Contraction, UnpackGivesTheDenseWeightBack) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    Random random(seed);
    const ContractionSpec spec = seed % 2 ? random_conv(random) : random_grouped(random);
    if (kernels::PackedWeights::takes(spec)) EXPECT_TRUE(at::equal(kernels::PackedWeights(spec).unpack(), spec.weight)) << seed;
  }
}

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

TEST(Contraction, PlanarImagesOfFewChannels) {
  at::manual_seed(7);
  ContractionSpec spec;
  spec.weight = at::randn({32, 3, 7, 7}) / 12;
  spec.stride = {2, 2};
  spec.padding = {3, 3};
  spec.dilation = {1, 1};
  const kernels::PackedWeights weights(spec);
  ASSERT_TRUE(weights.takes_planar());
  const at::Tensor x = at::randn({2, 3, 20, 31});
  const kernels::Pixels pixels{2, 20, 31, 3, true};
  const kernels::Pixels out = weights.out_pixels(pixels);
  at::Tensor y = at::empty({2, 32, out.height, out.width}, at::MemoryFormat::ChannelsLast);
  at::Tensor scratch = at::empty({weights.scratch_floats(pixels)});
  weights.run(x.const_data_ptr<float>(), pixels, y.mutable_data_ptr<float>(), 32, {}, true, scratch.mutable_data_ptr<float>());
  expect_close(y, x, spec, {}, {}, "planar");
}

}  // namespace
}  // namespace fusible
