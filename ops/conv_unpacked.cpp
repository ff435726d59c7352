// fusible::conv_unpacked
// Convolution or transposed convolution (1d, 2d, 3d) with weights that are not constant, then a post-op chain.
// x: any dtype, layout and rank that the ATen operator takes; weight as aten::convolution takes it; operands: the chain's tensors in order.
// Errors are those of ATen.

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/library.h>

#include "ops/autograd.h"
#include "ops/forward.h"
#include "ops/reference.h"

namespace fusible {
namespace {

using Ints = at::IntArrayRef;
using Bias = std::optional<at::Tensor>;

ContractionSpec spec_of(const at::Tensor& weight, const Bias& bias, Ints stride, Ints padding, Ints dilation, bool transposed,
                        Ints output_padding, std::int64_t groups) {
  ContractionSpec spec;
  spec.kind = transposed ? Contraction::conv_transpose : Contraction::conv;
  spec.weight = weight;
  spec.bias = bias.value_or(at::Tensor());
  spec.stride = stride.vec();
  spec.padding = padding.vec();
  spec.dilation = dilation.vec();
  spec.output_padding = output_padding.vec();
  spec.groups = groups;
  if (transposed) return spec;
  // Of no meaning here; but aten::convolution raises for what aten::conv2d, which the reference calls, has no argument for.
  const std::int64_t spatial = spec.spatial_dims();
  TORCH_CHECK(output_padding.size() == 1 || static_cast<std::int64_t>(output_padding.size()) == spatial,
              "the convolution needs output_padding of one entry, or one per spatial dimension, found ", output_padding);
  for (const std::int64_t entry : output_padding) TORCH_CHECK(entry >= 0, "the convolution needs output_padding of at least 0, found ", entry);
  spec.output_padding.assign(std::max<std::int64_t>(spatial, 1), 0);
  return spec;
}

at::Tensor conv_unpacked_cpu(const at::Tensor& x, const at::Tensor& weight, const Bias& bias, Ints stride, Ints padding, Ints dilation,
                             bool transposed, Ints output_padding, std::int64_t groups, std::string_view post_ops, at::TensorList operands) {
  return forward(x, spec_of(weight, bias, stride, padding, dilation, transposed, output_padding, groups), nullptr, post_ops, operands);
}

at::Tensor conv_unpacked_reference(const at::Tensor& x, const at::Tensor& weight, const Bias& bias, Ints stride, Ints padding, Ints dilation,
                                   bool transposed, Ints output_padding, std::int64_t groups, std::string_view post_ops,
                                   at::TensorList operands) {
  const ContractionSpec spec = spec_of(weight, bias, stride, padding, dilation, transposed, output_padding, groups);
  return reference(x, spec, nullptr, parse_post_ops(post_ops), operands);
}

at::Tensor conv_unpacked_meta(const at::Tensor& x, const at::Tensor& weight, const Bias& bias, Ints stride, Ints padding, Ints dilation,
                              bool transposed, Ints output_padding, std::int64_t groups, std::string_view post_ops, at::TensorList operands) {
  return forward_meta(x, spec_of(weight, bias, stride, padding, dilation, transposed, output_padding, groups), post_ops, operands);
}

at::Tensor conv_unpacked_autograd(const at::Tensor& x, const at::Tensor& weight, const Bias& bias, Ints stride, Ints padding, Ints dilation,
                                  bool transposed, Ints output_padding, std::int64_t groups, std::string_view post_ops,
                                  at::TensorList operands) {
  if (needs_derivative(x) || needs_derivative(weight) || needs_derivative(bias.value_or(at::Tensor())) || needs_derivative(operands))
    return conv_unpacked_reference(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, post_ops, operands);
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fusible::conv_unpacked", "").typed<decltype(conv_unpacked_cpu)>();
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return op.call(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, post_ops, operands);
}

TORCH_LIBRARY_FRAGMENT(fusible, m) {
  m.def(
      "conv_unpacked(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, bool transposed, "
      "int[] output_padding, int groups, str post_ops, Tensor[] operands) -> Tensor");
}
TORCH_LIBRARY_IMPL(fusible, CPU, m) { m.impl("conv_unpacked", conv_unpacked_cpu); }
TORCH_LIBRARY_IMPL(fusible, Meta, m) { m.impl("conv_unpacked", conv_unpacked_meta); }
TORCH_LIBRARY_IMPL(fusible, CompositeExplicitAutograd, m) { m.impl("conv_unpacked", conv_unpacked_reference); }
TORCH_LIBRARY_IMPL(fusible, Autograd, m) { m.impl("conv_unpacked", conv_unpacked_autograd); }
// Under vmap the operators that it stands for have the batching rules.
TORCH_LIBRARY_IMPL(fusible, FuncTorchBatched, m) { m.impl("conv_unpacked", conv_unpacked_reference); }

}  // namespace
}  // namespace fusible
