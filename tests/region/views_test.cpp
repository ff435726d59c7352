// Sizes, pieces and views inside of regions: a plan gives what the operators one by one give, for every layout and size.

#include <functional>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ops/region/region.h"

namespace fusible {
namespace {

using Arg = Argument;
using Ints = std::vector<std::int64_t>;
constexpr std::int64_t kHeld = Argument::kHeld;

c10::intrusive_ptr<PackedContraction> pointwise(std::int64_t in, std::int64_t out, std::int64_t kernel = 1) {
  ContractionSpec spec;
  spec.weight = at::randn({out, in, kernel, kernel});
  spec.stride = {1, 1};
  spec.padding = {kernel / 2, kernel / 2};
  spec.dilation = {1, 1};
  return make_packed(spec);
}

struct Writer : Region::Builder {
  std::int64_t conv(std::int64_t x, std::int64_t in, std::int64_t out, std::int64_t kernel = 1) {
    return call({"fusible::conv", ""}, {Arg::reg(x), Arg::constant(pointwise(in, out, kernel)), Arg::constant(std::string("relu")), Arg::regs({})});
  }
  std::int64_t size(std::int64_t x, std::int64_t dim) { return call({"aten::size", "int"}, {Arg::reg(x), Arg::constant(dim)}); }
  std::int64_t integer(const char* op, std::int64_t a, std::int64_t b) { return call({op, "int"}, {Arg::reg(a), Arg::constant(b)}); }
  std::int64_t view(std::int64_t x, Ints entries, Ints held) {
    return call({"aten::view", ""}, {Arg::reg(x), Arg::integers(std::move(entries), std::move(held))});
  }
  std::int64_t transpose(std::int64_t x, std::int64_t a, std::int64_t b) { return call({"aten::transpose", "int"}, {Arg::reg(x), Arg::constant(a), Arg::constant(b)}); }
  std::int64_t chunk(std::int64_t x, std::int64_t index, std::int64_t count = 2) {
    return call({"fusible::chunk", ""}, {Arg::reg(x), Arg::constant(count), Arg::constant(std::int64_t{1}), Arg::constant(index), Arg::constant(count)});
  }
  std::int64_t shuffle(std::int64_t x, std::int64_t groups) {
    const std::int64_t n = size(x, 0), c = size(x, 1), h = size(x, 2), w = size(x, 3), each = integer("aten::floordiv", c, groups);
    const std::int64_t swapped = transpose(view(x, {kHeld, groups, kHeld, kHeld, kHeld}, {n, each, h, w}), 1, 2);
    const std::int64_t dense = call({"aten::contiguous", ""}, {Arg::reg(swapped), Arg::constant(std::int64_t{0})});
    return view(dense, {kHeld, -1, kHeld, kHeld}, {n, h, w});
  }
};

void expect_as_written(const Region& region, const std::vector<at::Tensor>& inputs) {
  const auto wanted = region.interpret(inputs), found = region.run(inputs);
  EXPECT_FALSE(region.explain(inputs).empty()) << region.print();
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    ASSERT_EQ(found[i].sizes(), wanted[i].sizes()) << region.print();
    EXPECT_EQ(found[i].strides(), wanted[i].strides()) << region.print();
    EXPECT_EQ(found[i].dtype(), wanted[i].dtype()) << region.print();
    EXPECT_TRUE(at::allclose(found[i], wanted[i], 1e-4, 1e-5)) << region.print();
  }
}

at::Tensor integer(std::int64_t value) { return at::scalar_tensor(value, at::kLong); }

std::vector<at::Tensor> images() {
  std::vector<at::Tensor> list;
  for (const Ints& sizes : {Ints{2, 12, 7, 5}, Ints{1, 12, 1, 9}, Ints{3, 12, 1, 1}})
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) list.push_back(at::randn(sizes).contiguous(format));
  return list;
}

TEST(Views, ShufflesOfChannelsAndTheirHalves) {
  for (const std::int64_t groups : {2, 3, 6}) {
    Writer w;
    const std::int64_t shuffled = w.shuffle(w.conv(w.input(), 12, 12), groups);
    const std::int64_t kept = w.chunk(shuffled, 0), inner = w.conv(w.chunk(shuffled, 1), 6, 6, 3);
    w.output(w.conv(w.call({"aten::cat", ""}, {Arg::regs({kept, inner}), Arg::constant(std::int64_t{1})}), 12, 8));
    const auto region = w.finish();
    for (const at::Tensor& x : images()) expect_as_written(*region, {x});
    const auto steps = region->explain({images()[0]});
    EXPECT_EQ(std::count(steps.begin(), steps.end(), "ATen"), 0) << region->print();
  }
}

