#include "ops/recurrent.h"

#include <sstream>

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <torch/csrc/autograd/autograd.h>

#include "tests/ops/support.h"

namespace fusible::testing {
namespace {

using kernels::CellKind;
using Results = std::vector<at::Tensor>;

RecurrentSpec random_spec(CellKind cell, std::int64_t inputs, std::int64_t hidden, std::int64_t layers, bool bidirectional, bool biases, bool batch_first) {
  RecurrentSpec spec{cell, {}, biases, layers, bidirectional, batch_first};
  const std::int64_t rows = (cell == CellKind::lstm ? 4 : 3) * hidden;
  for (std::int64_t i = 0; i < layers * spec.directions(); ++i) {
    spec.weights.push_back(at::randn({rows, i < spec.directions() ? inputs : spec.directions() * hidden}) * 0.3);
    spec.weights.push_back(at::randn({rows, hidden}) * (0.5 / std::sqrt(static_cast<double>(hidden))));  // larger ones make rounding grow with time
    if (biases) spec.weights.insert(spec.weights.end(), {at::randn({rows}), at::randn({rows})});
  }
  return spec;
}

Results torch_gives(const RecurrentSpec& s, const at::Tensor& x, const Results& hx) {
  if (s.cell == CellKind::gru) {
    const auto [y, h] = at::gru(x, hx[0], s.weights, s.biases, s.layers, 0.5, false, s.bidirectional, s.batch_first);
    return {y, h};
  }
  const auto [y, h, c] = at::lstm(x, hx, s.weights, s.biases, s.layers, 0.5, false, s.bidirectional, s.batch_first);
  return {y, h, c};
}

Results fusible_gives(const c10::intrusive_ptr<Recurrent>& weights, const at::Tensor& x, const Results& hx) {
  const bool lstm = hx.size() == 2;
  torch::jit::Stack stack{x, lstm ? c10::IValue(hx) : c10::IValue(hx[0]), weights};
  c10::Dispatcher::singleton().findSchemaOrThrow(lstm ? "fusible::lstm" : "fusible::gru", "").callBoxed(&stack);
  Results results;
  for (const auto& value : stack) results.push_back(value.toTensor());
  return results;
}

Results states(const RecurrentSpec& s, std::int64_t batch) {
  Results hx;
  for (int i = 0; i < (s.cell == CellKind::lstm ? 2 : 1); ++i) hx.push_back(at::randn({s.layers * s.directions(), batch, s.hidden()}));
  return hx;
}

at::Tensor sequence(const RecurrentSpec& s, std::int64_t steps, std::int64_t batch) {
  return s.batch_first ? at::randn({batch, steps, s.inputs()}) : at::randn({steps, batch, s.inputs()});
}

class OfCell : public ::testing::TestWithParam<CellKind> {};
INSTANTIATE_TEST_SUITE_P(Recurrent, OfCell, ::testing::Values(CellKind::lstm, CellKind::gru));

// 300 steps of 40 sequences with 37 hidden units are several pieces of the product that is made ahead.
TEST_P(OfCell, MatchesTorch) {
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  for (const std::int64_t hidden : {1, 5, 16, 37, 150})
    for (const std::int64_t layers : {1, 2})
      for (const bool bidirectional : {false, true})
        for (const bool biases : {false, true})
          for (const bool batch_first : {false, true}) {
            const auto spec = random_spec(GetParam(), 11, hidden, layers, bidirectional, biases, batch_first);
            const auto weights = c10::make_intrusive<Recurrent>(spec);
            for (const auto& [steps, batch] : std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {7, 1}, {3, 5}, {2, 13}, {300, 40}}) {
              if (steps == 300 && (hidden != 37 || !biases)) continue;
              const auto x = sequence(spec, steps, batch);
              const auto hx = states(spec, batch);
              ASSERT_TRUE(weights->takes(x, hx));
              const auto wanted = torch_gives(spec, x, hx), found = fusible_gives(weights, x, hx);
              ASSERT_EQ(found.size(), wanted.size());
              for (size_t i = 0; i < wanted.size(); ++i)
                EXPECT_TRUE(same(found[i], wanted[i])) << weights->describe() << ' ' << steps << 'x' << batch << " result " << i;
            }
          }
}

TEST_P(OfCell, LeavesItsArgumentsAlone) {
  const at::NoGradGuard no_grad;
  at::manual_seed(2);
  const auto spec = random_spec(GetParam(), 6, 20, 2, true, true, false);
  const auto weights = c10::make_intrusive<Recurrent>(spec);
  const auto x = sequence(spec, 4, 3);
  const auto hx = states(spec, 3);
  Results before{x.clone()};
  for (const auto& state : hx) before.push_back(state.clone());
  const auto first = fusible_gives(weights, x, hx), second = fusible_gives(weights, x, hx);
  EXPECT_TRUE(at::equal(x, before[0]));
  for (size_t i = 0; i < hx.size(); ++i) EXPECT_TRUE(at::equal(hx[i], before[i + 1]));
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], second[i]));
}

TEST_P(OfCell, TakesAnyStrides) {
  const at::NoGradGuard no_grad;
  at::manual_seed(3);
  auto spec = random_spec(GetParam(), 6, 20, 1, true, true, false);
  for (auto& weight : spec.weights)
    if (weight.dim() == 2) weight = weight.t().contiguous().t();
  const auto weights = c10::make_intrusive<Recurrent>(spec);
  const auto hx = states(spec, 6);
  Results apart;
  for (const auto& state : hx) apart.push_back(state.transpose(0, 2).contiguous().transpose(0, 2));
  for (const auto& x : {at::randn({6, 5, 6}).permute({1, 0, 2}), at::randn({5, 6, 12}).slice(2, 0, at::nullopt, 2), at::randn({5, 1, 6}).expand({5, 6, 6})}) {
    const auto wanted = torch_gives(spec, x, apart), found = fusible_gives(weights, x, apart);
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_TRUE(same(found[i], wanted[i])) << x.strides();
  }
}

