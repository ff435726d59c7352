#pragma once

// The CPU forward of every fused operator: own kernels where they are known to give what the reference gives, else ATen.

#include <string_view>

#include <ATen/core/Tensor.h>

#include "ops/packed.h"

namespace fusible {

// `packed` keeps what kernels derive from the weights; null when the weights are not constant. Not differentiable.
at::Tensor forward(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, std::string_view post_ops,
                   at::TensorList operands);

// The same the way that is asked for, where that is possible; none: as the cost model decides, whatever was chosen.
at::Tensor forward_by(std::optional<Way> way, const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed,
                      std::string_view post_ops, at::TensorList operands);

// Sizes, strides and dtype of `tensor` without its values.
at::Tensor on_meta(const at::Tensor& tensor);

// Shapes, dtypes and strides of the result, on the meta device.
at::Tensor forward_meta(const at::Tensor& x, const ContractionSpec& spec, std::string_view post_ops, at::TensorList operands);

// The spec of `weight`; raises RuntimeError when an operator is given the weights of another contraction.
const ContractionSpec& spec_for(Contraction kind, const PackedContraction& weight);

// The sizes that the contraction alone gives for an input like `x`, of which sizes and dtype are read. Throws c10::Error where it raises.
std::vector<std::int64_t> contraction_sizes(const at::Tensor& x, const ContractionSpec& spec);

}  // namespace fusible
