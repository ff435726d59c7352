// Networks over sequences and volumes: what stands between their convolutions runs where channels lie innermost, and the strides that leave
// are those of the operators one by one.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ops/region/borders.h"
#include "ops/region/region.h"

namespace fusible {
namespace {

using Arg = Argument;
using Ints = std::vector<std::int64_t>;

struct Network : Region::Builder {
  std::int64_t conv(std::int64_t x, std::int64_t in, std::int64_t out, Ints kernel, std::int64_t stride, const char* chain,
                    Ints operands = {}, bool transposed = false) {
    ContractionSpec spec;
    spec.kind = transposed ? Contraction::conv_transpose : Contraction::conv;
    Ints shape = transposed ? Ints{in, out} : Ints{out, in};
    for (const std::int64_t k : kernel) spec.padding.push_back(transposed ? (k - stride) / 2 : k / 2);
    shape.insert(shape.end(), kernel.begin(), kernel.end());
    spec.weight = at::randn(shape) / std::sqrt(static_cast<double>(c10::multiply_integers(kernel) * in));
    spec.bias = at::randn({out});
    spec.stride.assign(kernel.size(), stride);
    spec.dilation.assign(kernel.size(), 1);
    return call({transposed ? "fusible::conv_transpose" : "fusible::conv", ""},
                {Arg::reg(x), Arg::constant(make_packed(spec)), Arg::constant(std::string(chain)), Arg::regs(std::move(operands))});
  }
  std::int64_t max_pool(std::int64_t x, const char* op, size_t spatial) {
    return call({op, ""}, {Arg::reg(x), Arg::constant(Ints(spatial, 3)), Arg::constant(Ints(spatial, 2)), Arg::constant(Ints(spatial, 1)),
                           Arg::constant(Ints(spatial, 1)), Arg::constant(false)});
  }
  std::int64_t avg_pool(std::int64_t x, const char* op, size_t spatial, bool counts_padding) {
    std::vector<Arg> arguments = {Arg::reg(x), Arg::constant(Ints(spatial, 3)), Arg::constant(Ints(spatial, 2)),
                                  Arg::constant(Ints(spatial, 1)), Arg::constant(false), Arg::constant(counts_padding)};
    if (spatial > 1) arguments.push_back(Arg::constant({}));
    return call({op, ""}, std::move(arguments));
  }
  std::int64_t cat(Ints parts, std::int64_t dim) { return call({"aten::cat", ""}, {Arg::regs(std::move(parts)), Arg::constant(dim)}); }
  std::int64_t transpose(std::int64_t x) {
    return call({"aten::transpose", "int"}, {Arg::reg(x), Arg::constant(std::int64_t{1}), Arg::constant(std::int64_t{2})});
  }
};

// `by_aten`: how many instructions may not run by loop nests or as the same memory.
void expect_as_written(const Region& region, const std::vector<at::Tensor>& inputs, std::int64_t by_aten) {
  const auto wanted = region.interpret(inputs), found = region.run(inputs);
  const auto steps = region.explain(inputs);
  ASSERT_FALSE(steps.empty()) << region.print();
  EXPECT_EQ(std::count(steps.begin(), steps.end(), "ATen"), by_aten) << region.print();
  for (size_t i = 0; i < wanted.size(); ++i) {
    ASSERT_EQ(found[i].sizes(), wanted[i].sizes()) << region.print();
    EXPECT_EQ(found[i].strides(), wanted[i].strides()) << region.print();
    // ATen's products differ from themselves by 5e-5 here, by where their memory begins; ours do not.
    EXPECT_TRUE(at::allclose(found[i], wanted[i], 1e-4, 2e-4)) << region.print() << (found[i] - wanted[i]).abs().max();
  }
}

at::Tensor channels_innermost(const at::Tensor& x) { return x.movedim(1, -1).contiguous().movedim(-1, 1); }

TEST(Volumes, EncoderAndDecoderWithAConcatenation) {
  at::manual_seed(1);
  Network b;
  const auto x = b.input();
  const auto stem = b.conv(x, 3, 16, {3, 5, 5}, 1, "relu");
  const auto pooled = b.max_pool(stem, "aten::max_pool3d", 3);
  const auto inner = b.conv(pooled, 16, 24, {1, 3, 3}, 1, "relu");
  const auto block = b.conv(inner, 24, 16, {3, 1, 1}, 1, "add|relu", {pooled});
  const auto up = b.conv(block, 16, 12, {2, 2, 2}, 2, "hardswish", {}, true);
  const auto both = b.cat({up, stem}, 1);
  const auto joined = b.conv(both, 28, 32, {1, 1, 1}, 1, "");
  const auto activated = b.call({"aten::silu", ""}, {Arg::reg(joined)});
  const auto average = b.avg_pool(activated, "aten::avg_pool3d", 3, true);
  const auto other = b.avg_pool(activated, "aten::avg_pool3d", 3, false);
  const auto sum = b.call({"aten::add", "Tensor"}, {Arg::reg(average), Arg::reg(other), Arg::constant(1)});
  const auto small = b.call({"aten::adaptive_avg_pool3d", ""}, {Arg::reg(sum), Arg::constant(Ints{2, 3, 2})});
  const auto mean = b.call({"aten::mean", "dim"}, {Arg::reg(sum), Arg::constant(Ints{-1, 2, 3}), Arg::constant(true), Arg::constant({})});
  const auto of_lines = b.call({"aten::mean", "dim"}, {Arg::reg(sum), Arg::constant(Ints{3, 4}), Arg::constant(true), Arg::constant({})});
  for (const auto r : {block, both, small, mean, of_lines}) b.output(r);
  const auto region = b.finish();
  for (const Ints& sizes : {Ints{1, 3, 8, 12, 10}, Ints{3, 3, 6, 8, 14}})
    for (const bool last : {false, true}) {
      const at::Tensor image = at::randn(sizes);
      expect_as_written(*region, {last ? channels_innermost(image) : image}, 1);
    }
}

TEST(Volumes, SequencesAreCutTransposedAndPooled) {
  at::manual_seed(2);
  Network b;
  const auto x = b.input();
  const auto stem = b.conv(x, 1, 32, {9}, 3, "gelu(none)");
  const auto cut =
      b.call({"aten::slice", "Tensor"}, {Arg::reg(stem), Arg::constant(2), Arg::constant(0), Arg::constant(-2), Arg::constant(1)});
  const auto inner = b.conv(cut, 32, 48, {3}, 1, "relu");
  const auto rows = b.transpose(inner);
  const auto normal = b.call({"aten::layer_norm", ""}, {Arg::reg(rows), Arg::constant(Ints{48}), Arg::constant(at::randn({48})),
                                                        Arg::constant({}), Arg::constant(1e-5), Arg::constant(true)});
  const auto again = b.transpose(normal);
  const auto wide = b.conv(again, 48, 40, {5}, 1, "add|tanh", {b.conv(cut, 32, 40, {1}, 1, "")});
  const auto up = b.conv(wide, 40, 24, {4}, 2, "leaky_relu(0.1)", {}, true);
  const auto pooled = b.max_pool(up, "aten::max_pool1d", 1);
  const auto average = b.avg_pool(pooled, "aten::avg_pool1d", 1, true);
  const auto both = b.cat({average, b.avg_pool(pooled, "aten::avg_pool1d", 1, false)}, -2);
  const auto small = b.call({"aten::adaptive_avg_pool1d", ""}, {Arg::reg(both), Arg::constant(Ints{5})});
  const auto tokens = b.cat({rows, rows}, 1);
  for (const auto r : {inner, up, small, tokens}) b.output(r);
  const auto region = b.finish();
  for (const Ints& sizes : {Ints{1, 1, 200}, Ints{3, 1, 91}}) expect_as_written(*region, {at::randn(sizes)}, 1);
}

// From any order to any order, as a copy does it.
TEST(Borders, CopyAcross) {
  for (const Ints& sizes : {Ints{2, 40, 70}, Ints{1, 7, 33}, Ints{3, 16, 1}, Ints{1, 64, 5, 129}, Ints{2, 33, 3, 5, 7}, Ints{4, 9}}) {
    const at::Tensor dense = at::randn(sizes);
    const auto orders = [&](const at::Tensor& x) {
      std::vector<at::Tensor> list = {x, x.transpose(0, -1).contiguous().transpose(0, -1), at::cat({x, x}, -1).narrow(-1, 0, sizes.back())};
      if (sizes.size() > 2) list.push_back(channels_innermost(x));
      return list;
    };
    for (const at::Tensor& from : orders(dense))
      for (const at::Tensor& to : orders(at::zeros(sizes))) {
        copy_across(to, from);
        EXPECT_TRUE(at::equal(to, dense)) << from.sizes() << from.strides() << to.strides();
      }
    const at::Tensor wide = at::zeros(sizes, at::kDouble);
    copy_across(wide, dense);
    EXPECT_TRUE(at::equal(wide, dense.to(at::kDouble)));
  }
}

}  // namespace
}  // namespace fusible
