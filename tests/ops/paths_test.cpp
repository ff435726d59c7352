// Calls for which a fast path must step back, or take care: autocast, other dtypes, uneven padding, operands in another order, folds on meta.

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "tests/ops/support.h"

namespace fusible::testing {
namespace {

at::Tensor channels_last(const at::Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast); }

TEST(Paths, AutocastCastsBeforeEachOperator) {
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  const ContractionSpec spec = conv_spec(16, 24, {3, 3}, 1, 1, 1);
  const auto x = channels_last(at::randn({2, 16, 24, 20}));
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const auto found = call(spec, x, "relu|mul(2)"), wanted = expected(spec, x, "relu|mul(2)");
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_EQ(wanted.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(same(found, wanted, 2e-2));
}

TEST(Paths, WeightsOfAnotherOperatorAreRefused) {
  const auto packed = make_packed(conv_spec(3, 4, {3, 3}));
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fusible::linear", "");
  std::vector<c10::IValue> stack{at::randn({1, 3, 8, 8}), packed, std::string(), std::vector<at::Tensor>{}};
  EXPECT_THROW(op.callBoxed(stack), c10::Error);
}

// 2^24 multiply-adds and more: oneDNN's share.
TEST(Paths, LargeCallsOfEveryDtypeAndPaddingMatchAten) {
  const at::NoGradGuard no_grad;
  at::manual_seed(2);
  struct Place {
    ContractionSpec spec;
    at::Tensor x;
    double tolerance;
  };
  std::vector<Place> places = {
      {conv_spec(16, 32, {3, 3}, 1, 1, 1, 1, at::kDouble), at::randn({4, 16, 34, 34}, at::kDouble), 1e-12},
      {conv_spec(16, 32, {3, 3}, 1, 1, 1, 1, at::kBFloat16), at::randn({4, 16, 34, 34}).to(at::kBFloat16), 2e-2},
      {linear_spec(256, 256, at::kDouble), at::randn({300, 256}, at::kDouble), 1e-12},
      {conv_spec(16, 32, {5}, 1, 1, 2), at::randn({16, 16, 420}), 1e-5},
      {conv_spec(16, 32, {4, 2}), at::randn({4, 16, 38, 38}), 1e-5},
      {conv_spec(16, 32, {4, 2}), channels_last(at::randn({4, 16, 38, 38})), 1e-5},
      {conv_spec(16, 32, {3, 3}, 1, 1, 0, 2), channels_last(at::randn({4, 16, 38, 38})), 1e-5}};
  for (const size_t uneven : {4, 5}) places[uneven].spec.padding_mode = "same";
  for (const Place& place : places)
    for (const char* ops : {"silu", "tanh|mul(2)", "gelu(tanh)"})
      EXPECT_TRUE(same(call(place.spec, place.x, ops), expected(place.spec, place.x, ops), place.tolerance))
          << ops << " " << place.x.sizes() << place.x.scalar_type() << place.spec.padding_mode;
  // In ATen's words.
  EXPECT_THAT([] { call(conv_spec(16, 32, {3, 3}), at::randn({8, 24, 38, 38}), "silu"); },
              ::testing::ThrowsMessage<c10::Error>(::testing::HasSubstr("to have 16 channels, but got 24 channels")));
}

TEST(Paths, LargeCallsOfAnotherDtypeThanTheWeightsRaise) {
  EXPECT_THROW(call(linear_spec(256, 256), at::randn({300, 256}, at::kDouble), "relu"), c10::Error);
  EXPECT_THROW(call(conv_spec(16, 32, {3, 3}), channels_last(at::randn({4, 16, 38, 38}, at::kDouble)), "relu"), c10::Error);
  for (const auto weights : {at::kFloat, at::kBFloat16})
    for (const auto& x : {at::randn({4, 16, 38, 38}), channels_last(at::randn({4, 16, 38, 38}))})
      EXPECT_THROW(call(conv_spec(16, 32, {3, 3}, 1, 1, 0, 1, weights), x.to(weights == at::kFloat ? at::kBFloat16 : at::kFloat), "silu"), c10::Error);
}

// [in, out, kh, kw] with as many inputs as outputs looks like the weight of a convolution.
TEST(Paths, TransposedConvolutionsOfEqualChannels) {
  const at::NoGradGuard no_grad;
  at::manual_seed(6);
  const ContractionSpec spec = conv_transpose_spec(16, 16, {3, 3});
  const auto x = channels_last(at::randn({2, 16, 20, 20}));
  EXPECT_TRUE(same(call(spec, x, "relu"), expected(spec, x, "relu")));
}

TEST(Paths, OperandsAreReadInTheirOwnOrder) {
  const at::NoGradGuard no_grad;
  at::manual_seed(3);
  const ContractionSpec spec = conv_spec(16, 24, {3, 3}, 1, 1, 1);
  const auto x = channels_last(at::randn({2, 16, 12, 12}));
  const auto turned = at::randn({2, 12, 12, 24}).permute({0, 3, 2, 1});
  EXPECT_TRUE(same(call(spec, x, "add", {turned}), expected(spec, x, "add", {turned})));
  // The operand on the left decides the strides.
  const auto images_inside = at::randn({1, 12, 12, 2}).permute({3, 0, 1, 2});
  for (const auto& left : {turned, at::randn({2, 24, 12, 12}), channels_last(at::randn({2, 24, 12, 12})), images_inside})
    for (const char* ops : {"radd", "rsub", "rmul", "rdiv"}) EXPECT_TRUE(same(call(spec, x, ops, {left}), expected(spec, x, ops, {left}))) << ops << left.strides();
  for (const auto& sizes : {std::vector<std::int64_t>{2, 24, 5, 12}, {23, 1, 1}, {3, 1, 1, 1}})
    EXPECT_THROW(call(spec, x, "add", {at::randn(sizes)}), c10::Error) << at::IntArrayRef(sizes);
  const auto nan = std::string("clamp(nan, 1)");
  EXPECT_TRUE(same(call(spec, x, nan), expected(spec, x, nan)));
}

// Of three dimensions, ATen's channels are dimension 1, and a linear's lie along the last.
TEST(Paths, ChannelsOfRowsAreThoseOfAten) {
  const at::NoGradGuard no_grad;
  at::manual_seed(4);
  const ContractionSpec spec = linear_spec(32, 40);
  const auto x = at::randn({2, 40, 32});
  const auto slopes = at::rand({40});
  EXPECT_TRUE(same(call(spec, x, "prelu", {slopes}), expected(spec, x, "prelu", {slopes})));
  const std::vector<at::Tensor> statistics = {at::randn({40}), at::randn({40}), at::randn({40}), at::rand({40}) + 0.5};
  EXPECT_TRUE(same(call(spec, x, "batch_norm(0.5)", statistics), expected(spec, x, "batch_norm(0.5)", statistics)));
}

// A row [1, C] added to one row of rank 1 gives a matrix: on meta as well.
TEST(Paths, MetaFollowsAFoldThatDoesNotHold) {
  at::manual_seed(5);
  ContractionSpec spec = linear_spec(4, 5);
  spec.folded_ops = "add";
  spec.folded_operands = {at::randn({1, 5})};
  spec.fold_scale = at::ones({5}, at::kDouble);
  spec.fold_shift = at::zeros({5}, at::kDouble);
  EXPECT_TRUE(same_layout(call(spec, at::randn({4}).to(at::kMeta), "relu"), at::empty({1, 5})));
  EXPECT_TRUE(same_layout(call(spec, at::randn({4}), "relu"), at::empty({1, 5})));
}

}  // namespace
}  // namespace fusible::testing
