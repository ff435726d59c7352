#include "tests/ops/support.h"

namespace fusible::testing {
namespace {

constexpr const char* kChains[] = {"", "relu", "silu", "gelu(none)|mul(2)", "leaky_relu(0.1)|hardtanh(0, 6)"};

TEST(Linear, MatchesAtenForEveryRankAndLayout) {
  const at::NoGradGuard no_grad;
  at::manual_seed(6);
  for (const bool with_bias : {true, false}) {
    ContractionSpec spec = linear_spec(48, 64);
    if (!with_bias) spec.bias = at::Tensor();
    const std::vector<at::Tensor> inputs = {
        at::randn({48}), at::randn({1, 48}), at::randn({128, 48}), at::randn({4, 33, 48}), at::randn({2, 3, 20, 48}), at::randn({0, 48}),
        at::randn({3, 0, 48}), at::randn({48, 100}).t(), at::randn({40, 3, 48}).transpose(0, 1), at::randn({128, 96}).slice(1, 0, at::nullopt, 2),
        at::randn({1, 48}).expand({64, 48}), at::randn({64, 1, 48}), at::randn({6000, 48}), at::randn({60, 100, 48})};
    for (const auto& x : inputs)
      for (const char* ops : kChains) {
        EXPECT_TRUE(same(call(spec, x, ops), expected(spec, x, ops))) << x.sizes() << x.strides() << ops;
        EXPECT_TRUE(same(call_unpacked(spec, x, ops), expected(spec, x, ops))) << x.sizes() << x.strides() << ops;
        EXPECT_TRUE(same_layout(call(spec, x.to(at::kMeta), ops), expected(spec, x, ops))) << x.sizes() << x.strides() << ops;
      }
  }
}

TEST(Linear, MatchesAtenForTransposedWeightsAndOtherDtypes) {
  const at::NoGradGuard no_grad;
  at::manual_seed(7);
  ContractionSpec transposed = linear_spec(48, 64);
  transposed.weight = transposed.weight.t().contiguous().t();
  const auto x = at::randn({64, 48});
  for (const char* ops : kChains) {
    EXPECT_TRUE(same(call(transposed, x, ops), expected(transposed, x, ops)));
    EXPECT_EQ(make_packed(transposed)->spec().weight.strides(), transposed.weight.strides());
    const auto wide = linear_spec(48, 64, at::kDouble);
    EXPECT_TRUE(same(call(wide, x.to(at::kDouble), ops), expected(wide, x.to(at::kDouble), ops), 1e-13));
    const auto narrow = linear_spec(48, 64, at::kBFloat16);
    EXPECT_TRUE(same(call(narrow, x.to(at::kBFloat16), ops), expected(narrow, x.to(at::kBFloat16), ops), 2e-2));
  }
}

TEST(Linear, RaisesWhereTheOriginalRaises) {
  ContractionSpec spec = linear_spec(48, 64);
  for (const char* ops : {"", "silu"}) {
    EXPECT_THROW(call(spec, at::randn({64, 47}), ops), c10::Error);
    EXPECT_THROW(call(spec, at::randn({64, 48}, at::kDouble), ops), c10::Error);
    EXPECT_THROW(call(conv_spec(3, 4, {3, 3}), at::randn({64, 48}), ops), c10::Error);
  }
  spec.expected_rank = 2;
  EXPECT_NO_THROW(call(spec, at::randn({64, 48}), ""));
  EXPECT_THROW(call(spec, at::randn({2, 64, 48}), ""), c10::Error);
}

// A fold that acts along the wrong axis for an unusual input rank is undone: the result is that of the steps one by one.
TEST(Fold, IsUndoneWhereItsAxisIsNotTheChannels) {
  const at::NoGradGuard no_grad;
  at::manual_seed(8);
  const std::int64_t channels = 6;
  const auto scale = at::rand({channels}, at::kDouble) + 0.5, shift = at::randn({channels}, at::kDouble);
  const auto gamma = at::rand({channels}) + 0.5, beta = at::randn({channels}), mean = at::randn({channels}), var = at::rand({channels}) + 0.5;
  struct Place { ContractionSpec plain; at::Tensor usual, unusual; std::string ops; std::vector<at::Tensor> operands; at::Tensor scale, shift; };
  const auto bn_scale = (gamma / (var + 1e-3).sqrt()).to(at::kDouble);
  const auto bn_shift = beta.to(at::kDouble) - mean.to(at::kDouble) * bn_scale;
  const auto factor = at::randn({channels, 1, 1}) + 2;
  std::vector<Place> places;
  places.push_back({linear_spec(5, channels), at::randn({4, 5}), at::randn({3, channels, 5}), "batch_norm(0.001)", {gamma, beta, mean, var}, bn_scale, bn_shift});
  places.push_back({conv_spec(3, channels, {3, 3}), at::randn({2, 3, 8, 8}), at::randn({3, 8, 8}), "mul", {factor}, factor.flatten().to(at::kDouble), at::zeros({channels}, at::kDouble)});
  places.push_back({conv_spec(3, channels, {3, 3}), at::randn({2, 3, 8, 8}), at::randn({3, 8, 8}), "batch_norm(0.001)", {gamma, beta, mean, var}, bn_scale, bn_shift});
  for (Place& place : places) {
    ContractionSpec folded = place.plain;
    std::vector<std::int64_t> rows(folded.weight.dim(), 1);
    rows[0] = channels;
    folded.weight = (folded.weight.to(at::kDouble) * place.scale.view(rows)).to(at::kFloat);
    folded.bias = (folded.bias.to(at::kDouble) * place.scale + place.shift).to(at::kFloat);
    folded.folded_ops = place.ops;
    folded.folded_operands = place.operands;
    folded.fold_scale = place.scale;
    folded.fold_shift = place.shift;
    for (const auto& x : {place.usual, place.unusual})
      EXPECT_TRUE(same(call(folded, x, "relu"), expected(place.plain, x, place.ops + "|relu", place.operands))) << place.ops << x.sizes();
    folded.fold_scale = place.scale.clone().index_fill(0, at::tensor({2}, at::kLong), 0);
    EXPECT_NO_THROW(call(folded, place.usual, "relu"));
    EXPECT_THROW(call(folded, place.unusual, "relu"), c10::Error);
    folded.unfolded_weight = place.plain.weight;
    folded.unfolded_bias = place.plain.bias;
    EXPECT_TRUE(same(call(folded, place.unusual, "relu"), expected(place.plain, place.unusual, place.ops + "|relu", place.operands)));
  }
}

}  // namespace
}  // namespace fusible::testing
