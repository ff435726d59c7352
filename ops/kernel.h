#pragma once

#include <ATen/core/Tensor.h>

#include "ops/packed.h"
#include "ops/post_op.h"

namespace fusible {

// Tries the kernel that was `asked` for, or the kernels that the cost model takes for this work. True: `y` is what reference() gives (values
// within rounding; dtype, strides and NaN equal). False: nothing was done; ATen's operators are the way. `x` is strided, the fold is valid
// for it, and no gradient is wanted. `packed` is null when the weights are not constant.
bool try_kernel(std::optional<Way> asked, const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const PostOps& chain,
                at::TensorList operands, at::Tensor& y);

}  // namespace fusible
