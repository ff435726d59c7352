// Operators that plans run by loop nests of their own, with every attribute that a loop nest must heed or leave to ATen: run by a plan and one
// by one they give the same.

#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>

#include "ops/region/region.h"
#include "tests/region/pointwise.h"

namespace fusible {
namespace {

using Arg = Argument;
using Ints = std::vector<std::int64_t>;

// The operators read what a convolution made, which lies in channels_last; `gate` is an input of [2, 12, 1, 1].
struct Bench {
  Region::Builder builder;
  std::int64_t x = builder.input(), gate = builder.input();
  std::int64_t y = builder.call({"fusible::conv", ""}, {Arg::reg(x), Arg::constant(pointwise(12, 12)), Arg::constant(std::string()), Arg::regs({})});
};

void expect_as_written(const char* op, const char* overload, const std::function<std::vector<Arg>(const Bench&)>& arguments, bool planned = true) {
  Bench bench;
  bench.builder.output(bench.builder.call({op, overload}, arguments(bench)));
  const auto region = bench.builder.finish();
  const std::vector<at::Tensor> inputs = {at::randn({2, 12, 13, 11}), at::rand({2, 12, 1, 1}) + 0.5};
  for (const at::Tensor& x : {inputs[0], inputs[0].contiguous(at::MemoryFormat::ChannelsLast)}) {
    const at::Tensor wanted = region->interpret({x, inputs[1]})[0], found = region->run({x, inputs[1]})[0];
    ASSERT_EQ(found.sizes(), wanted.sizes()) << region->print();
    EXPECT_EQ(region->explain({x, inputs[1]}).size(), planned ? 2 : 0) << region->print();
    EXPECT_EQ(found.strides(), wanted.strides()) << region->print();
    EXPECT_EQ(found.dtype(), wanted.dtype()) << region->print();
    EXPECT_TRUE(at::allclose(found, wanted, 1e-4, 1e-5)) << region->print() << (found - wanted).abs().max();
  }
}

TEST(Operators, MaxPool) {
  for (const Ints& kernel : {Ints{3, 3}, Ints{3, 2}, Ints{2}})
    for (const std::int64_t dilation : {1, 2})
      for (const bool ceil : {false, true})
        expect_as_written("aten::max_pool2d", "", [&](const Bench& b) -> std::vector<Arg> {
          return {Arg::reg(b.y), Arg::constant(kernel), Arg::constant(Ints{2, 3}), Arg::constant(Ints{1, 1}), Arg::constant(Ints{dilation, dilation}),
                  Arg::constant(ceil)};
        });
}

TEST(Operators, AvgPool) {
  for (const bool ceil : {false, true})
    for (const bool counts_padding : {false, true})
      for (const c10::IValue& divisor : {c10::IValue(), c10::IValue(std::int64_t{5})})
        expect_as_written("aten::avg_pool2d", "", [&](const Bench& b) -> std::vector<Arg> {
          return {Arg::reg(b.y), Arg::constant(Ints{3, 3}), Arg::constant(Ints{2, 2}), Arg::constant(Ints{1, 1}), Arg::constant(ceil),
                  Arg::constant(counts_padding), Arg::constant(divisor)};
        });
}

TEST(Operators, AdaptivePoolWithWindowsThatOverlap) {
  for (const Ints& size : {Ints{5, 4}, Ints{1, 1}, Ints{13, 11}, Ints{16, 20}})
    expect_as_written("aten::adaptive_avg_pool2d", "", [&](const Bench& b) -> std::vector<Arg> { return {Arg::reg(b.y), Arg::constant(size)}; });
}

TEST(Operators, MeanOverAnyDimensions) {
  for (const Ints& dims : {Ints{2, 3}, Ints{-1, -2}, Ints{1, 2}, Ints{0, 3}})
    for (const bool keeps : {false, true})
      expect_as_written("aten::mean", "dim", [&](const Bench& b) -> std::vector<Arg> {
        return {Arg::reg(b.y), Arg::constant(dims), Arg::constant(keeps), Arg::constant({})};
      });
}

TEST(Operators, ConcatenationAlongAnyDimension) {
  for (const std::int64_t dim : {0, 1, 2, -1, -3})
    expect_as_written("aten::cat", "", [&](const Bench& b) -> std::vector<Arg> { return {Arg::regs({b.y, b.x, b.y}), Arg::constant(dim)}; });
}

TEST(Operators, LayerNormOverOneDimensionAndMore) {
  for (const Ints& shape : {Ints{11}, Ints{13, 11}})
    expect_as_written("aten::layer_norm", "", [&](const Bench& b) -> std::vector<Arg> {
      return {Arg::reg(b.y), Arg::constant(shape), Arg::constant(at::randn(shape)), Arg::constant({}), Arg::constant(1e-5), Arg::constant(true)};
    });
}

TEST(Operators, ArithmeticWithAlphaAndALargerRightOperand) {
  for (const char* op : {"aten::add", "aten::sub"})
    for (const c10::Scalar alpha : {c10::Scalar(1), c10::Scalar(2), c10::Scalar(-0.5)})
      for (const bool swapped : {false, true})
        expect_as_written(op, "Tensor", [&](const Bench& b) -> std::vector<Arg> {
          return {Arg::reg(swapped ? b.gate : b.y), Arg::reg(swapped ? b.y : b.gate), Arg::constant(alpha)};
        });
  for (const char* op : {"aten::mul", "aten::div"})
    for (const bool swapped : {false, true})
      expect_as_written(op, "Tensor",
                        [&](const Bench& b) -> std::vector<Arg> { return {Arg::reg(swapped ? b.gate : b.y), Arg::reg(swapped ? b.y : b.gate)}; });
}

TEST(Operators, FlattenInTheOrderOfTheDimensions) {
  expect_as_written("aten::flatten", "using_ints",
                    [](const Bench& b) -> std::vector<Arg> { return {Arg::reg(b.y), Arg::constant(std::int64_t{1}), Arg::constant(std::int64_t{-1})}; });
}

TEST(Operators, ResultsOfAnotherDtype) {
  expect_as_written("aten::mul", "Tensor", [](const Bench& b) -> std::vector<Arg> {
    return {Arg::reg(b.y), Arg::constant(at::rand({2, 12, 1, 1}, at::kDouble))};
  });
}

c10::intrusive_ptr<Region> two_convolutions() {
  Bench bench;
  bench.builder.output(bench.builder.call({"fusible::conv", ""}, {Arg::reg(bench.y), Arg::constant(pointwise(12, 7)), Arg::constant(std::string("relu")),
                                                                  Arg::regs({})}));
  return bench.builder.finish();
}

// A plan for these sizes is there already, made for floats.
TEST(Operators, APlanServesNoOtherDtypeAndNoAutocast) {
  const auto region = two_convolutions();
  const at::Tensor gate = at::rand({2, 12, 1, 1}), x = at::randn({2, 12, 13, 11});
  const at::Tensor y = region->run({x, gate})[0];
  ASSERT_FALSE(region->explain({x, gate}).empty());
  ASSERT_EQ(region->run({x, gate})[0].dtype(), at::kFloat);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const at::Tensor cast = region->run({x, gate})[0], wanted = region->interpret({x, gate})[0];
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_EQ(cast.dtype(), wanted.dtype());
  EXPECT_TRUE(at::equal(cast, wanted));
  EXPECT_ANY_THROW(region->run({x.to(at::kDouble), gate}));
  EXPECT_ANY_THROW(region->interpret({x.to(at::kDouble), gate}));
  EXPECT_TRUE(at::equal(region->run({x, gate})[0], y));
}

TEST(Operators, AnOutputThatShowsAnInputStaysAView) {
  Region::Builder b;
  const auto x = b.input();
  const auto view = b.call({"aten::flatten", "using_ints"}, {Arg::reg(x), Arg::constant(std::int64_t{1}), Arg::constant(std::int64_t{-1})});
  b.output(b.call({"aten::relu", ""}, {Arg::reg(view)}));
  b.output(view);
  const auto region = b.finish();
  const at::Tensor input = at::randn({2, 3, 4, 4});
  for (int call = 0; call < 2; ++call) EXPECT_TRUE(region->run({input})[1].is_alias_of(input));
}

TEST(Operators, EmptyImages) {
  const auto region = two_convolutions();
  const at::Tensor gate = at::rand({2, 12, 1, 1}), x = at::randn({0, 12, 13, 11});
  EXPECT_EQ(region->run({x, gate})[0].sizes(), region->interpret({x, gate})[0].sizes());
}

}  // namespace
}  // namespace fusible
