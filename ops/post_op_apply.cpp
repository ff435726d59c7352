#include <algorithm>

#include <ATen/ATen.h>
#include <c10/util/strides.h>

#include "ops/post_op.h"
#include "ops/post_op_in_place.h"

namespace fusible {
namespace {

// A reversed step by a number as TorchScript compiles it: c - y is rsub(y, c), c / y is reciprocal(y) * c.
at::Tensor binary(const at::Tensor& y, const PostOp& step, const c10::Scalar& number) {
  switch (step.kind) {
    case PostOpKind::add: return at::add(y, number);
    case PostOpKind::sub: return step.reversed ? at::rsub(y, number) : at::sub(y, number);
    case PostOpKind::mul: return at::mul(y, number);
    default: return step.reversed ? at::mul(at::reciprocal(y), number) : at::div(y, number);
  }
}

at::Tensor binary(const at::Tensor& y, const PostOp& step, const at::Tensor& other) {
  const at::Tensor& left = step.reversed ? other : y;
  const at::Tensor& right = step.reversed ? y : other;
  switch (step.kind) {
    case PostOpKind::add: return at::add(left, right);
    case PostOpKind::sub: return at::sub(left, right);
    case PostOpKind::mul: return at::mul(left, right);
    default: return at::div(left, right);
  }
}

template <typename Other>
at::Tensor& binary_(at::Tensor& y, const PostOp& step, const Other& other) {
  switch (step.kind) {
    case PostOpKind::add: return y.add_(other);
    case PostOpKind::sub: return y.sub_(other);
    case PostOpKind::mul: return y.mul_(other);
    default: return y.div_(other);
  }
}

at::Tensor gelu(const at::Tensor& y, Gelu form) {
  if (form == Gelu::erf) return y * 0.5 * (at::erf(y / M_SQRT2) + 1);
  return at::gelu(y, form == Gelu::tanh ? "tanh" : "none");
}

at::Tensor activation(const at::Tensor& y, const PostOp& step, at::TensorList operands) {
  const auto& s = step.scalars;
  switch (step.kind) {
    case PostOpKind::relu: return at::relu(y);
    case PostOpKind::relu6: return at::relu6(y);
    case PostOpKind::hardtanh: return at::hardtanh(y, *s[0], *s[1]);
    case PostOpKind::clamp: return at::clamp(y, s[0], s[1]);
    case PostOpKind::leaky_relu: return at::leaky_relu(y, *s[0]);
    case PostOpKind::sigmoid: return at::sigmoid(y);
    case PostOpKind::tanh: return at::tanh(y);
    case PostOpKind::silu: return at::silu(y);
    case PostOpKind::hardswish: return at::hardswish(y);
    case PostOpKind::hardsigmoid: return at::hardsigmoid(y);
    case PostOpKind::gelu: return gelu(y, step.gelu);
    case PostOpKind::elu: return at::elu(y, *s[0], *s[1], *s[2]);
    case PostOpKind::mish: return at::mish(y);
    case PostOpKind::softplus: return at::softplus(y, *s[0], *s[1]);
    case PostOpKind::prelu: return at::prelu(y, operands[0]);
    default: break;
  }
  const auto given = [&](int i) { return operands[i].defined() ? std::optional<at::Tensor>(operands[i]) : std::nullopt; };
  return at::batch_norm(y, given(0), given(1), given(2), given(3), /*training=*/false, /*momentum=*/0, s[0]->toDouble(),
                        at::globalContext().userEnabledCuDNN());
}

void activation_(at::Tensor& y, const PostOp& step) {
  const auto& s = step.scalars;
  switch (step.kind) {
    case PostOpKind::relu: at::relu_(y); return;
    case PostOpKind::relu6: at::relu6_(y); return;
    case PostOpKind::hardtanh: at::hardtanh_(y, *s[0], *s[1]); return;
    case PostOpKind::clamp: at::clamp_(y, s[0], s[1]); return;
    case PostOpKind::leaky_relu: at::leaky_relu_(y, *s[0]); return;
    case PostOpKind::sigmoid: at::sigmoid_(y); return;
    case PostOpKind::tanh: at::tanh_(y); return;
    case PostOpKind::silu: at::silu_(y); return;
    case PostOpKind::hardswish: at::hardswish_(y); return;
    case PostOpKind::hardsigmoid: at::hardsigmoid_(y); return;
    case PostOpKind::gelu: at::gelu_(y, step.gelu == Gelu::tanh ? "tanh" : "none"); return;
    case PostOpKind::elu: at::elu_(y, *s[0], *s[1], *s[2]); return;
    case PostOpKind::mish: at::mish_(y); return;
    default: at::softplus_out(y, y, *s[0], *s[1]); return;
  }
}

at::Tensor apply_step(at::Tensor y, const PostOp& step, at::TensorList operands) {
  if (!step.is_binary() && !step.in_place) return activation(y, step, operands);
  if (!step.is_binary()) {
    activation_(y, step);
    return y;
  }
  if (step.in_place) return step.operands ? binary_(y, step, operands[0]) : binary_(y, step, *step.scalars[0]);
  return step.operands ? binary(y, step, operands[0]) : binary(y, step, *step.scalars[0]);
}

bool has_in_place_form(const PostOp& step) {
  return step.kind != PostOpKind::prelu && step.kind != PostOpKind::batch_norm && step.gelu != Gelu::erf;
}

// Two dimensions of one stride: one of them has size 1.
bool has_equal_strides(const at::Tensor& y) {
  for (std::int64_t i = 1; i < y.dim(); ++i)
    if (std::find(y.strides().begin(), y.strides().begin() + i, y.stride(i)) != y.strides().begin() + i) return true;
  return false;
}

// Out of place, TensorIterator lets its first operand decide the strides, and the next one where the first has equal strides; y is dense,
// so a result of y's shape and dtype gets y's.
bool keeps_shape_dtype_and_strides(const at::Tensor& y, const PostOp& step, at::TensorList operands) {
  if (!step.is_binary()) return true;
  // In place ATen rounds a number to bfloat16 before it multiplies, out of place to float.
  if (!step.operands) return !step.reversed && !step.scalars[0]->isComplex() && !at::isReducedFloatingType(y.scalar_type());
  const at::Tensor& other = operands[0];
  if (!other.defined() || other.layout() != at::kStrided || other.device() != y.device() || other.dim() > y.dim() ||
      at::result_type(y, other) != y.scalar_type())
    return false;
  if (step.reversed)
    return (step.kind == PostOpKind::add || step.kind == PostOpKind::mul) &&
           (other.dim() == 0 || (other.sizes() == y.sizes() && other.strides() == y.strides()));
  if (other.dim() > 0 && other.strides() != y.strides() && has_equal_strides(y)) return false;
  for (std::int64_t i = 1; i <= other.dim(); ++i)
    if (other.size(-i) != 1 && other.size(-i) != y.size(-i)) return false;
  return true;
}

at::Tensor apply_step_in_place(at::Tensor y, const PostOp& step, at::TensorList operands) {
  if ((step.is_binary() && step.in_place) || !has_in_place_form(step) || !at::isFloatingType(y.scalar_type()) ||
      !y.is_non_overlapping_and_dense() || !keeps_shape_dtype_and_strides(y, step, operands))
    return apply_step(std::move(y), step, operands);
  if (!step.is_binary())
    activation_(y, step);
  else if (step.operands)
    binary_(y, step, operands[0]);
  else
    binary_(y, step, *step.scalars[0]);
  return y;
}

void check_operands(const PostOps& chain, at::TensorList operands) {
  size_t needed = 0;
  for (const PostOp& step : chain) needed += step.operands;
  TORCH_CHECK(needed == operands.size(), "post_ops needs ", needed, " operands, found ", operands.size());
}

}  // namespace

at::Tensor apply_post_ops(at::Tensor y, const PostOps& chain, at::TensorList operands) {
  check_operands(chain, operands);
  for (const PostOp& step : chain) {
    y = apply_step(std::move(y), step, operands.slice(0, step.operands));
    operands = operands.slice(step.operands);
  }
  return y;
}

at::Tensor with_strides_after(at::Tensor y, const PostOps& chain, at::TensorList operands) {
  if (chain.empty() || y.numel() == 0 || y.dim() < 4 || !y.is_contiguous()) return y;
  const auto canonical = c10::contiguous_strides(y.sizes());
  if (y.strides() == at::IntArrayRef(canonical)) return y;
  const at::Tensor like = apply_post_ops(y.clone(), chain, operands);
  return like.strides() == y.strides() || like.sizes() != y.sizes() ? y : y.as_strided(y.sizes(), like.strides());
}

at::Tensor with_strides_after_fold(at::Tensor y, const PostOps& folded, at::TensorList operands) {
  // Of three dimensions batch_norm makes a contiguous tensor whatever it is given (at::empty_like in its suggested format).
  const auto normalizes = [](const PostOp& step) { return step.kind == PostOpKind::batch_norm; };
  if (y.dim() == 3 && std::any_of(folded.begin(), folded.end(), normalizes)) return y.contiguous();
  return with_strides_after(std::move(y), folded, operands);
}

at::Tensor apply_post_ops_in_place(at::Tensor y, const PostOps& chain, at::TensorList operands, size_t first) {
  check_operands(chain, operands);
  for (size_t i = 0; i < chain.size(); ++i) {
    if (i >= first) y = apply_step_in_place(std::move(y), chain[i], operands.slice(0, chain[i].operands));
    operands = operands.slice(chain[i].operands);
  }
  return y;
}

}  // namespace fusible
