#pragma once

#include <ATen/core/Tensor.h>

#include "ops/packed.h"
#include "ops/post_op.h"

namespace fusible {

// Tries the kernels in order of preference. True: `y` is what reference() gives (values within rounding; dtype, strides and NaN equal).
// False: nothing was done. `x` is strided, the fold is valid for it, and no gradient is wanted. `packed` is null when the weights are not constant.
bool try_kernel(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const PostOps& chain, at::TensorList operands,
                at::Tensor& y);

}  // namespace fusible
