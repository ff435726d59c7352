// fusible::linear_unpacked
// x W^T + b with weights that are not constant, then a post-op chain.
// x: any dtype, layout and rank that aten::linear takes; operands: the chain's tensors in order. Errors are those of ATen.

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/library.h>

#include "ops/autograd.h"
#include "ops/forward.h"
#include "ops/reference.h"

namespace fusible {
namespace {

ContractionSpec spec_of(const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  ContractionSpec spec;
  spec.kind = Contraction::linear;
  spec.weight = weight;
  spec.bias = bias.value_or(at::Tensor());
  return spec;
}

at::Tensor linear_unpacked_cpu(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, std::string_view post_ops,
                               at::TensorList operands) {
  return forward(x, spec_of(weight, bias), nullptr, post_ops, operands);
}

at::Tensor linear_unpacked_reference(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                                     std::string_view post_ops, at::TensorList operands) {
  return reference(x, spec_of(weight, bias), nullptr, parse_post_ops(post_ops), operands);
}

at::Tensor linear_unpacked_meta(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, std::string_view post_ops,
                                at::TensorList operands) {
  return forward_meta(x, spec_of(weight, bias), post_ops, operands);
}

at::Tensor linear_unpacked_autograd(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                                    std::string_view post_ops, at::TensorList operands) {
  if (needs_derivative(x) || needs_derivative(weight) || needs_derivative(bias.value_or(at::Tensor())) || needs_derivative(operands))
    return linear_unpacked_reference(x, weight, bias, post_ops, operands);
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fusible::linear_unpacked", "").typed<decltype(linear_unpacked_cpu)>();
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return op.call(x, weight, bias, post_ops, operands);
}

TORCH_LIBRARY_FRAGMENT(fusible, m) {
  m.def("linear_unpacked(Tensor x, Tensor weight, Tensor? bias, str post_ops, Tensor[] operands) -> Tensor");
}
TORCH_LIBRARY_IMPL(fusible, CPU, m) { m.impl("linear_unpacked", linear_unpacked_cpu); }
TORCH_LIBRARY_IMPL(fusible, Meta, m) { m.impl("linear_unpacked", linear_unpacked_meta); }
TORCH_LIBRARY_IMPL(fusible, CompositeExplicitAutograd, m) { m.impl("linear_unpacked", linear_unpacked_reference); }
TORCH_LIBRARY_IMPL(fusible, Autograd, m) { m.impl("linear_unpacked", linear_unpacked_autograd); }
// Nested tensors: as the operators that it stands for take them.
TORCH_LIBRARY_IMPL(fusible, NestedTensorCPU, m) { m.impl("linear_unpacked", linear_unpacked_reference); }
// Under vmap the operators that it stands for have the batching rules.
TORCH_LIBRARY_IMPL(fusible, FuncTorchBatched, m) { m.impl("linear_unpacked", linear_unpacked_reference); }

}  // namespace
}  // namespace fusible
