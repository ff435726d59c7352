#pragma once

// The ATen operators that a fused operator stands for, one by one. Differentiable, any device and dtype that ATen takes.

#include <ATen/core/Tensor.h>

#include "ops/packed.h"
#include "ops/post_op.h"

namespace fusible {

// The contraction alone; raises what ATen raises. `weight` and `bias` stand for those of `spec` (its values, unfolded, or on another device).
at::Tensor contract(const at::Tensor& x, const ContractionSpec& spec, const at::Tensor& weight, const at::Tensor& bias);

// Raises RuntimeError where the original took one rank only (addmm) and `x` has another.
void check_rank(const at::Tensor& x, const ContractionSpec& spec);

// Whether the affine steps folded into the weights act along the channels of the result for an input of this rank.
bool fold_is_valid(const at::Tensor& x, const ContractionSpec& spec);

// [O] What `unfolded_bias` is, or, in a state that has none, what is left of it in the folded one. Needs a fold without zeros in its scale.
FUSIBLE_API at::Tensor bias_before_fold(const ContractionSpec& spec);

// Contraction, then what was folded where the fold is not valid, then the chain. `packed` has the weight; null when it is not constant.
at::Tensor reference(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const PostOps& chain, at::TensorList operands);

}  // namespace fusible
