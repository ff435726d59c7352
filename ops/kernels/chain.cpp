#include "ops/kernels/chain.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>

namespace fusible::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::optional<StepKind> unary_kind(const PostOp& op) {
  switch (op.kind) {
    case PostOpKind::relu:
    case PostOpKind::relu6:
    case PostOpKind::hardtanh:
    case PostOpKind::clamp: return StepKind::clamp;
    case PostOpKind::leaky_relu: return StepKind::leaky_relu;
    case PostOpKind::sigmoid: return StepKind::sigmoid;
    case PostOpKind::tanh: return StepKind::tanh;
    case PostOpKind::silu: return StepKind::silu;
    case PostOpKind::hardswish: return StepKind::hardswish;
    case PostOpKind::hardsigmoid: return StepKind::hardsigmoid;
    case PostOpKind::gelu: return op.gelu == Gelu::tanh ? StepKind::gelu_tanh : StepKind::gelu_erf;
    case PostOpKind::elu: return StepKind::elu;
    case PostOpKind::mish: return StepKind::mish;
    case PostOpKind::softplus: return StepKind::softplus;
    default: return std::nullopt;
  }
}

StepKind binary_kind(const PostOp& op) {
  switch (op.kind) {
    case PostOpKind::add: return StepKind::add;
    case PostOpKind::sub: return op.reversed ? StepKind::rsub : StepKind::sub;
    case PostOpKind::mul: return StepKind::mul;
    default: return StepKind::div;
  }
}

bool is_real(const std::optional<c10::Scalar>& s) { return s && !s->isComplex(); }

// What ATen makes of a number beside a tensor, in float32 and in bfloat16: the nearest float, beyond its range an infinity.
float nearest(const c10::Scalar& s) { return s.isFloatingPoint() ? static_cast<float>(s.toDouble()) : s.to<float>(); }

// As an argument of an activation ATen refuses a number beyond the range of the result's dtype.
bool is_in_range(const std::optional<c10::Scalar>& s) {
  constexpr double kMost = 0x1.fep127;  // of bfloat16
  return !s || std::isinf(s->toDouble()) || !(std::abs(s->toDouble()) > kMost);
}

// Where y * input_scale has y's sign and no product is 0 * inf, so that the smaller of it and 0 is what expm1 is taken of.
bool is_plain_elu(const Step& s) { return s.c >= 0 && std::isfinite(s.c) && std::isfinite(s.a) && std::isfinite(s.b) && std::isfinite(s.a * s.b); }

// log1p(e^z) is infinite in ATen where e^z is, from 88.72 on, if z is not beyond the threshold.
bool is_plain_softplus(const Step& s) { return s.b <= 88; }

}  // namespace

std::int64_t View::rows() const {
  std::int64_t rows = 1;
  for (size_t i = sizes.size() > 2 ? 1 : 0; i < sizes.size(); ++i)
    if (static_cast<std::int64_t>(i) != channel_dim) rows *= sizes[i];
  return rows;
}

std::optional<Chain> Chain::plan(const PostOps& steps, const std::vector<Operand>& operands, const View& y) {
  Chain chain;
  size_t next = 0;
  for (const PostOp& op : steps) {
    if (next + op.operands > operands.size() || !chain.add(op, operands.data() + next, next, y)) return std::nullopt;
    next += op.operands;
  }
  if (next != operands.size()) return std::nullopt;
  return chain;
}

bool Chain::add(const PostOp& op, const Operand* operands, size_t index, const View& y) {
  // c / y: where y is near 0 a rounding of y, which is not ATen's to the bit, has no bound in the result.
  if (op.kind == PostOpKind::div && op.reversed) return false;
  if (op.kind == PostOpKind::batch_norm) return add_batch_norm(op, operands, y);
  if (op.kind == PostOpKind::prelu) {
    // One slope, or one per channel, which ATen takes along dimension 1.
    const bool per_channel = operands->defined && operands->sizes.size() == 1 && operands->sizes[0] == y.channels() && y.channel_dim == 1;
    const bool single = operands->defined && operands->sizes.size() <= 1 && c10::multiply_integers(operands->sizes) == 1;
    if (!per_channel && !single) return false;
    Operand slope = *operands;
    const std::vector<std::int64_t> sizes = {single ? 1 : y.channels(), 1, 1, 1};
    const std::vector<std::int64_t> strides = {operands->sizes.empty() ? 1 : operands->strides[0], 1, 1, 1};
    const size_t trailing = y.sizes.size() - 1 - y.channel_dim;
    if (trailing > 3) return false;
    slope.sizes = at::IntArrayRef(sizes).slice(0, 1 + trailing);
    slope.strides = at::IntArrayRef(strides).slice(0, 1 + trailing);
    return add_operand(StepKind::prelu, slope, index, y);
  }
  if (op.is_binary() && op.operands) return add_operand(binary_kind(op), *operands, index, y);
  for (const auto& s : op.scalars)
    if (s && s->isComplex()) return false;
  Step step{};
  const auto number = [&](size_t i) { return op.scalars[i]->to<float>(); };
  if (op.is_binary()) {
    if (!is_real(op.scalars[0])) return false;
    step.kind = binary_kind(op);
    step.a = nearest(*op.scalars[0]);
    if (std::isfinite(step.a) && !is_in_range(op.scalars[0])) return false;  // in place an infinity of bfloat16
  } else {
    if (!std::all_of(op.scalars.begin(), op.scalars.end(), is_in_range)) return false;
    step.kind = *unary_kind(op);
    switch (op.kind) {
      case PostOpKind::relu: step.b = kInfinity; break;
      case PostOpKind::relu6: step.b = 6; break;
      case PostOpKind::clamp:
        step.a = op.scalars[0] ? number(0) : -kInfinity;
        step.b = op.scalars[1] ? number(1) : kInfinity;
        break;
      case PostOpKind::leaky_relu: step.a = number(0); break;
      case PostOpKind::hardtanh:
      case PostOpKind::softplus:
        step.a = number(0);
        step.b = number(1);
        break;
      case PostOpKind::elu:
        step.a = number(0);
        step.b = number(1);
        step.c = number(2);
        break;
      default: break;
    }
    // A NaN bound makes every element NaN in ATen.
    if (step.kind == StepKind::clamp && !(step.a == step.a && step.b == step.b)) return false;
    if ((step.kind == StepKind::elu && !is_plain_elu(step)) || (step.kind == StepKind::softplus && !is_plain_softplus(step))) return false;
  }
  steps_.push_back(step);
  operand_of_.push_back(-1);
  return true;
}

