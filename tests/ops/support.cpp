#include "tests/ops/support.h"

#include <ATen/core/dispatch/Dispatcher.h>

namespace fusible::testing {
namespace {

const char* op_name(Contraction kind) {
  switch (kind) {
    case Contraction::conv: return "fusible::conv";
    case Contraction::conv_transpose: return "fusible::conv_transpose";
    default: return "fusible::linear";
  }
}

at::Tensor contraction(const ContractionSpec& s, const at::Tensor& x) {
  const auto b = s.bias.defined() ? std::optional(s.bias) : std::nullopt;
  const auto rank = s.weight.dim();
  if (s.kind == Contraction::linear) return at::linear(x, s.weight, b);
  if (s.kind == Contraction::conv_transpose) {
    if (rank == 3) return at::conv_transpose1d(x, s.weight, b, s.stride, s.padding, s.output_padding, s.groups, s.dilation);
    if (rank == 4) return at::conv_transpose2d(x, s.weight, b, s.stride, s.padding, s.output_padding, s.groups, s.dilation);
    return at::conv_transpose3d(x, s.weight, b, s.stride, s.padding, s.output_padding, s.groups, s.dilation);
  }
  if (!s.padding_mode.empty()) {
    if (rank == 3) return at::conv1d(x, s.weight, b, s.stride, s.padding_mode, s.dilation, s.groups);
    if (rank == 4) return at::conv2d(x, s.weight, b, s.stride, s.padding_mode, s.dilation, s.groups);
    return at::conv3d(x, s.weight, b, s.stride, s.padding_mode, s.dilation, s.groups);
  }
  if (rank == 3) return at::conv1d(x, s.weight, b, s.stride, s.padding, s.dilation, s.groups);
  if (rank == 4) return at::conv2d(x, s.weight, b, s.stride, s.padding, s.dilation, s.groups);
  return at::conv3d(x, s.weight, b, s.stride, s.padding, s.dilation, s.groups);
}

at::Tensor weight_of(std::vector<std::int64_t> shape, at::ScalarType dtype) {
  std::int64_t fan_in = 1;
  for (size_t i = 1; i < shape.size(); ++i) fan_in *= shape[i];
  return (at::randn(shape, at::kDouble) / std::sqrt(static_cast<double>(std::max<std::int64_t>(fan_in, 1)))).to(dtype);
}

}  // namespace

at::Tensor call(const c10::intrusive_ptr<PackedContraction>& packed, const at::Tensor& x, const std::string& post_ops,
                const std::vector<at::Tensor>& operands) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(op_name(packed->spec().kind), "");
  std::vector<c10::IValue> stack{x, packed, post_ops, operands};
  op.callBoxed(stack);
  return stack.at(0).toTensor();
}

at::Tensor call(const ContractionSpec& spec, const at::Tensor& x, const std::string& post_ops, const std::vector<at::Tensor>& operands) {
  return call(make_packed(spec), x, post_ops, operands);
}

at::Tensor call_unpacked(const ContractionSpec& s, const at::Tensor& x, const std::string& post_ops, const std::vector<at::Tensor>& operands) {
  const bool linear = s.kind == Contraction::linear;
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(linear ? "fusible::linear_unpacked" : "fusible::conv_unpacked", "");
  std::vector<c10::IValue> stack{x, s.weight, s.bias.defined() ? c10::IValue(s.bias) : c10::IValue()};
  if (!linear)
    for (c10::IValue argument : {c10::IValue(s.stride), c10::IValue(s.padding), c10::IValue(s.dilation),
                                 c10::IValue(s.kind == Contraction::conv_transpose), c10::IValue(s.output_padding), c10::IValue(s.groups)})
      stack.push_back(std::move(argument));
  stack.emplace_back(post_ops);
  stack.emplace_back(operands);
  op.callBoxed(stack);
  return stack.at(0).toTensor();
}

