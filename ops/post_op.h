#pragma once

// A post-op chain: what a fused operator does to the contraction's result, step by step, on fresh memory.
//
// Text form, the `post_ops` argument of every fused operator: steps joined by "|", each `name` or `name(arg, arg)`.
//   ""                            nothing
//   "relu"                        at::relu
//   "add|relu"                    y + operands[0], then relu
//   "leaky_relu(0.2)", "hardtanh(0, 6)", "clamp(none, 3)", "gelu(tanh)", "elu(1, 1, 1)", "softplus(1, 20)"
//   "batch_norm(1e-05)"           operands: weight, bias, running_mean, running_var (an absent one is an undefined tensor)
//   "mul(0.5)"                    scalar operand in the text;   "mul": tensor operand
// Binary steps: add sub mul div, in-place twins add_ sub_ mul_ div_ (result keeps y's dtype, shape and strides), and reversed radd rsub
// rmul rdiv (operand on the left). Each tensor operand is taken from `operands` in order. Activations without operands have in-place twins
// too (relu_), which keep all of y's strides: those of dimensions of size 1 decide the layout of the next operator.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Scalar.h>

#include "fusible/export.h"

namespace fusible {

enum class PostOpKind : std::uint8_t {
  relu, relu6, hardtanh, clamp, leaky_relu, sigmoid, tanh, silu, hardswish, hardsigmoid, gelu, elu, mish, softplus, prelu,
  add, sub, mul, div, batch_norm,
};

// gelu(none) and gelu(tanh) are aten::gelu's; gelu(erf) is y * 0.5 * (1 + erf(y / sqrt(2))), operator by operator.
enum class Gelu : std::uint8_t { none, tanh, erf };

struct PostOp {
  PostOpKind kind;
  bool in_place = false;           // add_, relu_
  bool reversed = false;           // binary only: operand on the left
  std::vector<std::optional<c10::Scalar>> scalars;  // in the order of the ATen schema; nullopt is None
  Gelu gelu = Gelu::none;
  int operands = 0;                // tensors taken from the operand list

  bool is_binary() const { return kind >= PostOpKind::add && kind <= PostOpKind::div; }
};

using PostOps = std::vector<PostOp>;

// Parsed chains are cached for the life of the process (they come from graph constants, so their number is bounded by the models loaded).
// Thread-safe. Throws c10::ValueError naming the step that is not known.
FUSIBLE_API const PostOps& parse_post_ops(std::string_view text);
FUSIBLE_API std::string print_post_op(const PostOp& step);

// The chain by ATen operators, exactly as the unfused model computes it. `y` is fresh. Differentiable.
FUSIBLE_API at::Tensor apply_post_ops(at::Tensor y, const PostOps& chain, at::TensorList operands);

}  // namespace fusible
