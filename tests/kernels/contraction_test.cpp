// Loop nests against ATen over random shapes, and the properties that the operators rely on: same bits for any number of threads, NaN kept,
// packed weights that give the dense ones back.

#include "ops/kernels/chain.h"
#include "tests/kernels/contractions.h"

namespace fusible {
namespace {

TEST(Contraction, ConvolutionOfRandomShapes) { expect_random_convolutions(random_conv, 75); }

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

// Numbers of one sign: each addition rounds by as much as the sum has grown. 70 results: the last panel is cut.
TEST(Contraction, LongSumsRoundAsShortOnesDo) {
  at::manual_seed(6);
  ContractionSpec spec;
  spec.kind = Contraction::linear;
  spec.weight = at::rand({70, 20000});
  for (const std::int64_t rows : {1, 3, 20}) expect_short_rounding(at::rand({rows, 20000}), spec);
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

TEST(Contraction, UnpackGivesTheDenseWeightBack) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    Random random(seed);
    const ContractionSpec spec = random_conv(random);
    if (kernels::PackedWeights::takes(spec)) EXPECT_TRUE(at::equal(kernels::PackedWeights(spec).unpack(), spec.weight)) << seed;
  }
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

// ATen's im2col lays out every tap of every result; a padded copy may lay out what lies between them where taps overlap or meet only.
TEST(Contraction, APaddedCopyIsNotLargerThanTheTapsOfItsResults) {
  for (unsigned seed = 0; seed < 100; ++seed) {
    Random random(seed);
    ContractionSpec spec;
    spec.weight = at::randn({8, random.in(2, 7), random.one_of({1, 2, 3, 7}), random.one_of({2, 3, 7})});
    spec.stride = {random.one_of({1, 2, 3, 500}), random.one_of({1, 2, 3, 500})};
    spec.padding = {random.one_of({0, 1, 3, 500}), random.one_of({0, 1, 3, 500})};
    spec.dilation = {random.one_of({1, 2, 100}), 1};
    const at::Tensor x = at::randn({2, spec.weight.size(1), random.in(8, 30), random.in(8, 30)}).contiguous(at::MemoryFormat::ChannelsLast);
    const auto packed = make_packed(spec);
    const auto& weights = kernels::packed_weights(*packed);
    kernels::Pixels pixels;
    pixels.images = 2;
    pixels.height = x.size(2);
    pixels.width = x.size(3);
    pixels.pixel_stride = x.size(1);
    const std::int64_t results = weights.out_pixels(pixels).rows() * pixels.images;
    if (results == 0) continue;
    // 4: a last result in each dimension may leave most of a stride behind it.
    EXPECT_LE(weights.scratch_floats(pixels), 4 * results * spec.weight[0].numel() + 4 * x.numel()) << packed->describe() << x.sizes();
    if (results > 20000) continue;
    at::Tensor y;
    ASSERT_TRUE(try_panels(x, packed->spec(), packed.get(), {}, {}, y));
    expect_close(y, x, spec, {}, {}, packed->describe());
  }
}

}  // namespace
}  // namespace fusible