bool Chain::add_operand(StepKind kind, const Operand& operand, size_t index, const View& y) {
  const size_t rank = y.sizes.size();
  if (!operand.defined || operand.dtype != at::kFloat || operand.sizes.size() > rank) return false;
  std::vector<std::int64_t> stride(rank, 0);
  for (size_t i = 0; i < operand.sizes.size(); ++i) {
    const size_t d = rank - operand.sizes.size() + i;
    if (operand.sizes[i] != 1 && operand.sizes[i] != y.sizes[d]) return false;
    stride[d] = operand.sizes[i] == 1 ? 0 : operand.strides[i];
  }
  Step step{};
  step.kind = kind;
  if (stride[y.channel_dim] > 1) return false;
  step.column = stride[y.channel_dim];
  // The row dimensions, innermost first, must be one run of memory or one value.
  bool first = true;
  std::int64_t next = 0;
  for (size_t d = rank; d-- > (rank > 2 ? 1u : 0u);) {
    if (static_cast<std::int64_t>(d) == y.channel_dim || y.sizes[d] == 1) continue;
    if (first)
      step.row_stride = stride[d];
    else if (stride[d] != next)
      return false;
    next = stride[d] * y.sizes[d];
    first = false;
  }
  step.image_stride = rank > 2 && y.sizes[0] != 1 ? stride[0] : 0;
  steps_.push_back(step);
  operand_of_.push_back(static_cast<std::int64_t>(index));
  return true;
}

// weight * (y - mean) / sqrt(var + eps) + bias as y * scale + shift.
bool Chain::add_batch_norm(const PostOp& op, const Operand* operands, const View& y) {
  if (y.channel_dim != 1) return false;
  if (!is_in_range(op.scalars[0])) return false;
  for (int i = 0; i < 4; ++i) {
    if (!operands[i].defined) {
      if (i >= 2) return false;
      continue;
    }
    if (!operands[i].constant || operands[i].dtype != at::kFloat || operands[i].sizes.size() != 1 || operands[i].sizes[0] != y.channels())
      return false;
  }
  const auto given = [&](int i) { return operands[i].constant->to(at::kDouble); };
  at::Tensor scale = (given(3) + op.scalars[0]->toDouble()).rsqrt();
  if (operands[0].defined) scale = scale * given(0);
  at::Tensor shift = -given(2) * scale;
  if (operands[1].defined) shift = shift + given(1);
  Step step{};
  step.kind = StepKind::affine;
  step.column = 1;
  constants_.push_back(scale.to(at::kFloat).contiguous());
  step.operand = constants_.back().const_data_ptr<float>();
  constants_.push_back(shift.to(at::kFloat).contiguous());
  step.second = constants_.back().const_data_ptr<float>();
  steps_.push_back(step);
  operand_of_.push_back(-1);
  return true;
}

bool Chain::rows_collapse(std::int64_t rows_per_image) const {
  for (size_t i = 0; i < steps_.size(); ++i)
    if (operand_of_[i] >= 0 && steps_[i].image_stride != rows_per_image * steps_[i].row_stride) return false;
  return true;
}

void Chain::bind(const float* const* data, std::vector<Step>& steps) const {
  steps.assign(steps_.begin(), steps_.end());
  for (size_t i = 0; i < steps.size(); ++i)
    if (operand_of_[i] >= 0) steps[i].operand = data[operand_of_[i]];
}

}  // namespace fusible::kernels