TEST(Views, PixelsOfPartOfEachLine) {
  Writer w;
  const std::int64_t part = w.call({"aten::slice", "Tensor"}, {Arg::reg(w.conv(w.input(), 12, 12)), Arg::constant(std::int64_t{3}), Arg::constant(std::int64_t{1}),
                                                               Arg::constant(std::int64_t{4}), Arg::constant(std::int64_t{1})});
  w.output(w.conv(part, 12, 8));
  const auto region = w.finish();
  for (const auto& sizes : {Ints{2, 12, 7, 5}, Ints{1, 12, 1, 9}}) expect_as_written(*region, {at::randn(sizes)});
}

// What looks like a shuffle and is none: other dimensions, groups of the height, the operators after it read what stands before it.
TEST(Views, WhatIsNoShuffle) {
  Writer w;
  const std::int64_t y = w.conv(w.input(), 12, 12), h = w.size(y, 2), n = w.size(y, 0), width = w.size(y, 3);
  const std::int64_t split = w.view(y, {kHeld, 3, 4, kHeld, kHeld}, {n, h, width});
  const std::int64_t other = w.view(w.call({"aten::contiguous", ""}, {Arg::reg(w.transpose(split, 1, 3)), Arg::constant(std::int64_t{0})}), {kHeld, 12, kHeld, kHeld}, {n, h, width});
  w.output(w.conv(other, 12, 8));
  w.output(w.call({"aten::relu", ""}, {Arg::reg(split)}));
  const auto region = w.finish();
  for (const at::Tensor& x : images()) expect_as_written(*region, {x});
}

TEST(Views, PartsOfAProductAsAttentionReadsThem) {
  ContractionSpec spec;
  spec.kind = Contraction::linear;
  spec.weight = at::randn({48, 16});
  const auto weights = make_packed(spec);
  Writer w;
  const std::int64_t x = w.input(), mask = w.input();
  const std::int64_t y = w.call({"fusible::linear", ""}, {Arg::reg(x), Arg::constant(weights), Arg::constant(std::string()), Arg::regs({})});
  const std::int64_t n = w.size(y, 0), t = w.size(y, 1);
  const std::int64_t heads = w.call({"aten::permute", ""}, {Arg::reg(w.view(y, {kHeld, kHeld, 3, 4, 4}, {n, t})), Arg::constant(Ints{2, 0, 3, 1, 4})});
  const auto part = [&](std::int64_t i) {
    return w.call({"fusible::unbind", ""}, {Arg::reg(heads), Arg::constant(std::int64_t{0}), Arg::constant(i), Arg::constant(std::int64_t{3})});
  };
  const std::int64_t q = part(0), k = part(1), v = part(2);
  const std::int64_t seen = w.call({"aten::scaled_dot_product_attention", ""}, {Arg::reg(q), Arg::reg(k), Arg::reg(v), Arg::reg(mask), Arg::constant(0.0),
                                                                               Arg::constant(false), Arg::constant({}), Arg::constant(false)});
  w.output(w.call({"aten::flatten", "using_ints"}, {Arg::reg(w.transpose(seen, 1, 2)), Arg::constant(std::int64_t{2}), Arg::constant(std::int64_t{3})}));
  w.output(t);
  const auto region = w.finish();
  for (const std::int64_t length : {5, 1, 9}) {
    const at::Tensor given = at::randn({2, length, 16});
    expect_as_written(*region, {given, at::rand({2, 1, length, length}) > -1});
    expect_as_written(*region, {given, at::rand({2, 1, length, length})});
  }
}

std::int64_t concat(Writer& w, std::vector<std::int64_t> parts) { return w.call({"aten::cat", ""}, {Arg::regs(std::move(parts)), Arg::constant(std::int64_t{1})}); }
std::int64_t relu(Writer& w, std::int64_t x) { return w.call({"aten::relu", ""}, {Arg::reg(x)}); }

