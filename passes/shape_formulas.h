#pragma once

#include <optional>

#include <ATen/core/stack.h>
#include <torch/csrc/jit/ir/ir.h>

namespace fusible {

// The result, on the meta device, of operators whose meta kernels torch has in Python alone: convolutions, normalizations, adaptive pooling.
// `inputs`: as the node has them. nullopt: another operator, or inputs on which it raises.
std::optional<at::Tensor> shaped_by_formula(const torch::jit::Node* node, const torch::jit::Stack& inputs);

}  // namespace fusible
