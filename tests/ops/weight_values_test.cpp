// A weight is held in one form: dense until a kernel packs it, then packed, from which the same bits come back for save, copies and fallbacks.

#include <atomic>
#include <sstream>
#include <thread>

#include <ATen/autocast_mode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/serialization/import.h>

#include "ops/kernels/isa.h"
#include "ops/recurrent.h"
#include "tests/ops/support.h"

namespace fusible::testing {
namespace {

at::Tensor channels_last(const at::Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast); }

bool same_bits(const at::Tensor& a, const at::Tensor& b) { return a.strides() == b.strides() && at::equal(a.view(at::kInt), b.view(at::kInt)); }

// A weight with every kind of number, NaNs of several payloads among them.
at::Tensor with_odd_numbers(at::Tensor weight) {
  at::Tensor bits = weight.view(at::kInt).as_strided({weight.numel()}, {1});
  const std::int32_t odd[] = {0x7fc00001, 0x7f800001, static_cast<std::int32_t>(0xffc12345), static_cast<std::int32_t>(0x80000000), 1, 0x7f800000};
  for (std::int64_t i = 0; i < bits.numel(); i += 7) bits[i] = odd[i / 7 % 6];
  return weight;
}

struct Place {
  ContractionSpec spec;
  at::Tensor x;
};

std::vector<Place> places() {
  at::manual_seed(4);
  std::vector<Place> all = {{conv_spec(16, 24, {3, 3}, 1, 1, 1), channels_last(at::randn({1, 16, 20, 20}))},
                            {conv_spec(64, 64, {3, 3}, 1, 1, 1), channels_last(at::randn({1, 64, 6, 6}))},
                            {conv_spec(64, 128, {3, 3}, 1, 1, 1), channels_last(at::randn({1, 64, 40, 40}))},  // Winograd's way, where lanes allow
                            {conv_spec(3, 70, {7, 7}, 1, 2, 3), channels_last(at::randn({1, 3, 40, 40}))},
                            {conv_spec(32, 18, {1, 3}, 2), channels_last(at::randn({1, 32, 20, 20}))},
                            {conv_spec(67, 67, {3, 3}, 67, 1, 1), channels_last(at::randn({1, 67, 20, 20}))},
                            {linear_spec(100, 130), at::randn({9, 100})}};
  for (size_t i : {0, 3, 4}) {
    Place other = all[i];
    other.spec.weight = channels_last(other.spec.weight);
    all.push_back(other);
  }
  Place turned = all[6];
  turned.spec.weight = turned.spec.weight.t().contiguous().t();
  all.push_back(turned);
  return all;
}

TEST(WeightValues, OnePackedFormGivesTheSameBitsBack) {
  const at::NoGradGuard no_grad;
  for (const Place& place : places()) {
    ContractionSpec spec = place.spec;
    spec.weight = with_odd_numbers(spec.weight.clone());
    const auto packed = make_packed(spec);
    const WeightValues& values = *packed->values();
    EXPECT_EQ(values.dense_bytes(), spec.weight.nbytes());
    EXPECT_EQ(values.packed_bytes(), 0);
    call(packed, place.x, "relu");
    EXPECT_EQ(values.dense_bytes(), 0) << packed->describe();
    EXPECT_GE(values.packed_bytes(), spec.weight.nbytes());
    EXPECT_TRUE(same_bits(values.dense(), spec.weight)) << packed->describe();
    EXPECT_EQ(values.dense_bytes(), 0) << "who reads once keeps nothing";
  }
}

TEST(WeightValues, DirectAndWinogradSumsAfterTheDenseFormWent) {
  const at::NoGradGuard no_grad;
  at::manual_seed(5);
  const ContractionSpec spec = conv_spec(64, 128, {3, 3}, 1, 1, 1);
  const auto packed = make_packed(spec);
  for (const std::int64_t size : {5, 40, 6, 33}) {
    const auto x = channels_last(at::randn({1, 64, size, size}));
    EXPECT_TRUE(same(call(packed, x, "silu"), expected(spec, x, "silu"))) << size;
  }
  // 9 of the panels and 16 of the transformed ones.
  EXPECT_EQ(packed->values()->packed_bytes(), static_cast<std::int64_t>(spec.weight.nbytes()) * 25 / 9);
  EXPECT_TRUE(same_bits(packed->values()->dense(), spec.weight));
}

TEST(WeightValues, FallbacksAfterPackingComputeTheOriginal) {
  at::manual_seed(6);
  for (const Place& place : places()) {
    const auto packed = make_packed(place.spec);
    const at::Tensor wanted = call(packed, place.x, "silu");
    ASSERT_EQ(packed->values()->dense_bytes(), 0) << packed->describe();
    EXPECT_THROW(call(packed, place.x.to(at::kDouble), "silu"), c10::Error);
    const at::Tensor one = place.x[0];  // without a batch
    EXPECT_TRUE(same(call(packed, one, "silu"), expected(place.spec, one, "silu")));
    const at::Tensor x = place.x.detach().clone().requires_grad_(), y = place.x.detach().clone().requires_grad_();
    const at::Tensor loss = call(packed, x, "silu").sum(), wanted_loss = expected(place.spec, y, "silu").sum();
    const auto found = torch::autograd::grad({loss}, {x}), expected_grad = torch::autograd::grad({wanted_loss}, {y});
    EXPECT_TRUE(same(found[0], expected_grad[0])) << packed->describe();
    at::autocast::set_autocast_enabled(at::kCPU, true);
    const auto cast = call(packed, place.x, "silu"), wanted_cast = expected(place.spec, place.x, "silu");
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
    EXPECT_TRUE(same(cast, wanted_cast, 2e-2));
    // An operator that needs it at every call has it made once.
    EXPECT_EQ(packed->values()->kept_dense().data_ptr(), packed->values()->kept_dense().data_ptr());
    EXPECT_EQ(packed->values()->dense_bytes(), place.spec.weight.nbytes());
    EXPECT_TRUE(at::equal(call(packed, place.x, "silu"), wanted));
  }
}

TEST(WeightValues, PackedInInferenceModeItMayStillRecordDerivatives) {
  at::manual_seed(7);
  const ContractionSpec spec = linear_spec(100, 130);
  const auto packed = make_packed(spec);
  {
    const c10::InferenceMode inference;
    call(packed, at::randn({9, 100}), "relu");
    packed->values()->kept_dense();
  }
  const at::Tensor x = at::randn({9, 100}).requires_grad_();
  EXPECT_NO_THROW(torch::autograd::grad({call(packed, x, "relu").sum()}, {x}));
}

TEST(WeightValues, ReadersAtTheSameTimeShareOne) {
  const at::NoGradGuard no_grad;
  const auto packed = make_packed(linear_spec(100, 130));
  call(packed, at::randn({9, 100}), "relu");
  const at::Tensor first = packed->values()->dense(), second = packed->values()->dense();
  EXPECT_EQ(first.data_ptr(), second.data_ptr());
}

// As torch.jit.load(map_location="meta") makes it.
TEST(WeightValues, AWeightWithoutValuesRaises) {
  const at::NoGradGuard no_grad;
  for (ContractionSpec spec : {conv_spec(16, 24, {3, 3}), linear_spec(16, 24)}) {
    spec.weight = spec.weight.to(at::kMeta);
    spec.bias = at::Tensor();
    const auto x = spec.kind == Contraction::linear ? at::randn({300, 16}) : channels_last(at::randn({1, 16, 20, 20}));
    EXPECT_THROW(call(spec, x, "relu"), c10::Error);
  }
}

TEST(WeightValues, RecurrentWeightsComeBackForSaveAndForTorchsOperator) {
  at::manual_seed(8);
  RecurrentSpec spec;
  spec.cell = kernels::CellKind::gru;
  spec.layers = 2;
  spec.bidirectional = true;
  const std::int64_t hidden = 21, inputs = 13;
  for (std::int64_t i = 0; i < 4; ++i) {
    spec.weights.push_back(at::randn({3 * hidden, i < 2 ? inputs : 2 * hidden}) / 5);
    spec.weights.push_back(at::randn({hidden, 3 * hidden}).t() / 5);
    for (int bias = 0; bias < 2; ++bias) spec.weights.push_back(at::randn({3 * hidden}));
  }
  const auto weights = c10::make_intrusive<Recurrent>(spec);
  const auto dense_bytes = [&] {
    std::int64_t bytes = 0;
    for (const auto& matrix : weights->values()) bytes += matrix->dense_bytes();
    return bytes;
  };
  const at::Tensor x = at::randn({5, 2, inputs}), h = at::randn({4, 2, hidden});
  ASSERT_TRUE(weights->takes(x, {h}));
  const auto wanted = weights->run(x, {h});
  EXPECT_EQ(dense_bytes(), 0);
  const auto back = weights->dense_weights();
  for (size_t i = 0; i < back.size(); ++i) EXPECT_TRUE(same_bits(back[i], spec.weights[i])) << i;
  EXPECT_EQ(dense_bytes(), 0);
  EXPECT_TRUE(at::equal(Recurrent::load(weights->save())->run(x, {h})[0], wanted[0]));
  const auto kept = weights->kept_dense_weights();
  EXPECT_TRUE(same(std::get<0>(at::gru(x, h, kept, true, 2, 0.0, false, true, false)), wanted[0]));
  EXPECT_GT(dense_bytes(), 0);
}

// The first calls of a fresh object, from all sides.
TEST(WeightValues, PackingReadingAndFallingBackMayRunAtOnce) {
  const at::NoGradGuard outer;
  at::manual_seed(9);
  ContractionSpec spec = conv_spec(64, 64, {3, 3}, 1, 1, 1);
  spec.weight = channels_last(spec.weight);
  const auto x = channels_last(at::randn({1, 64, 20, 20})), single = x[0];
  const auto wanted = call(make_packed(spec), x, "relu"), wanted_single = expected(spec, single, "relu");
  std::atomic<int> different{0};
  for (int round = 0; round < 30; ++round) {
    const auto packed = make_packed(spec);
    std::vector<std::thread> threads;
    for (int i = 0; i < 6; ++i)
      threads.emplace_back([&, i] {
        const at::NoGradGuard no_grad;
        for (int turn = 0; turn < 3; ++turn) {
          if (i % 3 == 0) different += !at::equal(call(packed, x, "relu"), wanted);
          if (i % 3 == 1) different += !same_bits(packed->values()->dense(), spec.weight);
          if (i % 3 == 2) different += !same(call(packed, single, "relu"), wanted_single);
        }
      });
    for (auto& thread : threads) thread.join();
  }
  EXPECT_EQ(different, 0);
}

}  // namespace
}  // namespace fusible::testing
