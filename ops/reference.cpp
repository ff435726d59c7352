#include "ops/reference.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "ops/post_op_in_place.h"

namespace fusible {
namespace {

at::Tensor conv(const at::Tensor& x, const ContractionSpec& s, const at::Tensor& w, const std::optional<at::Tensor>& b) {
  if (!s.padding_mode.empty()) {
    switch (s.spatial_dims()) {
      case 1: return at::conv1d(x, w, b, s.stride, s.padding_mode, s.dilation, s.groups);
      case 2: return at::conv2d(x, w, b, s.stride, s.padding_mode, s.dilation, s.groups);
      default: return at::conv3d(x, w, b, s.stride, s.padding_mode, s.dilation, s.groups);
    }
  }
  switch (s.spatial_dims()) {
    case 1: return at::conv1d(x, w, b, s.stride, s.padding, s.dilation, s.groups);
    case 2: return at::conv2d(x, w, b, s.stride, s.padding, s.dilation, s.groups);
    default: return at::conv3d(x, w, b, s.stride, s.padding, s.dilation, s.groups);
  }
}

at::Tensor conv_transpose(const at::Tensor& x, const ContractionSpec& s, const at::Tensor& w, const std::optional<at::Tensor>& b) {
  switch (s.spatial_dims()) {
    case 1: return at::conv_transpose1d(x, w, b, s.stride, s.padding, s.output_padding, s.groups, s.dilation);
    case 2: return at::conv_transpose2d(x, w, b, s.stride, s.padding, s.output_padding, s.groups, s.dilation);
    default: return at::conv_transpose3d(x, w, b, s.stride, s.padding, s.output_padding, s.groups, s.dilation);
  }
}

// z = F0(x) / scale + bias, in double so that only the fold's own rounding is left; F0 is the contraction with folded weights and no bias.
at::Tensor unfold(const at::Tensor& y, const ContractionSpec& spec) {
  std::vector<std::int64_t> shape(y.dim(), 1);
  shape[spec.kind == Contraction::linear ? y.dim() - 1 : y.dim() - 1 - spec.spatial_dims()] = spec.out_channels();
  const auto along_channels = [&](const at::Tensor& t) { return t.to(y.device(), at::kDouble).view(shape); };
  return (y.to(at::kDouble) / along_channels(spec.fold_scale) + along_channels(bias_before_fold(spec))).to(y.scalar_type());
}

at::Tensor unfolded_contraction(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed) {
  if (spec.unfolded_weight.defined()) return contract(x, spec, spec.unfolded_weight, spec.unfolded_bias);
  TORCH_CHECK(spec.fold_scale.ne(0).all().item<bool>(),
              "fusible: an input of rank ", x.dim(), " needs the weights as they were before \"", spec.folded_ops,
              "\" was folded into them, found a fold by zero: fuse the model with strict=True");
  return unfold(contract(x, spec, dense_weight(spec, packed), at::Tensor()), spec);
}

}  // namespace

at::Tensor bias_before_fold(const ContractionSpec& spec) {
  return spec.unfolded_bias.defined() ? spec.unfolded_bias : (spec.bias.to(at::kDouble) - spec.fold_shift) / spec.fold_scale;
}

at::Tensor contract(const at::Tensor& x, const ContractionSpec& spec, const at::Tensor& weight, const at::Tensor& bias) {
  const auto b = bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  switch (spec.kind) {
    case Contraction::conv: return conv(x, spec, weight, b);
    case Contraction::conv_transpose: return conv_transpose(x, spec, weight, b);
    default: return at::linear(x, weight, b);
  }
}

void check_rank(const at::Tensor& x, const ContractionSpec& spec) {
  TORCH_CHECK(spec.expected_rank == 0 || x.dim() == spec.expected_rank, "fusible::linear needs an input of ", spec.expected_rank,
              " dimensions as the fused aten::addmm did, found shape ", x.sizes());
}

bool fold_is_valid(const at::Tensor& x, const ContractionSpec& spec) {
  if (spec.folded_ops.empty()) return true;
  if (spec.kind != Contraction::linear) return x.dim() == spec.spatial_dims() + 2;
  const PostOps& folded = parse_post_ops(spec.folded_ops);
  if (std::any_of(folded.begin(), folded.end(), [](const PostOp& step) { return step.kind == PostOpKind::batch_norm; })) return x.dim() == 2;
  return std::all_of(spec.folded_operands.begin(), spec.folded_operands.end(), [&](const at::Tensor& operand) { return operand.dim() <= x.dim(); });
}

at::Tensor reference(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const PostOps& chain, at::TensorList operands) {
  check_rank(x, spec);
  const PostOps& folded = parse_post_ops(spec.folded_ops);
  const at::Tensor y = fold_is_valid(x, spec)
                           ? with_strides_after_fold(contract(x, spec, dense_weight(spec, packed), spec.bias), folded, spec.folded_operands)
                           : apply_post_ops(unfolded_contraction(x, spec, packed), folded, spec.folded_operands);
  return apply_post_ops(y, chain, operands);
}

}  // namespace fusible