// Each layer reads all before it; the shorter concatenations are the beginning of the longest.
TEST(Views, DenseBlocks) {
  Writer w;
  std::vector<std::int64_t> features{w.conv(w.input(), 12, 8)};
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    const std::int64_t all = relu(w, concat(w, features));
    features.push_back(w.conv(w.conv(all, 8 + 4 * layer, 16), 16, 4, 3));
  }
  const std::int64_t all = concat(w, features);
  w.output(w.conv(all, 20, 6));
  w.output(features[1]);
  const auto region = w.finish();
  for (const at::Tensor& x : images()) expect_as_written(*region, {x});
  const auto steps = region->explain({images()[0]});
  EXPECT_EQ(std::count(steps.begin(), steps.end(), "same memory"), 4) << region->print();  // no concatenation copies
}

// A part that is read elsewhere, stands twice, in two orders, in a concatenation of concatenations, is pooled, or comes from outside.
TEST(Views, PartsOfSeveralConcatenations) {
  Writer w;
  const std::int64_t x = w.input(), a = w.conv(x, 12, 8), b = w.conv(x, 12, 4, 3);
  const std::int64_t pooled = w.call({"aten::max_pool2d", ""}, {Arg::reg(a), Arg::constant(Ints{3, 3}), Arg::constant(Ints{1, 1}), Arg::constant(Ints{1, 1}),
                                                                Arg::constant(Ints{1, 1}), Arg::constant(false)});
  const std::int64_t ab = concat(w, {a, b}), ba = concat(w, {b, a}), twice = concat(w, {a, a, b});
  const std::int64_t sum = w.call({"aten::add", "Tensor"}, {Arg::reg(ab), Arg::reg(ba), Arg::constant(std::int64_t{1})});
  const std::int64_t all = concat(w, {ab, pooled, x, relu(w, b), twice});
  w.output(w.conv(all, 12 + 8 + 12 + 4 + 20, 6));
  w.output(w.conv(relu(w, relu(w, sum)), 12, 5));
  w.output(all);
  const auto region = w.finish();
  for (const at::Tensor& image : images()) expect_as_written(*region, {image});
}

std::int64_t slice(Writer& w, std::int64_t x, std::int64_t dim, std::int64_t begin, std::int64_t end, std::int64_t step = 1) {
  return w.call({"aten::slice", "Tensor"}, {Arg::reg(x), Arg::constant(dim), Arg::constant(begin), Arg::constant(end), Arg::constant(step)});
}

// Views that follow each other in memory as channels would, and are pixels, lines or images: even and odd columns, neighbours, other orders.
TEST(Views, ConcatenationsOfViews) {
  using Parts = std::function<Ints(Writer&, std::int64_t)>;
  const std::vector<Parts> all = {
      [](Writer& w, std::int64_t y) { return Ints{slice(w, y, 3, 0, 8, 2), slice(w, y, 3, 1, 8, 2)}; },
      [](Writer& w, std::int64_t y) { return Ints{slice(w, y, 2, 0, 6, 2), slice(w, y, 2, 1, 6, 2)}; },
      [](Writer& w, std::int64_t y) { return Ints{slice(w, y, 3, 0, 7), slice(w, y, 3, 1, 8)}; },
      [](Writer& w, std::int64_t y) { return Ints{slice(w, y, 0, 0, 1), slice(w, y, 0, 1, 2)}; },
      [](Writer& w, std::int64_t y) { return Ints{slice(w, y, 1, 0, 6, 2), slice(w, y, 1, 1, 6, 2)}; },
      [](Writer& w, std::int64_t y) { return Ints{slice(w, y, 1, 3, 6), slice(w, y, 1, 6, 9)}; },
      [](Writer& w, std::int64_t y) { return Ints{slice(w, y, 3, 0, 8, 3), slice(w, y, 3, 1, 4)}; },  // one behind the other in the first column alone
      [](Writer& w, std::int64_t y) { return Ints{w.transpose(y, 2, 3)}; },
      [](Writer& w, std::int64_t y) { return Ints{w.transpose(y, 1, 2)}; },
      [](Writer& w, std::int64_t y) { return Ints{slice(w, y, 3, 1, 8)}; }};
  for (const Parts& parts : all) {
    Writer w;
    const std::int64_t y = w.conv(w.input(), 12, 12), joined = concat(w, parts(w, y));
    w.output(relu(w, joined));
    w.output(w.call({"aten::flatten", "using_ints"}, {Arg::reg(joined), Arg::constant(std::int64_t{1}), Arg::constant(std::int64_t{3})}));
    const auto region = w.finish();
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) expect_as_written(*region, {at::randn({2, 12, 6, 8}).contiguous(format)});
  }
}

