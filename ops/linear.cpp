// fusible::linear
// x W^T + b with constant weights, then a post-op chain. Source of the spellings: aten::linear, aten::addmm, aten::matmul.
// x: any dtype, layout and rank that the ATen operator takes; operands: the chain's tensors in order. Errors are those of ATen.

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/library.h>

#include "ops/autograd.h"
#include "ops/forward.h"
#include "ops/packed.h"
#include "ops/reference.h"

namespace fusible {
namespace {

using Weight = c10::intrusive_ptr<PackedContraction>;

at::Tensor linear_cpu(const at::Tensor& x, const Weight& weight, std::string_view post_ops, at::TensorList operands) {
  return forward(x, spec_for(Contraction::linear, *weight), weight.get(), post_ops, operands);
}

at::Tensor linear_reference(const at::Tensor& x, const Weight& weight, std::string_view post_ops, at::TensorList operands) {
  return reference(x, spec_for(Contraction::linear, *weight), weight.get(), parse_post_ops(post_ops), operands);
}

at::Tensor linear_meta(const at::Tensor& x, const Weight& weight, std::string_view post_ops, at::TensorList operands) {
  return forward_meta(x, spec_for(Contraction::linear, *weight), post_ops, operands);
}

// Weights are inference constants; derivatives for x and operands come from the ATen operators.
at::Tensor linear_autograd(const at::Tensor& x, const Weight& weight, std::string_view post_ops, at::TensorList operands) {
  if (needs_derivative(x) || needs_derivative(operands)) return linear_reference(x, weight, post_ops, operands);
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fusible::linear", "").typed<decltype(linear_cpu)>();
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return op.call(x, weight, post_ops, operands);
}

TORCH_LIBRARY_FRAGMENT(fusible, m) {
  register_contraction_class();
  m.def("linear(Tensor x, __torch__.torch.classes.fusible.Contraction weight, str post_ops, Tensor[] operands) -> Tensor");
}
TORCH_LIBRARY_IMPL(fusible, CPU, m) { m.impl("linear", linear_cpu); }
TORCH_LIBRARY_IMPL(fusible, Meta, m) { m.impl("linear", linear_meta); }
TORCH_LIBRARY_IMPL(fusible, CompositeExplicitAutograd, m) { m.impl("linear", linear_reference); }
TORCH_LIBRARY_IMPL(fusible, Autograd, m) { m.impl("linear", linear_autograd); }
// Nested tensors: as the operators that it stands for take them.
TORCH_LIBRARY_IMPL(fusible, NestedTensorCPU, m) { m.impl("linear", linear_reference); }
// Under vmap the operators that it stands for have the batching rules.
TORCH_LIBRARY_IMPL(fusible, FuncTorchBatched, m) { m.impl("linear", linear_reference); }

}  // namespace
}  // namespace fusible
