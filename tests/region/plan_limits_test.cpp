// What a plan, or the inference of its shapes, must leave to the operators: other dtypes, empty tensors, folds that do not hold, operands
// that enlarge a result, views of memory that is given away, look-alikes of a shuffle or of a concatenation.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ops/region/region.h"
#include "ops/region/shapes.h"

namespace fusible {
namespace {

using Arg = Argument;
using Ints = std::vector<std::int64_t>;

struct Writer : Region::Builder {
  std::int64_t linear(std::int64_t x, const ContractionSpec& spec, const char* chain = "", Ints operands = {}) {
    return call({"fusible::linear", ""}, {Arg::reg(x), Arg::constant(make_packed(spec)), Arg::constant(std::string(chain)), Arg::regs(std::move(operands))});
  }
  std::int64_t conv(std::int64_t x, std::int64_t in, std::int64_t out) {
    ContractionSpec spec;
    spec.weight = at::randn({out, in, 1, 1});
    spec.stride = spec.dilation = {1, 1};
    spec.padding = {0, 0};
    return call({"fusible::conv", ""}, {Arg::reg(x), Arg::constant(make_packed(spec)), Arg::constant(std::string("relu")), Arg::regs({})});
  }
  std::int64_t add(std::int64_t a, std::int64_t b) { return call({"aten::add", "Tensor"}, {Arg::reg(a), Arg::reg(b), Arg::constant(std::int64_t{1})}); }
  std::int64_t mul(std::int64_t a, std::int64_t b) { return call({"aten::mul", "Tensor"}, {Arg::reg(a), Arg::reg(b)}); }
  std::int64_t relu(std::int64_t x) { return call({"aten::relu", ""}, {Arg::reg(x)}); }
  std::int64_t cat(Ints parts) { return call({"aten::cat", ""}, {Arg::regs(std::move(parts)), Arg::constant(std::int64_t{1})}); }
};

ContractionSpec rows(std::int64_t in, std::int64_t out) {
  ContractionSpec spec;
  spec.kind = Contraction::linear;
  spec.weight = at::randn({out, in});
  return spec;
}

// y + operand, folded: an operand of a higher rank than the input's enlarges the result, so the fold does not hold.
ContractionSpec rows_and_sum(std::int64_t in, std::int64_t out, const at::Tensor& operand) {
  ContractionSpec spec = rows(in, out);
  spec.bias = operand.flatten().clone();
  spec.folded_ops = "add";
  spec.folded_operands = {operand};
  spec.fold_scale = at::ones({out}, at::kDouble);
  spec.fold_shift = operand.flatten().to(at::kDouble);
  return spec;
}

void expect_as_written(const Region& region, const std::vector<at::Tensor>& inputs) {
  const auto wanted = region.interpret(inputs), found = region.run(inputs);
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    ASSERT_EQ(found[i].sizes(), wanted[i].sizes()) << region.print();
    EXPECT_EQ(found[i].strides(), wanted[i].strides()) << region.print();
    ASSERT_EQ(found[i].dtype(), wanted[i].dtype()) << region.print();
    EXPECT_TRUE(at::allclose(found[i], wanted[i], 1e-4, 1e-5)) << region.print();
  }
}

TEST(PlanLimits, AnotherDtypeOfTheSameSizesHasNoPlanOfFloats) {
  Writer w;
  w.output(w.relu(w.relu(w.input())));
  const auto region = w.finish();
  for (const auto dtype : {at::kFloat, at::kDouble, at::kLong, at::kFloat}) expect_as_written(*region, {at::randn({4, 5}).mul(9).to(dtype)});
}

TEST(PlanLimits, NegativeViewsAreNotReadAsTheirMemory) {
  Writer w;
  w.output(w.relu(w.relu(w.input())));
  const auto region = w.finish();
  const at::Tensor x = at::randn({4, 5});
  for (const auto& input : {x, at::_neg_view(x), x}) expect_as_written(*region, {input});
}

TEST(PlanLimits, ProductsOfIntegersBesideFloats) {
  Writer w;
  const std::int64_t x = w.input(), n = w.input(), counts = w.mul(n, n);
  w.output(w.relu(w.conv(x, 4, 6)));
  w.output(w.add(counts, counts));
  w.output(w.add(counts, x));
  const auto region = w.finish();
  expect_as_written(*region, {at::randn({2, 4, 5, 3}), at::arange(120).view({2, 4, 5, 3})});
}

TEST(PlanLimits, EmptyTensors) {
  Writer w;
  const std::int64_t y = w.relu(w.input());
  w.output(w.call({"aten::layer_norm", ""}, {Arg::reg(y), Arg::constant(Ints{0}), Arg::constant({}), Arg::constant({}), Arg::constant(1e-5), Arg::constant(true)}));
  expect_as_written(*w.finish(), {at::empty({3, 0})});
}

TEST(PlanLimits, ShapesAreNotInferredWhereTheFoldDoesNotHold) {
  Writer w;
  w.output(w.linear(w.linear(w.input(), rows_and_sum(4, 5, at::randn({1, 5}))), rows(5, 3)));
  const auto region = w.finish();
  std::vector<at::Tensor> seen;
  EXPECT_TRUE(infer_shapes(*region, {at::randn({2, 4})}, seen));
  EXPECT_FALSE(infer_shapes(*region, {at::randn({4})}, seen));
  for (const Ints& sizes : {Ints{2, 4}, Ints{4}}) expect_as_written(*region, {at::randn(sizes)});
}

TEST(PlanLimits, ShapesAreNotInferredWhereAnOperandEnlargesTheResult) {
  Writer w;
  const std::int64_t x = w.input(), z = w.input();
  w.output(w.linear(w.linear(x, rows(4, 5), "add", {z}), rows(5, 3)));
  const auto region = w.finish();
  std::vector<at::Tensor> seen;
  EXPECT_TRUE(infer_shapes(*region, {at::randn({1, 4}), at::randn({5})}, seen));
  EXPECT_FALSE(infer_shapes(*region, {at::randn({1, 4}), at::randn({3, 5})}, seen));
  for (const Ints& sizes : {Ints{5}, Ints{3, 5}}) expect_as_written(*region, {at::randn({1, 4}), at::randn(sizes)});
}

TEST(PlanLimits, ShapesAreNotInferredFromIntegers) {
  Writer w;
  const std::int64_t x = w.input(), n = w.input();
  w.output(w.linear(w.add(w.linear(x, rows(4, 5)), w.mul(n, n)), rows(5, 3)));
  expect_as_written(*w.finish(), {at::randn({2, 4}), at::arange(10).view({2, 5})});
}

// A constant of float64 has a result of float64, whose sizes alone are not enough.
TEST(PlanLimits, ShapesAreNotInferredThroughOtherDtypes) {
  Writer w;
  const std::int64_t x = w.linear(w.input(), rows(4, 5));
  const std::int64_t wide = w.call({"aten::maximum", ""}, {Arg::reg(x), Arg::constant(at::randn({5}, at::kDouble))});
  const std::int64_t sum = w.call({"aten::sum", "dim_IntList"}, {Arg::reg(wide), Arg::constant(Ints{1}), Arg::constant(true), Arg::constant(std::int64_t{6})});
  w.output(w.linear(w.add(x, sum), rows(5, 3)));
  const auto region = w.finish();
  std::vector<at::Tensor> seen;
  EXPECT_FALSE(infer_shapes(*region, {at::randn({2, 4})}, seen));
  expect_as_written(*region, {at::randn({2, 4})});
}

// Where the list raises, the plan that would do without the operator is none, and every call raises as the first one.
void expect_raises(const Region& region, const std::vector<at::Tensor>& inputs) {
  EXPECT_THROW(region.interpret(inputs), c10::Error) << region.print();
  for (int call = 0; call < 2; ++call) EXPECT_THROW(region.run(inputs), c10::Error) << region.print();
}

TEST(PlanLimits, AnAffineOfAnotherSizeThanTheRowRaises) {
  for (const std::int64_t size : {1, 8, 17})
    for (const bool inferred : {false, true})
      for (const size_t at : {2, 3}) {
        Writer w;
        std::vector<Arg> arguments{Arg::reg(w.linear(w.input(), rows(16, 16))), Arg::constant(Ints{16}), Arg::constant({}), Arg::constant({}), Arg::constant(1e-5), Arg::constant(true)};
        arguments[at] = Arg::constant(at::randn({size}));
        const std::int64_t y = w.call({"aten::layer_norm", ""}, arguments);
        w.output(inferred ? w.linear(y, rows(16, 4)) : w.relu(y));
        expect_raises(*w.finish(), {at::randn({4, 16})});
      }
}

TEST(PlanLimits, AffinesWithoutRowsOrOfAnotherRankRaise) {
  for (const at::Tensor& weight : {at::randn({4, 16}), at::randn({16, 1}), at::randn({})}) {
    Writer w;
    const std::int64_t y = w.linear(w.input(), rows(16, 16));
    w.output(w.linear(w.call({"aten::layer_norm", ""}, {Arg::reg(y), Arg::constant(Ints{16}), Arg::constant(weight), Arg::constant({}), Arg::constant(1e-5), Arg::constant(true)}), rows(16, 4)));
    expect_raises(*w.finish(), {at::randn({4, 16})});
  }
}

TEST(PlanLimits, StatisticsOfAnotherSizeThanTheChannelsRaise) {
  for (const size_t at : {1, 2, 3, 4}) {
    Writer w;
    std::vector<Arg> arguments{Arg::reg(w.linear(w.input(), rows(16, 16)))};
    for (size_t i = 1; i < 5; ++i) arguments.push_back(Arg::constant(at::rand({i == at ? 8 : 16}) + 0.5));
    for (const Arg& rest : {Arg::constant(false), Arg::constant(0.1), Arg::constant(1e-5), Arg::constant(false)}) arguments.push_back(rest);
    w.output(w.linear(w.call({"aten::batch_norm", ""}, arguments), rows(16, 4)));
    expect_raises(*w.finish(), {at::randn({4, 16})});
  }
}

TEST(PlanLimits, ArgumentsThatAnOperatorRefusesRaise) {
  const std::vector<std::pair<c10::OperatorName, std::vector<Arg>>> calls = {
      {{"aten::clamp", ""}, {Arg::constant({}), Arg::constant({})}},
      {{"aten::gelu", ""}, {Arg::constant(std::string("foo"))}},
      {{"aten::add", "Tensor"}, {Arg::reg(1), Arg::constant(true)}}};
  for (const auto& [op, rest] : calls) {
    Writer w;
    w.input();
    std::vector<Arg> arguments{Arg::reg(w.linear(0, rows(16, 16)))};
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    w.output(w.linear(w.call(op, arguments), rows(16, 4)));
    expect_raises(*w.finish(), {at::randn({4, 16})});
  }
}

// Whether there is such a view depends on strides, which nobody infers: those of the images and of all that was made of them.
TEST(PlanLimits, AViewOfWhatHasNoSuchViewRaises) {
  for (const bool turned : {false, true}) {
    Writer w;
    std::int64_t y = w.relu(w.conv(w.input(), 16, 16));
    if (turned) y = w.call({"aten::permute", ""}, {Arg::reg(y), Arg::constant(Ints{0, 2, 3, 1})});
    w.output(w.linear(w.call({"aten::view", ""}, {Arg::reg(y), Arg::constant(Ints{-1, 256})}), rows(256, 4)));
    const auto region = w.finish();
    const at::Tensor image = at::randn({4, 16, 4, 4}), last = image.contiguous(at::MemoryFormat::ChannelsLast);
    expect_raises(*region, {turned ? image : last});
    expect_as_written(*region, {turned ? last : image});
  }
}

TEST(PlanLimits, AViewThatAnyStridesHaveIsInferred) {
  Writer w;
  const std::int64_t y = w.conv(w.input(), 16, 16), pooled = w.call({"aten::adaptive_avg_pool2d", ""}, {Arg::reg(y), Arg::constant(Ints{1, 1})});
  w.output(w.linear(w.call({"aten::view", ""}, {Arg::reg(pooled), Arg::constant(Ints{-1, 16})}), rows(16, 4)));
  const auto region = w.finish();
  for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
    const at::Tensor image = at::randn({4, 16, 4, 4}).contiguous(format);
    std::vector<at::Tensor> seen;
    EXPECT_TRUE(infer_shapes(*region, {image}, seen));
    expect_as_written(*region, {image});
  }
}