at::Tensor expected(const ContractionSpec& spec, const at::Tensor& x, const std::string& post_ops, const std::vector<at::Tensor>& operands) {
  return apply_post_ops(contraction(spec, x), parse_post_ops(post_ops), operands);
}

ContractionSpec conv_spec(std::int64_t in, std::int64_t out, std::vector<std::int64_t> kernel, std::int64_t groups, std::int64_t stride,
                          std::int64_t padding, std::int64_t dilation, at::ScalarType dtype) {
  ContractionSpec spec;
  const size_t spatial = kernel.size();
  std::vector<std::int64_t> shape{out, in / groups};
  shape.insert(shape.end(), kernel.begin(), kernel.end());
  spec.weight = weight_of(shape, dtype);
  spec.bias = at::randn({out}, at::kDouble).to(dtype);
  spec.stride.assign(spatial, stride);
  spec.padding.assign(spatial, padding);
  spec.dilation.assign(spatial, dilation);
  spec.output_padding.assign(spatial, 0);
  spec.groups = groups;
  return spec;
}

ContractionSpec conv_transpose_spec(std::int64_t in, std::int64_t out, std::vector<std::int64_t> kernel, std::int64_t groups, std::int64_t stride,
                                    std::int64_t padding, std::int64_t output_padding, at::ScalarType dtype) {
  ContractionSpec spec = conv_spec(out, in, kernel, groups, stride, padding, 1, dtype);
  spec.kind = Contraction::conv_transpose;
  spec.bias = at::randn({out}, at::kDouble).to(dtype);
  spec.output_padding.assign(kernel.size(), output_padding);
  return spec;
}

ContractionSpec linear_spec(std::int64_t in, std::int64_t out, at::ScalarType dtype) {
  ContractionSpec spec;
  spec.kind = Contraction::linear;
  spec.weight = weight_of({out, in}, dtype);
  spec.bias = at::randn({out}, at::kDouble).to(dtype);
  return spec;
}

::testing::AssertionResult same_layout(const at::Tensor& actual, const at::Tensor& wanted) {
  const auto failure = [] { return ::testing::AssertionFailure(); };
  if (actual.scalar_type() != wanted.scalar_type()) return failure() << "dtype " << actual.scalar_type() << ", wanted " << wanted.scalar_type();
  if (actual.sizes() != wanted.sizes()) return failure() << "shape " << actual.sizes() << ", wanted " << wanted.sizes();
  if (wanted.numel())
    for (std::int64_t i = 0; i < wanted.dim(); ++i)
      if (wanted.size(i) > 1 && actual.stride(i) != wanted.stride(i))
        return failure() << "strides " << actual.strides() << ", wanted " << wanted.strides() << " for shape " << wanted.sizes();
  if (actual.is_contiguous() != wanted.is_contiguous()) return failure() << "is_contiguous " << actual.is_contiguous();
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult same(const at::Tensor& actual, const at::Tensor& wanted, double tolerance) {
  if (auto layout = same_layout(actual, wanted); !layout) return layout;
  const auto a = actual.detach().to(at::kDouble), w = wanted.detach().to(at::kDouble);
  if (!at::equal(a.isnan(), w.isnan())) return ::testing::AssertionFailure() << "NaN masks differ";
  if (!at::equal(a.isinf().logical_and(a.gt(0)), w.isinf().logical_and(w.gt(0))) || !at::equal(a.isinf(), w.isinf()))
    return ::testing::AssertionFailure() << "Inf masks differ";
  if (w.numel() == 0) return ::testing::AssertionSuccess();
  const auto finite = w.isfinite();
  const double largest = at::where(finite, w.abs(), 0).max().item<double>();
  const double error = at::where(finite, (a - w).abs(), 0).max().item<double>();
  if (error > tolerance * std::max(largest, 1e-30)) return ::testing::AssertionFailure() << "error " << error << " where the largest value is " << largest;
  return ::testing::AssertionSuccess();
}

}  // namespace fusible::testing
