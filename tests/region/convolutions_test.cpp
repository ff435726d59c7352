// Convolutions of one to three dimensions, plain and transposed, as plans run them: values against ATen in float64, strides as the
// operators give them, the same bits for any number of threads.

#include <random>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "ops/kernels/isa.h"
#include "ops/kernels/packed_weights.h"
#include "ops/post_op.h"
#include "ops/region/region.h"

namespace fusible {
namespace {

using Arg = Argument;
using Sizes = std::vector<std::int64_t>;

struct Random {
  explicit Random(unsigned seed) : engine(seed) { at::manual_seed(seed); }
  std::int64_t in(std::int64_t low, std::int64_t high) { return std::uniform_int_distribution<std::int64_t>(low, high)(engine); }
  std::int64_t one_of(std::initializer_list<std::int64_t> list) { return list.begin()[in(0, static_cast<std::int64_t>(list.size()) - 1)]; }
  std::mt19937 engine;
};

bool is_transposed(const ContractionSpec& spec) { return spec.kind == Contraction::conv_transpose; }

ContractionSpec random_spec(Random& random, std::int64_t spatial, bool transposed) {
  ContractionSpec spec;
  spec.kind = transposed ? Contraction::conv_transpose : Contraction::conv;
  const bool depthwise = random.in(0, 4) == 0;
  spec.groups = depthwise ? random.one_of({3, 16, 24, 67}) : random.one_of({1, 1, 1, 2, 3});
  const std::int64_t in = depthwise ? 1 : spec.groups > 1 ? random.one_of({8, 11, 32}) : random.one_of({1, 3, 7, 8, 16, 33, 64});
  const std::int64_t out = depthwise ? 1 : spec.groups > 1 ? random.one_of({8, 9, 24}) : random.one_of({1, 5, 16, 24, 65, 100});
  Sizes shape = transposed ? Sizes{in * spec.groups, out} : Sizes{out * spec.groups, in};
  for (std::int64_t d = 0; d < spatial; ++d) {
    shape.push_back(random.one_of({1, 2, 3, 3, 4, spatial == 1 ? 7 : 5}));
    spec.stride.push_back(random.one_of({1, 1, 2, 2, 3}));
    spec.dilation.push_back(random.one_of({1, 1, 1, 2, 3}));
    spec.padding.push_back(random.in(0, 2));
    spec.output_padding.push_back(transposed ? random.in(0, std::max(spec.stride.back(), spec.dilation.back()) - 1) : 0);
  }
  spec.weight = at::randn(shape);
  spec.weight /= std::sqrt(static_cast<double>(spec.weight.numel()) / (out * spec.groups));
  if (random.in(0, 3)) spec.bias = at::randn({out * spec.groups});
  return spec;
}

at::Tensor by_aten(const at::Tensor& x, const ContractionSpec& s, const std::string& chain, const std::vector<at::Tensor>& operands,
                   at::ScalarType dtype) {
  const auto bias = s.bias.defined() ? std::optional(s.bias.to(dtype)) : std::nullopt;
  std::vector<at::Tensor> cast;
  for (const at::Tensor& operand : operands) cast.push_back(operand.to(dtype));
  const at::Tensor y = at::convolution(x.to(dtype), s.weight.to(dtype), bias, s.stride, s.padding, s.dilation, is_transposed(s),
                                       s.output_padding, s.groups);
  return apply_post_ops(y, parse_post_ops(chain), cast);
}

at::Tensor channels_innermost(const at::Tensor& x) { return x.movedim(1, -1).contiguous().movedim(-1, 1); }

double error_of(const at::Tensor& y, const at::Tensor& exact) { return (y.to(at::kDouble) - exact).abs().max().item<double>(); }

c10::intrusive_ptr<Region> region_of(const c10::intrusive_ptr<PackedContraction>& packed, const std::string& chain, size_t operands) {
  Region::Builder b;
  const auto x = b.input();
  std::vector<std::int64_t> registers;
  for (size_t i = 0; i < operands; ++i) registers.push_back(b.input());
  b.output(b.call({is_transposed(packed->spec()) ? "fusible::conv_transpose" : "fusible::conv", ""},
                  {Arg::reg(x), Arg::constant(packed), Arg::constant(chain), Arg::regs(registers)}));
  return b.finish();
}

class ConvolutionsOf : public ::testing::TestWithParam<std::pair<int, bool>> {};

TEST_P(ConvolutionsOf, RandomShapes) {
  const auto [spatial, transposed] = GetParam();
  const char* const chains[] = {"", "relu", "add", "add|relu", "hardswish|add|clamp(none, 0.5)", "mul|silu", "prelu"};
  int taken = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    Random random(1000 * spatial + seed);
    const ContractionSpec spec = random_spec(random, spatial, transposed);
    const auto packed = make_packed(spec);
    Sizes sizes = {random.one_of({1, 1, 2, 3}), transposed ? spec.weight.size(0) : spec.weight.size(1) * spec.groups};
    for (int d = 0; d < spatial; ++d) sizes.push_back(spatial == 3 ? random.in(2, 9) : spatial == 2 ? random.in(3, 17) : random.in(5, 90));
    const at::Tensor x = at::randn(sizes);
    const std::string chain = chains[random.in(0, 6)];
    at::Tensor bare;
    try {
      bare = by_aten(x, spec, "", {}, at::kFloat);
    } catch (const c10::Error&) {
      continue;
    }
    if (bare.numel() == 0) continue;
    std::vector<at::Tensor> operands;
    const std::int64_t channels = bare.size(1);
    for (const PostOp& step : parse_post_ops(chain)) {
      if (!step.operands) continue;
      Sizes per_channel(spatial + 1, 1), per_pixel = bare.sizes().vec(), one_image = bare.sizes().vec();
      per_channel[0] = channels;
      per_pixel[1] = one_image[0] = 1;
      const std::vector<Sizes> shapes = {bare.sizes().vec(), per_channel, per_pixel, one_image, {1}};
      operands.push_back(step.kind == PostOpKind::prelu ? at::rand({channels}) : at::randn(shapes[random.in(0, 4)]));
    }
    const std::string what = "seed " + std::to_string(seed) + " " + packed->describe() + " x " + c10::str(x.sizes()) + " " + chain;
    const auto region = region_of(packed, chain, operands.size());
    const at::Tensor exact = by_aten(x, spec, chain, operands, at::kDouble), single = by_aten(x, spec, chain, operands, at::kFloat);
    for (const bool last : {false, true}) {
      std::vector<at::Tensor> inputs = {last ? channels_innermost(x) : x};
      for (const at::Tensor& operand : operands)
        inputs.push_back(operand.dim() > 2 && random.in(0, 1) ? channels_innermost(operand) : operand);
      const at::Tensor wanted = region->interpret(inputs)[0], y = region->run(inputs)[0];
      if (region->explain(inputs).empty()) {
        // Only what the loop nests do not take, or do not pay for.
        EXPECT_TRUE(!kernels::PackedWeights::takes(spec) || !operands.empty() || spec.out_channels() < 8) << what;
        continue;
      }
      ++taken;
      ASSERT_EQ(y.sizes(), exact.sizes()) << what;
      EXPECT_EQ(y.strides(), wanted.strides()) << what;
      const double ulps = kernels::isa().lanes > 4 ? 8 : 24;
      EXPECT_LE(error_of(y, exact), 4 * error_of(single, exact) + ulps * 1.1920929e-7 * exact.abs().max().item<double>()) << what;
      const int threads = at::get_num_threads();
      for (int other : {1, 2, 3}) {
        at::set_num_threads(other);
        EXPECT_TRUE(at::equal(y, region->run(inputs)[0])) << what << " with " << other << " threads";
      }
      at::set_num_threads(threads);
    }
  }
  EXPECT_GT(taken, 30);
}

INSTANTIATE_TEST_SUITE_P(All, ConvolutionsOf,
                         ::testing::Values(std::pair{1, false}, std::pair{2, false}, std::pair{3, false}, std::pair{1, true},
                                           std::pair{2, true}, std::pair{3, true}));

TEST(Convolutions, UnpackGivesTheDenseWeightBack) {
  for (unsigned seed = 0; seed < 90; ++seed) {
    Random random(seed);
    const ContractionSpec spec = random_spec(random, 1 + seed % 3, seed % 2);
    if (kernels::PackedWeights::takes(spec)) EXPECT_TRUE(at::equal(kernels::PackedWeights(spec).unpack(), spec.weight)) << seed;
  }
}

// More than a megabyte of weights: panels are read once, for all rows of all phases.
TEST(Convolutions, OfWeightsThatLeaveTheCache) {
  at::manual_seed(1);
  for (const std::int64_t spatial : {1, 2, 3}) {
    ContractionSpec spec;
    spec.kind = Contraction::conv_transpose;
    Sizes shape = {136, 130}, sizes = {2, 136};
    for (std::int64_t d = 0; d < spatial; ++d) {
      shape.push_back(spatial == 1 ? 32 : spatial == 2 ? 5 : 3);
      sizes.push_back(spatial == 1 ? 70 : 6);
    }
    spec.weight = at::randn(shape) / std::sqrt(136.0);
    spec.stride.assign(spatial, 2);
    spec.padding.assign(spatial, 1);
    spec.dilation.assign(spatial, 1);
    spec.output_padding.assign(spatial, 1);
    const auto packed = make_packed(spec);
    ASSERT_GT(kernels::PackedWeights(spec).weight_bytes(), 1 << 20);
    const at::Tensor x = at::randn(sizes), exact = by_aten(x, spec, "", {}, at::kDouble);
    const at::Tensor operand = at::randn(exact.sizes());
    const at::Tensor y = region_of(packed, "add", 1)->run({x, operand})[0];
    EXPECT_LE(error_of(y, exact + operand), 1e-5 * exact.abs().max().item<double>());
  }
}

// No tap reaches two lines of three and every second column: they are the bias alone.
TEST(Convolutions, TransposedWithResultsThatNoTapReaches) {
  at::manual_seed(2);
  ContractionSpec spec;
  spec.kind = Contraction::conv_transpose;
  spec.weight = at::randn({16, 16, 1, 2});
  spec.bias = at::randn({16});
  spec.stride = {3, 4};
  spec.padding = {0, 0};
  spec.dilation = {1, 2};
  spec.output_padding = {2, 3};
  const auto packed = make_packed(spec);
  const at::Tensor x = at::rand({1, 16, 5, 6}), y = region_of(packed, "relu", 0)->run({x})[0];
  const at::Tensor wanted = by_aten(x, spec, "relu", {}, at::kFloat);
  EXPECT_TRUE(at::allclose(y, wanted, 1e-5, 1e-5));
  const at::Tensor bias = spec.bias.relu().view({1, 16, 1, 1});
  EXPECT_TRUE(at::equal(y.slice(2, 1, 15, 3), bias.expand({1, 16, 5, 26})));
  EXPECT_TRUE(at::equal(y.slice(3, 1, 26, 2), bias.expand({1, 16, 15, 13})));
}

// Where a kernel meets one frame at a time frames are images, but operands are those of the volumes.
TEST(Convolutions, FramesThatAreImages) {
  at::manual_seed(4);
  for (const std::int64_t groups : {1, 2, 32})
    for (const bool transposed : {false, true})
      for (const std::int64_t images : {1, 2})
        for (const std::int64_t stride : {1, 2}) {
          ContractionSpec spec;
          spec.kind = transposed ? Contraction::conv_transpose : Contraction::conv;
          spec.weight = at::randn({32, 32 / groups, 1, 3, 3}) / 8;
          spec.groups = groups;
          spec.stride = {1, stride, stride};
          spec.padding = {0, 1, 1};
          spec.dilation = {1, 1, 1};
          spec.output_padding = {0, 0, 0};
          const auto packed = make_packed(spec);
          const at::Tensor x = at::randn({images, 32, 4, 9, 10}), bare = by_aten(x, spec, "", {}, at::kDouble);
          for (const Sizes& sizes : {bare.sizes().vec(), Sizes{1, 32, 1, 1, 1}, Sizes{images, 1, 4, 1, 1}}) {
            const at::Tensor operand = at::randn(sizes);
            const auto region = region_of(packed, "add|relu", 1);
            EXPECT_LE(error_of(region->run({x, operand})[0], (bare + operand).relu()), 1e-5) << packed->describe() << sizes;
          }
        }
}

TEST(Convolutions, NumbersThatAreNotFiniteReachWhatReadsThem) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const std::int64_t spatial : {1, 2, 3})
    for (const bool transposed : {false, true})
      for (const float value : {std::numeric_limits<float>::quiet_NaN(), infinity}) {
        ContractionSpec spec;
        spec.kind = transposed ? Contraction::conv_transpose : Contraction::conv;
        Sizes shape = {32, 32}, sizes = {2, 32};
        shape.resize(2 + spatial, 3);
        sizes.resize(2 + spatial, 7);
        spec.weight = at::rand(shape);
        spec.stride.assign(spatial, 2);
        spec.padding.assign(spatial, 1);
        spec.dilation.assign(spatial, 1);
        spec.output_padding.assign(spatial, 0);
        const auto packed = make_packed(spec);
        at::Tensor x = at::rand(sizes);
        x[1][5][3] = value;
        const at::Tensor y = region_of(packed, "", 0)->run({x})[0], wanted = by_aten(x, spec, "", {}, at::kFloat);
        EXPECT_TRUE(at::equal(y.isnan(), wanted.isnan())) << packed->describe() << value;
        EXPECT_TRUE(at::equal(y.isinf(), wanted.isinf())) << packed->describe() << value;
      }
}

