#pragma once
// A post-op chain on rows that are still in the first-level cache: step by step, each over the whole tile.

#include "ops/kernels/isa.h"
#include "ops/kernels/simd/math.h"

namespace fusible::kernels {
namespace {

template <typename Function>
inline void each(float* c, std::int64_t stride, std::int64_t m, std::int64_t columns, Function function) {
  const std::int64_t whole = columns / kLanes * kLanes;
  for (std::int64_t r = 0; r < m; ++r) {
    float* y = c + r * stride;
    std::int64_t n = 0;
    for (; n < whole; n += kLanes) store(y + n, function(load(y + n), r, n, kLanes));
    if (n < columns) store_part(y + n, function(load_part(y + n, columns - n), r, n, columns - n), columns - n);
  }
}

// `function(y, value)` with the step's operand at each place.
template <typename Function>
inline void each_with_operand(float* c, std::int64_t stride, std::int64_t m, std::int64_t columns, const Step& step, const float* operand,
                              Function function) {
  if (!operand) {
    const Vector value = splat(step.a);
    each(c, stride, m, columns, [&](Vector y, auto...) { return function(y, value); });
  } else if (step.column) {
    each(c, stride, m, columns, [&](Vector y, std::int64_t r, std::int64_t n, std::int64_t width) {
      const float* p = operand + r * step.row_stride + n;
      return function(y, width == kLanes ? load(p) : load_part(p, width));
    });
  } else {
    each(c, stride, m, columns, [&](Vector y, std::int64_t r, auto...) { return function(y, splat(operand[r * step.row_stride])); });
  }
}

void run_step(float* c, std::int64_t stride, std::int64_t m, std::int64_t columns, const Step& s, std::int64_t image, std::int64_t row,
              std::int64_t channel) {
  const std::int64_t at = image * s.image_stride + row * s.row_stride + channel * s.column;
  const float* operand = s.operand ? s.operand + at : nullptr;
  const auto unary = [&](auto function) { each(c, stride, m, columns, [&](Vector y, auto...) { return function(y); }); };
  const auto binary = [&](auto function) { each_with_operand(c, stride, m, columns, s, operand, function); };
  const Vector zero{}, sixth = splat(1.0f / 6), a = splat(s.a), b = splat(s.b), d = splat(s.c);
  switch (s.kind) {
    case StepKind::clamp: return unary([&](Vector y) { return at_most(at_least(y, a), b); });
    case StepKind::leaky_relu: return unary([&](Vector y) { return y > zero ? y : y * a; });
    case StepKind::sigmoid: return unary([&](Vector y) { return sigmoid(y); });
    case StepKind::tanh: return unary([&](Vector y) { return tanh(y); });
    case StepKind::silu: return unary([&](Vector y) { return silu(y); });
    case StepKind::hardswish:
      return unary([&](Vector y) { return y * at_most(at_least(y + splat(3.0f), zero), splat(6.0f)) * sixth; });
    case StepKind::hardsigmoid: return unary([&](Vector y) { return at_most(at_least(y + splat(3.0f), zero), splat(6.0f)) * sixth; });
    case StepKind::gelu_erf: return unary([&](Vector y) { return gelu_erf(y); });
    case StepKind::gelu_tanh: return unary([&](Vector y) { return gelu_tanh(y); });
    case StepKind::elu: return unary([&](Vector y) { return y > zero ? y * b : expm1(at_most(y * d, zero)) * (a * b); });
    case StepKind::mish: return unary([&](Vector y) { return mish(y); });
    case StepKind::softplus: return unary([&](Vector y) { return softplus(y, a, b); });
    case StepKind::prelu: return binary([&](Vector y, Vector v) { return y > zero ? y : y * v; });
    case StepKind::add: return binary([&](Vector y, Vector v) { return y + v; });
    case StepKind::sub: return binary([&](Vector y, Vector v) { return y - v; });
    case StepKind::rsub: return binary([&](Vector y, Vector v) { return v - y; });
    case StepKind::mul: return binary([&](Vector y, Vector v) { return y * v; });
    case StepKind::div: return binary([&](Vector y, Vector v) { return y / v; });
    case StepKind::affine:
      return each(c, stride, m, columns, [&](Vector y, std::int64_t, std::int64_t n, std::int64_t width) {
        const float* p = operand + n;
        const float* q = s.second + channel + n;
        return width == kLanes ? y * load(p) + load(q) : y * load_part(p, width) + load_part(q, width);
      });
  }
}

void run_chain(float* c, std::int64_t stride, std::int64_t m, std::int64_t columns, const Step* chain, std::int32_t steps,
               std::int64_t image, std::int64_t row, std::int64_t channel) {
  for (std::int32_t i = 0; i < steps; ++i) run_step(c, stride, m, columns, chain[i], image, row, channel);
}

}  // namespace
}  // namespace fusible::kernels