TEST(Views, AConcatenationOfAFrame) {
  ContractionSpec spec;
  spec.weight = at::randn({12, 12, 1, 1, 1});
  spec.stride = spec.dilation = {1, 1, 1};
  spec.padding = {0, 0, 0};
  Writer w;
  const std::int64_t y = w.call({"fusible::conv", ""}, {Arg::reg(w.input()), Arg::constant(make_packed(spec)), Arg::constant(std::string("relu")), Arg::regs({})});
  for (const std::int64_t dim : {2, 3, 4}) {
    const std::int64_t frame = w.call({"aten::select", "int"}, {Arg::reg(y), Arg::constant(dim), Arg::constant(std::int64_t{1})});
    w.output(w.conv(concat(w, {frame}), 12, 5));
  }
  const auto region = w.finish();
  expect_as_written(*region, {at::randn({2, 12, 2, 4, 3})});
}

// The heads of attention lie in an order of their own, which is memory of no other register; one head of one channel lies as pixels do.
TEST(Views, AConcatenationOfHeads) {
  for (const auto& [heads, width] : {std::pair{4, 4}, {1, 16}, {1, 1}}) {
    ContractionSpec spec;
    spec.kind = Contraction::linear;
    spec.weight = at::randn({heads * width, 16});
    const auto weights = make_packed(spec);
    Writer w;
    const std::int64_t x = w.input();
    const auto product = [&] {
      const std::int64_t y = w.call({"fusible::linear", ""}, {Arg::reg(x), Arg::constant(weights), Arg::constant(std::string()), Arg::regs({})});
      return w.transpose(w.view(y, {2, 20, heads, width}, {}), 1, 2);
    };
    const std::int64_t q = product(), k = product(), v = product();
    const std::int64_t seen = w.call({"aten::scaled_dot_product_attention", ""}, {Arg::reg(q), Arg::reg(k), Arg::reg(v), Arg::constant({}), Arg::constant(0.0),
                                                                                 Arg::constant(false), Arg::constant({}), Arg::constant(false)});
    w.output(relu(w, concat(w, {seen})));
    w.output(w.call({"aten::square", ""}, {Arg::reg(concat(w, {seen, seen}))}));
    const auto region = w.finish();
    expect_as_written(*region, {at::randn({2, 20, 16})});
  }
}

// What is read as a view lies where that view says: it is no part of a concatenation.
TEST(Views, PartsThatAreReadAsViews) {
  using Read = std::function<std::int64_t(Writer&, std::int64_t)>;
  const std::vector<Read> reads = {
      [](Writer& w, std::int64_t y) { return w.chunk(y, 1); },
      [](Writer& w, std::int64_t y) { return slice(w, y, 3, 0, 4); },
      [](Writer& w, std::int64_t y) { return w.transpose(y, 2, 3); },
      [](Writer& w, std::int64_t y) { return w.transpose(w.chunk(y, 1), 2, 3); },
      [](Writer& w, std::int64_t y) { return w.call({"aten::contiguous", ""}, {Arg::reg(y), Arg::constant(std::int64_t{0})}); },
      [](Writer& w, std::int64_t y) { return w.shuffle(y, 2); },
      [](Writer& w, std::int64_t y) {
        return w.transpose(w.call({"aten::flatten", "using_ints"}, {Arg::reg(y), Arg::constant(std::int64_t{2}), Arg::constant(std::int64_t{-1})}), 1, 2);
      }};
  for (const Read& read : reads)
    for (const bool nested : {false, true}) {
      Writer w;
      const std::int64_t x = w.input(), made = w.conv(x, 12, 12, 3), y = nested ? concat(w, {made, w.conv(x, 12, 6)}) : made;
      const std::int64_t seen = read(w, y);
      w.output(relu(w, seen));
      w.output(w.call({"aten::square", ""}, {Arg::reg(seen)}));
      w.output(w.conv(concat(w, {y, w.conv(x, 12, 8)}), nested ? 26 : 20, 5));
      const auto region = w.finish();
      for (const at::Tensor& image : images()) expect_as_written(*region, {image});
    }
}

