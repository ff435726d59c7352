#pragma once

#include <limits>

#include <ATen/core/Tensor.h>

#include "ops/kernels/packed_weights.h"
#include "ops/packed.h"
#include "ops/post_op.h"

namespace fusible {

inline constexpr std::int64_t kAnyWork = std::numeric_limits<std::int64_t>::max();

// Own loop nests on packed weights: float32, bfloat16 by way of it; NHWC images that ATen answers in NHWC, matrices. Contract of try_kernel
// (ops/kernel.h).
// Not from `most_work` multiply-adds on.
FUSIBLE_API bool try_panels(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const PostOps& chain,
                            at::TensorList operands, at::Tensor& y, std::int64_t most_work = kAnyWork);

namespace kernels {

// The packed weights of `contraction`, packed by the first caller. PackedWeights::takes() its spec.
FUSIBLE_API const PackedWeights& packed_weights(const PackedContraction& contraction);

}  // namespace kernels
}  // namespace fusible