TEST(Convolutions, PaddingByName) {
  at::manual_seed(3);
  for (const std::int64_t spatial : {1, 3})
    for (const char* const mode : {"same", "valid"})
      for (const std::int64_t channels : {3, 16}) {
        ContractionSpec spec;
        Sizes shape = {24, channels}, sizes = {2, channels};
        for (std::int64_t d = 0; d < spatial; ++d) {
          shape.push_back(4 - d);
          sizes.push_back(9 + d);
        }
        spec.weight = at::randn(shape) / 8;
        spec.stride.assign(spatial, 1);
        spec.dilation.assign(spatial, 1);
        spec.padding_mode = mode;
        const auto packed = make_packed(spec);
        const at::Tensor x = at::randn(sizes);
        const auto region = region_of(packed, "relu", 0);
        const at::Tensor y = region->run({x})[0], wanted = region->interpret({x})[0];
        EXPECT_FALSE(region->explain({x}).empty());
        ASSERT_EQ(y.sizes(), wanted.sizes());
        EXPECT_LT((y - wanted).abs().max().item<float>(), 1e-5) << packed->describe();
      }
}

TEST(Convolutions, EmptyBatchesAndWhatAtenRefuses) {
  ContractionSpec spec;
  spec.kind = Contraction::conv_transpose;
  spec.weight = at::randn({16, 24, 2, 2});
  spec.stride = spec.dilation = {1, 2};
  spec.padding = {0, 0};
  spec.output_padding = {0, 1};
  const auto region = region_of(make_packed(spec), "relu", 0);
  EXPECT_EQ(region->run({at::randn({0, 16, 5, 5})})[0].sizes(), region->interpret({at::randn({0, 16, 5, 5})})[0].sizes());
  spec.output_padding = {0, 2};
  EXPECT_FALSE(kernels::PackedWeights::takes(spec));
  EXPECT_ANY_THROW(region_of(make_packed(spec), "relu", 0)->run({at::randn({1, 16, 5, 5})}));
  spec.stride = {1 << 20, 1 << 20};
  EXPECT_FALSE(kernels::PackedWeights::takes(spec)) << "phases without end";
}

}  // namespace
}  // namespace fusible
