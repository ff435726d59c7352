// scaled_dot_product_attention inside of a region against ATen's: shapes that leave rests in every loop, masks, infinities, NaN.

#include <limits>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "ops/region/region.h"
#include "tests/region/pointwise.h"

namespace fusible {
namespace {

using Arg = Argument;
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Call {
  at::Tensor q, k, v, mask;
  bool causal = false;
  c10::IValue scale;
  double dropout = 0;
};

struct Result {
  at::Tensor y, wanted;
  std::vector<std::string> steps;
};

Result run(const Call& call, const char* step = "loop nest") {
  Region::Builder b;
  const auto q = b.input(), k = b.input(), v = b.input();
  std::vector<at::Tensor> inputs = {call.q, call.k, call.v};
  Arg mask = Arg::constant({});
  if (call.mask.defined()) {
    mask = Arg::reg(b.input());
    inputs.push_back(call.mask);
  }
  const auto y = b.call({"aten::scaled_dot_product_attention", ""},
                        {Arg::reg(q), Arg::reg(k), Arg::reg(v), mask, Arg::constant(call.dropout), Arg::constant(call.causal), Arg::constant(call.scale), Arg::constant(false)});
  b.output(b.call({"aten::relu", ""}, {Arg::reg(y)}));
  b.output(b.call({"aten::transpose", "int"}, {Arg::reg(y), Arg::constant(1), Arg::constant(2)}));
  const auto region = b.finish();
  Result result{region->run(inputs)[1], region->interpret(inputs)[1], region->explain(inputs)};
  EXPECT_EQ(result.steps.empty() ? "" : result.steps[0], step);
  EXPECT_EQ(result.y.strides(), result.wanted.strides());
  return result;
}

void expect_close(const Result& result, double tolerance = 1e-5) {
  ASSERT_EQ(result.y.sizes(), result.wanted.sizes());
  EXPECT_TRUE(result.y.isnan().equal(result.wanted.isnan()));
  EXPECT_LE((result.y - result.wanted).nan_to_num().abs().max().item<double>(), tolerance * result.wanted.nan_to_num().abs().max().item<double>());
}

Call random_call(std::int64_t batch, std::int64_t heads, std::int64_t queries, std::int64_t keys, std::int64_t width, std::int64_t value_width) {
  return {at::randn({batch, heads, queries, width}), at::randn({batch, heads, keys, width}), at::randn({batch, heads, keys, value_width}), {}, false, {}};
}

TEST(Attention, ShapesThatLeaveRests) {
  at::manual_seed(1);
  const std::int64_t shapes[][6] = {{1, 12, 197, 197, 64, 64}, {2, 3, 1, 1, 8, 9},    {2, 2, 13, 77, 40, 24},  {1, 1, 65, 130, 5, 3},
                                    {3, 4, 7, 1, 16, 17},      {1, 2, 300, 1100, 32, 72}, {2, 1, 100, 600, 160, 160}};
  for (const auto& s : shapes) {
    SCOPED_TRACE(::testing::PrintToString(s));
    expect_close(run(random_call(s[0], s[1], s[2], s[3], s[4], s[5])));
  }
}

// As linears give them: heads side by side in a row.
TEST(Attention, RowsOfOtherStrides) {
  at::manual_seed(2);
  const at::Tensor qkv = at::randn({2, 50, 3, 4, 32}).permute({2, 0, 3, 1, 4});
  Call call{qkv[0], qkv[1], qkv[2], {}, false, {}};
  expect_close(run(call));
  call.k = at::randn({2, 4, 32, 50}).transpose(2, 3);  // no dense rows
  expect_close(run(call));
  expect_close(run({qkv[0].select(1, 0), qkv[1].select(1, 1), qkv[2].select(1, 2), {}, false, {}}));  // one head, three dimensions
}

TEST(Attention, Scales) {
  at::manual_seed(3);
  Call call = random_call(1, 2, 20, 30, 16, 16);
  for (double scale : {0.5, 0.0, -1.0}) {
    call.scale = scale;
    expect_close(run(call));
  }
}

// e^score alone would be infinite; the greatest stands anywhere in its row.
TEST(Attention, LargeScores) {
  at::manual_seed(9);
  for (std::int64_t keys : {17, 30, 300}) {
    Call call = random_call(1, 2, 60, keys, 16, 16);
    call.scale = 100.0;
    expect_close(run(call), 1e-3);
  }
}

TEST(Attention, MasksOfEveryShape) {
  at::manual_seed(4);
  Call call = random_call(2, 3, 20, 30, 16, 16);
  for (const std::vector<std::int64_t>& shape : std::vector<std::vector<std::int64_t>>{
           {20, 30}, {1, 30}, {3, 20, 30}, {3, 1, 30}, {2, 1, 1, 30}, {2, 3, 20, 30}, {1, 1, 20, 30}, {2, 1, 20, 30}}) {
    call.mask = at::randn(shape);
    expect_close(run(call));
  }
  call.mask = at::randn({30, 20}).t();
  expect_close(run(call));
  const at::Tensor q = call.q.select(1, 0), k = call.k.select(1, 0), v = call.v.select(1, 0);
  for (const std::vector<std::int64_t>& shape : std::vector<std::vector<std::int64_t>>{{20, 30}, {2, 1, 30}, {2, 20, 30}})
    expect_close(run({q, k, v, at::randn(shape), false, {}}));
  call = random_call(1, 1, 300, 600, 16, 16);  // several chunks of queries
  call.mask = at::randn({300, 600});
  expect_close(run(call));
}

TEST(Attention, Causal) {
  at::manual_seed(5);
  for (std::int64_t keys : {20, 50, 130}) {
    Call call = random_call(2, 2, 50, keys, 16, 16);
    call.causal = true;
    expect_close(run(call));
  }
}

// A row without a key is 0; NaN and infinite scores make their own row NaN and no other.
TEST(Attention, InfinitiesAndNaN) {
  at::manual_seed(6);
  Call call = random_call(1, 2, 20, 30, 16, 16);
  call.mask = at::zeros({20, 30});
  call.mask[3].fill_(-kInf);
  call.mask[4].slice(0, 5).fill_(-kInf);
  call.mask[5].fill_(std::numeric_limits<float>::lowest());
  call.mask[6][7] = std::numeric_limits<float>::quiet_NaN();
  call.mask[8][29] = kInf;
  const Result masked = run(call);
  expect_close(masked);
  EXPECT_TRUE(masked.y.select(1, 3).eq(0).all().item<bool>());
  EXPECT_TRUE(masked.y.select(1, 6).isnan().all().item<bool>());
  call = random_call(1, 2, 20, 30, 16, 16);
  call.q[0][1][2][3] = std::numeric_limits<float>::quiet_NaN();
  call.q[0][0][4][0] = kInf;
  expect_close(run(call));
  call = random_call(1, 2, 20, 30, 16, 16);
  call.v[0][1][2][3] = std::numeric_limits<float>::quiet_NaN();
  expect_close(run(call));
}

// ATen's maximum of fewer than 16 scores loses a NaN, if there is no mask: what the query of NaN gives is 0 or 0 * v.
TEST(Attention, QueriesOfNaNMeetFewKeys) {
  at::manual_seed(10);
  for (const bool causal : {false, true})
    for (const std::int64_t keys : {1, 7, 15, 16, 17, 40}) {
      Call call = random_call(1, 2, 20, keys, 8, 8);
      call.causal = causal;
      for (const std::int64_t row : {0, 3, 19}) call.q[0][0][row][5] = std::numeric_limits<float>::quiet_NaN();
      expect_close(run(call, keys < 16 ? "ATen" : "loop nest"));
    }
  Call call = random_call(1, 2, 20, 7, 8, 8);
  call.q[0][0][3][5] = std::numeric_limits<float>::quiet_NaN();
  call.mask = at::zeros({20, 7});
  expect_close(run(call));
  call = random_call(1, 2, 20, 7, 8, 9);
  call.q[0][0][3][5] = std::numeric_limits<float>::quiet_NaN();
  expect_close(run(call));
}

// Which of ATen's ways it is depends on how the query lies, which is not how the plan lays it: with and without strides that are known before.
TEST(Attention, QueriesOfNaNMeetFewKeysAsTheyLie) {
  at::manual_seed(11);
  for (const bool classifies : {false, true})
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
      Region::Builder b;
      const auto x = b.input(), k = b.input();
      const auto q = b.call({"fusible::conv", ""}, {Arg::reg(x), Arg::constant(pointwise(3, 3)), Arg::constant(std::string()), Arg::regs({})});
      auto y = b.call({"aten::scaled_dot_product_attention", ""},
                      {Arg::reg(q), Arg::reg(k), Arg::reg(k), Arg::constant({}), Arg::constant(0.0), Arg::constant(false), Arg::constant({}), Arg::constant(false)});
      if (classifies) {
        ContractionSpec spec;
        spec.kind = Contraction::linear;
        spec.weight = at::randn({4, 3 * 9 * 8});
        y = b.call({"aten::flatten", "using_ints"}, {Arg::reg(y), Arg::constant(std::int64_t{1}), Arg::constant(std::int64_t{3})});
        y = b.call({"fusible::linear", ""}, {Arg::reg(y), Arg::constant(make_packed(spec)), Arg::constant(std::string()), Arg::regs({})});
      }
      b.output(y);
      const auto region = b.finish();
      at::Tensor image = at::randn({1, 3, 9, 8}).contiguous(format);
      image[0][1][2][3] = std::numeric_limits<float>::quiet_NaN();
      const std::vector<at::Tensor> inputs = {image, at::randn({1, 3, 7, 8})};
      const at::Tensor found = region->run(inputs)[0], wanted = region->interpret(inputs)[0];
      EXPECT_EQ(wanted.isnan().any().item<bool>(), format == at::MemoryFormat::ChannelsLast);
      expect_close({found, wanted, {}});
    }
}

TEST(Attention, WhatStaysWithAten) {
  at::manual_seed(7);
  Call call = random_call(2, 3, 20, 30, 16, 16);
  call.mask = at::rand({20, 30}) > 0.3;
  expect_close(run(call, "ATen"));
  call = random_call(2, 3, 20, 30, 16, 16);
  call.k = call.k.slice(0, 0, 1);  // a batch that broadcasting repeats
  call.v = call.v.slice(0, 0, 1);
  expect_close(run(call, "ATen"));
  call = random_call(2, 3, 20, 30, 16, 16);
  call.mask = at::randn({20, 1});
  expect_close(run(call, "ATen"));
  call.mask = at::randn({20, 30});
  call.causal = true;
  expect_close(run(call, "ATen"));
  call = random_call(2, 3, 20, 30, 16, 16);
  call.dropout = 1;
  expect_close(run(call, "ATen"));
}

TEST(Attention, SameBitsForAnyNumberOfThreads) {
  at::manual_seed(8);
  const Call call = random_call(1, 1, 400, 70, 16, 16);
  const at::Tensor once = run(call).y;
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor again = run(call).y;
  at::set_num_threads(threads);
  EXPECT_TRUE(once.equal(again));
}

}  // namespace
}  // namespace fusible