TEST(Views, ElementwiseOperatorsInARow) {
  Writer w;
  const std::int64_t x = w.input(), y = w.conv(x, 12, 12);
  const auto norm = [&](std::int64_t of) {
    const auto constant = [] { return Arg::constant(at::rand({12}) + 0.5); };
    return w.call({"aten::batch_norm", ""}, {Arg::reg(of), constant(), Arg::constant({}), constant(), constant(), Arg::constant(false), Arg::constant(0.1), Arg::constant(1e-5),
                                             Arg::constant(false)});
  };
  const std::int64_t chain = relu(w, w.call({"aten::mul", "Tensor"}, {Arg::reg(norm(y)), Arg::reg(x)}));
  const std::int64_t shared = norm(chain);  // read twice: made once
  w.output(w.call({"aten::sub", "Tensor"}, {Arg::reg(relu(w, shared)), Arg::reg(shared), Arg::constant(std::int64_t{1})}));
  const auto region = w.finish();
  for (const at::Tensor& image : images()) expect_as_written(*region, {image});
}

// In channels_last, as a plan holds it, the same memory cannot be seen in the other order; a view of the arena does not leave it.
TEST(Views, OfAnotherTensorsSizes) {
  Writer w;
  const std::int64_t x = w.input(), like = w.input(), y = w.conv(x, 12, 12);
  const std::int64_t seen = w.call({"aten::view_as", ""}, {Arg::reg(y), Arg::reg(like)});
  const std::int64_t turned = w.call({"aten::swapaxes", ""}, {Arg::reg(y), Arg::constant(std::int64_t{2}), Arg::constant(std::int64_t{3})});
  w.output(relu(w, seen));
  w.output(w.conv(w.conv(turned, 12, 12), 12, 12));
  w.output(w.conv(relu(w, turned), 12, 7));
  const auto region = w.finish();
  const at::Tensor image = at::randn({2, 12, 7, 5});
  expect_as_written(*region, {image, at::empty({2, 420})});
  expect_as_written(*region, {image, at::empty({24, 7, 5})});
}

// An integer of another value is another signature; one that does not fit raises as the operator does.
TEST(Views, IntegersThatAreGiven) {
  Writer w;
  const std::int64_t x = w.input(), width = w.input();
  w.output(w.view(w.conv(x, 12, 12), {-1, kHeld}, {width}));
  const auto region = w.finish();
  const at::Tensor image = at::randn({2, 12, 6, 4});
  for (const std::int64_t value : {4, 6, 12, 4}) expect_as_written(*region, {image, integer(value)});
  EXPECT_THROW(region->run({image, integer(7)}), c10::Error);
  EXPECT_THROW(region->run({image, at::ones({2})}), c10::Error);
}

TEST(Views, PiecesThatAreNotThereRaise) {
  Writer w;
  w.output(w.chunk(w.conv(w.input(), 12, 5), 0, 4));  // 5 channels come in 3 pieces of 2, 2 and 1
  const auto region = w.finish();
  EXPECT_THROW(region->run({at::randn({1, 12, 3, 3})}), c10::Error);
}

TEST(Views, SavedAndLoaded) {
  Writer w;
  w.output(w.shuffle(w.conv(w.input(), 12, 12), 2));
  const auto region = w.finish();
  const auto again = Region::load(region->save());
  EXPECT_EQ(again->print(), region->print());
  const at::Tensor x = at::randn({1, 12, 4, 4});
  EXPECT_TRUE(at::equal(again->run({x})[0], region->run({x})[0]));
}

TEST(Views, AnIntegerIsNoTensor) {
  Writer mixed;
  const std::int64_t n = mixed.size(mixed.input(), 0);
  mixed.output(mixed.call({"aten::relu", ""}, {Arg::reg(n)}));
  EXPECT_THROW(mixed.finish(), c10::Error);
  Writer twice;
  const std::int64_t x = twice.input();
  twice.output(twice.call({"aten::view", ""}, {Arg::reg(x), Arg::integers({kHeld}, {x})}));
  EXPECT_THROW(twice.finish(), c10::Error);
}

}  // namespace
}  // namespace fusible