TEST(PlanLimits, AModeSeesTheOperators) {
  Writer w;
  w.output(w.linear(w.linear(w.input(), rows(16, 16)), rows(16, 4)));
  const auto region = w.finish();
  const at::Tensor x = at::randn({4, 16});
  {
    const c10::impl::IncludeDispatchKeyGuard mode(c10::DispatchKey::Functionalize);
    EXPECT_TRUE(region->explain({x}).empty());
  }
  EXPECT_EQ(region->explain({x}).size(), 2);
  expect_as_written(*region, {x});
}

// t is a view of y, which ATen made and the arena does not know; y's place is free for what is made after its last reader.
TEST(PlanLimits, AViewByAtenOutlivesThePlaceThatItShows) {
  Writer w;
  const std::int64_t y = w.conv(w.input(), 12, 12);
  const std::int64_t turned = w.call({"aten::swapaxes", ""}, {Arg::reg(y), Arg::constant(std::int64_t{2}), Arg::constant(std::int64_t{3})});
  std::int64_t later = y;
  for (int i = 0; i < 4; ++i) later = w.conv(later, 12, 12);
  w.output(w.conv(w.add(later, turned), 12, 5));
  expect_as_written(*w.finish(), {at::randn({2, 12, 9, 9})});
}

TEST(PlanLimits, OperandsOfAnotherRankAreNoImages) {
  for (const Ints& sizes : {Ints{12, 7, 5}, Ints{1, 7, 5}, Ints{12, 1, 1}, Ints{12, 7, 1}, Ints{1, 1, 5}, Ints{7, 5}, Ints{5}}) {
    Writer w;
    const std::int64_t x = w.input(), z = w.input(), y = w.conv(x, 12, 12), other = w.relu(z);
    w.output(w.conv(w.mul(w.relu(w.add(y, other)), other), 12, 4));
    expect_as_written(*w.finish(), {at::randn({2, 12, 7, 5}), at::randn(sizes)});
  }
}

