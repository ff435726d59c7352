// Strides that only the next operator sees: of dimensions of size 1, and of weights.

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "tests/ops/support.h"

namespace fusible::testing {
namespace {

at::Tensor channels_last(const at::Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast); }

// torch tells the layout of [N, C, 1, 1] by its strides alone.
TEST(Strides, ARestoredPixelHasThoseOfItsLayout) {
  const auto restore = c10::Dispatcher::singleton().findSchemaOrThrow("fusible::restore_layout", "").typed<at::Tensor(const at::Tensor&, at::TensorList)>();
  const at::Tensor contiguous = at::randn({2, 6, 1, 1}), last = contiguous.as_strided({2, 6, 1, 1}, {6, 1, 6, 6});
  for (const at::Tensor& y : {contiguous, last}) {
    EXPECT_EQ(restore.call(y, {at::randn({2, 4, 3, 3})}).strides(), at::IntArrayRef({6, 1, 1, 1}));
    EXPECT_EQ(restore.call(y, {channels_last(at::randn({2, 4, 3, 3}))}).strides(), at::IntArrayRef({6, 1, 6, 6}));
  }
}

// One channel of a channels_last image: batch_norm calls it contiguous. So do the kernels and the reference, which autocast runs, where it is folded.
TEST(Strides, AFoldedStepHasThoseThatItGives) {
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  const ContractionSpec plain = conv_spec(4, 1, {3, 3});
  ContractionSpec folded = plain;
  folded.weight = plain.weight * 2;
  folded.bias = plain.bias * 2;
  folded.folded_ops = "batch_norm(0.5)";
  folded.folded_operands = {at::full({1}, 2.0), at::zeros({1}), at::zeros({1}), at::full({1}, 0.5)};
  folded.fold_scale = at::full({1}, 2, at::kDouble);
  folded.fold_shift = at::zeros({1}, at::kDouble);
  const auto x = channels_last(at::randn({2, 4, 7, 7}));
  for (const bool autocast : {false, true}) {
    at::autocast::set_autocast_enabled(at::kCPU, autocast);
    const auto bare = expected(plain, x, ""), found = call(folded, x, ""), wanted = expected(plain, x, folded.folded_ops, folded.folded_operands);
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
    ASSERT_NE(bare.strides(), wanted.strides());
    EXPECT_EQ(found.strides(), wanted.strides()) << autocast;
    EXPECT_TRUE(same(found, wanted, autocast ? 2e-2 : 1e-5));
  }
}

TEST(Strides, PackedWeightsKeepTheirs) {
  ContractionSpec spec = conv_spec(4, 6, {3, 3});
  spec.weight = channels_last(at::randn({9, 4, 3, 3})).slice(0, 0, 6);
  EXPECT_EQ(make_packed(spec)->spec().weight.strides(), at::IntArrayRef({36, 1, 12, 4}));
}

}  // namespace
}  // namespace fusible::testing