TEST_P(OfCell, PassesOnWhatIsNotFinite) {
  const at::NoGradGuard no_grad;
  at::manual_seed(4);
  const auto spec = random_spec(GetParam(), 6, 20, 1, false, true, false);
  auto x = sequence(spec, 5, 3);
  x[1][0][2] = std::numeric_limits<float>::quiet_NaN();
  x[2][1][3] = std::numeric_limits<float>::infinity();
  x[3][2][1] = 3e38f;
  auto hx = states(spec, 3);
  const auto wanted = torch_gives(spec, x, hx), found = fusible_gives(c10::make_intrusive<Recurrent>(spec), x, hx);
  for (size_t i = 0; i < wanted.size(); ++i) EXPECT_TRUE(same(found[i], wanted[i]));
}

// Step-wise and by direction: 200 units are worth two threads at each step, 20 are not.
TEST_P(OfCell, GivesTheSameBitsForAnyNumberOfThreads) {
  const at::NoGradGuard no_grad;
  const int before = at::get_num_threads();
  for (const std::int64_t hidden : {20, 200}) {
    const auto spec = random_spec(GetParam(), 30, hidden, 2, true, true, true);
    const auto weights = c10::make_intrusive<Recurrent>(spec);
    const auto x = sequence(spec, 9, 7);
    const auto hx = states(spec, 7);
    at::set_num_threads(1);
    const auto one = fusible_gives(weights, x, hx);
    at::set_num_threads(2);
    const auto two = fusible_gives(weights, x, hx);
    for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << hidden;
  }
  at::set_num_threads(before);
}

TEST_P(OfCell, LeavesToTorchWhatItDoesNotTake) {
  at::manual_seed(5);
  const auto spec = random_spec(GetParam(), 6, 20, 1, false, true, false);
  const auto weights = c10::make_intrusive<Recurrent>(spec);
  const auto x = sequence(spec, 4, 3).set_requires_grad(true);
  const auto hx = states(spec, 3);
  EXPECT_FALSE(weights->takes(x, hx));
  const auto wanted = torch::autograd::grad({torch_gives(spec, x, hx)[0].sum()}, {x}), found = torch::autograd::grad({fusible_gives(weights, x, hx)[0].sum()}, {x});
  EXPECT_TRUE(same(found[0], wanted[0]));
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(same(fusible_gives(weights, at::empty({4, 0, 6}), states(spec, 0))[0], torch_gives(spec, at::empty({4, 0, 6}), states(spec, 0))[0]));
  const auto raises = [](const auto& action) {
    try {
      action();
    } catch (const c10::Error&) {
      return true;
    }
    return false;
  };
  for (const auto& other : {at::randn({4, 3, 6}, at::kDouble), at::randn({0, 3, 6}), at::randn({6}), at::randn({4, 3, 2, 6})}) {
    EXPECT_FALSE(weights->takes(other, hx));
    EXPECT_EQ(raises([&] { fusible_gives(weights, other, hx); }), raises([&] { torch_gives(spec, other, hx); })) << other.sizes();
  }
  EXPECT_FALSE(weights->takes(at::randn({4, 3, 7}), hx));  // for which oneDNN, in torch, does not look
  EXPECT_FALSE(weights->takes(at::randn({4, 2, 6}), hx));
}

TEST_P(OfCell, SavesAllOfItself) {
  const auto spec = random_spec(GetParam(), 6, 20, 2, true, false, true);
  const auto loaded = Recurrent::load(c10::make_intrusive<Recurrent>(spec)->save());
  EXPECT_EQ(loaded->describe(), c10::make_intrusive<Recurrent>(spec)->describe());
  for (size_t i = 0; i < spec.weights.size(); ++i) EXPECT_TRUE(at::equal(loaded->dense_weights()[i], spec.weights[i]));
}

TEST(Recurrent, SaysWhatDoesNotFit) {
  using ::testing::HasSubstr;
  const auto spec = random_spec(CellKind::lstm, 6, 20, 2, true, true, true);
  const auto error_of = [](const Recurrent::State& state) -> std::string {
    try {
      Recurrent::load(state);
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "";
  };
  const auto good = c10::make_intrusive<Recurrent>(spec)->save();
  EXPECT_EQ(error_of(good), "");
  auto later = good, cell = good, numbers = good, layers = good, shape = good, few = good, dtype = good;
  std::get<0>(later) = 2;
  std::get<1>(cell) = "rnn";
  std::get<3>(numbers).pop_back();
  std::get<3>(layers)[1] = std::int64_t{1} << 62;
  std::get<2>(shape)[4] = at::randn({80, 7});
  std::get<2>(few).pop_back();
  std::get<2>(dtype)[0] = std::get<2>(dtype)[0].to(at::kDouble);
  EXPECT_THAT(error_of(later), HasSubstr("format 1, found 2"));
  EXPECT_THAT(error_of(cell), HasSubstr("lstm or gru, found \"rnn\""));
  EXPECT_THAT(error_of(numbers), HasSubstr("4 numbers"));
  EXPECT_THAT(error_of(layers), HasSubstr("4 numbers"));
  EXPECT_THAT(error_of(shape), HasSubstr("shape [80, 6] as weight 4, found [80, 7]"));
  EXPECT_THAT(error_of(few), HasSubstr("4 tensors for each of 4 layers and directions, found 15"));
  EXPECT_THAT(error_of(dtype), HasSubstr("float32"));
}

}  // namespace
}  // namespace fusible::testing