// view_as reads two registers, so the plan cannot tell that its result is the first one's memory.
TEST(PlanLimits, AViewOfTwoRegistersOutlivesThePlaceThatItShows) {
  Writer w;
  const std::int64_t x = w.input(), like = w.input(), y = w.conv(x, 12, 12);
  const auto flat = [&](std::int64_t image) { return w.call({"aten::view_as", ""}, {Arg::reg(image), Arg::reg(like)}); };
  const std::int64_t seen = flat(y);
  std::int64_t later = y;
  for (int i = 0; i < 4; ++i) later = w.conv(later, 12, 12);
  w.output(w.relu(w.add(flat(later), seen)));
  expect_as_written(*w.finish(), {at::randn({2, 12, 9, 9}), at::randn({2, 12, 81})});
}

// The first concatenation's parts have the right places, each in another of the later two.
TEST(PlanLimits, PartsOfDifferentWholesAreNoWhole) {
  Writer w;
  const std::int64_t x = w.input();
  const std::int64_t a = w.conv(x, 12, 8), b = w.conv(x, 12, 8), c = w.conv(x, 12, 8), d = w.conv(x, 12, 8);
  w.output(w.conv(w.cat({a, d}), 16, 6));
  w.output(w.conv(w.cat({c, d}), 16, 6));
  w.output(w.conv(w.cat({a, b}), 16, 6));
  expect_as_written(*w.finish(), {at::randn({2, 12, 5, 7})});
}

