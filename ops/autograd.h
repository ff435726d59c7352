#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

namespace fusible {

// Whether a derivative of the result is wanted with respect to `tensor`, backward or forward mode.
inline bool needs_derivative(const at::Tensor& tensor) {
  return tensor.defined() && ((at::GradMode::is_enabled() && tensor.requires_grad()) || tensor._fw_grad(/*level=*/0).defined());
}

inline bool needs_derivative(at::TensorList tensors) {
  for (const at::Tensor& tensor : tensors)
    if (needs_derivative(tensor)) return true;
  return false;
}

}  // namespace fusible
