#pragma once

#include <ATen/core/Tensor.h>

#include "ops/post_op.h"

namespace fusible {

// apply_post_ops without fresh memory where the out-of-place ATen operator would give y's shape, dtype and strides anyway. Not differentiable.
// `y` is fresh and already went through the first `first` steps; `operands` are those of the whole chain.
at::Tensor apply_post_ops_in_place(at::Tensor y, const PostOps& chain, at::TensorList operands, size_t first = 0);

// `y`, the result of `chain`, with the strides that ATen's operators give it one by one. One channel, or one pixel, is contiguous and
// channels_last at once: an operator out of place calls it contiguous, one in place leaves the strides, and the next convolution's layout
// follows them.
at::Tensor with_strides_after(at::Tensor y, const PostOps& chain, at::TensorList operands);
// The same of a contraction into which `folded` went, before any chain.
at::Tensor with_strides_after_fold(at::Tensor y, const PostOps& folded, at::TensorList operands);

}  // namespace fusible