// The height and the width change places with the channels of a group, and the sizes are the same again.
TEST(PlanLimits, AShuffleOfOtherDimensionsIsNone) {
  Writer w;
  const std::int64_t y = w.conv(w.input(), 12, 12);
  const std::int64_t split = w.call({"aten::reshape", ""}, {Arg::reg(y), Arg::constant(Ints{2, 3, 7, 4, 5})});
  const std::int64_t turned = w.call({"aten::transpose", "int"}, {Arg::reg(split), Arg::constant(std::int64_t{1}), Arg::constant(std::int64_t{2})});
  w.output(w.conv(w.call({"aten::reshape", ""}, {Arg::reg(turned), Arg::constant(Ints{2, 12, 7, 5})}), 12, 8));
  expect_as_written(*w.finish(), {at::randn({2, 12, 7, 5})});
}

TEST(PlanLimits, OperatorsThatARegionDoesNotTakeAreNotLoaded) {
  for (const char* line : {"%1 = aten::erfinv %0", "%1 = aten::batch_norm %0 none none none none true 0.1 1e-05 false", "%1 = aten::dropout %0 0.5 true"})
    EXPECT_THROW(Region::load({Region::kVersion, 1, {line}, {1}, {}, {}}), c10::Error) << line;
  EXPECT_NO_THROW(Region::load({Region::kVersion, 1, {"%1 = aten::erf %0"}, {1}, {}, {}}));
}

}  // namespace
}  // namespace fusible
