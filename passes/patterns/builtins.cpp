#include "passes/patterns/builtins.h"

#include <ATen/ATen.h>
#include <ATen/ScalarOps.h>

#include "fusible/fusible.h"
#include "passes/codes.h"

namespace fusible::patterns {

namespace {

std::string print_sizes(const std::vector<std::int64_t>& sizes) {
  std::string out = "[";
  for (std::size_t i = 0; i < sizes.size(); ++i) out += (i ? ", " : "") + std::to_string(sizes[i]);
  return out + "]";
}

// constant(v, ...)
std::optional<Unmet> is_constant(const Matched& match, const std::vector<std::string>& arguments) {
  for (auto& variable : arguments) {
    if (!match.constant(variable)) return Unmet{variable, variable + " known when the model is fused", "a value computed at run time"};
  }
  return std::nullopt;
}

// float(v, ...): float16, bfloat16, float32 or float64. An optional tensor that is None has no type and passes.
std::optional<Unmet> is_float(const Matched& match, const std::vector<std::string>& arguments) {
  for (auto& variable : arguments) {
    auto* value = match.constant(variable);
    if (value && value->isNone()) continue;
    auto dtype = match.dtype(variable);
    if (!dtype) return Unmet{variable, "a floating-point " + variable, "an unknown dtype"};
    if (!at::isFloatingType(*dtype)) return Unmet{variable, "a floating-point " + variable, c10::toString(*dtype)};
  }
  return std::nullopt;
}

// rank(v, n)
std::optional<Unmet> has_rank(const Matched& match, const std::vector<std::string>& arguments) {
  if (arguments.size() != 2) throw Error("needed rank(variable, number), found " + std::to_string(arguments.size()) + " arguments");
  auto sizes = match.sizes(arguments[0]);
  auto needed = arguments[0] + " with " + arguments[1] + " dimensions";
  if (!sizes) return Unmet{arguments[0], needed, "unknown sizes"};
  if (std::to_string(sizes->size()) != arguments[1]) return Unmet{arguments[0], needed, std::to_string(sizes->size())};
  return std::nullopt;
}

// shape_equal(a, b, ...)
std::optional<Unmet> shape_equal(const Matched& match, const std::vector<std::string>& arguments) {
  std::optional<std::vector<std::int64_t>> first;
  for (auto& variable : arguments) {
    auto sizes = match.sizes(variable);
    auto needed = variable + (first ? " with sizes " + print_sizes(*first) : " with known sizes");
    if (!sizes) return Unmet{variable, needed, "unknown sizes"};
    if (!first) first = sizes;
    if (*sizes != *first) return Unmet{variable, needed, print_sizes(*sizes)};
  }
  return std::nullopt;
}

at::Tensor tensor_of(const c10::IValue& value) { return value.isScalar() ? c10::scalar_to_tensor(value.toScalar()) : value.toTensor(); }

std::string needed_per_channel(const at::Tensor& weight) {
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(weight.dim()) - 1, 1);
  sizes[0] = weight.size(0);
  return "one number or " + print_sizes(sizes) + " that leaves " + c10::toString(weight.scalar_type()) + " as it is";
}

// Against what `weight`, output channel first, gives, with a batch and without: [C, 1, 1] after a convolution in two dimensions, [C] after a
// linear. One dimension more enlarges the result that has no batch; one less runs along the width. Returns what it is instead.
std::optional<std::string> not_per_channel(const at::Tensor& weight, const at::Tensor& operand) {
  const auto channel = operand.dim() - (weight.dim() - 1);
  bool along = channel <= 0;
  for (std::int64_t i = 0; i < operand.dim(); ++i) along = along && (operand.size(i) == 1 || (i == channel && operand.size(i) == weight.size(0)));
  if (!along) return print_sizes(operand.sizes().vec());
  const auto result = at::result_type(weight, operand);
  if (result != weight.scalar_type()) return std::string("a result in ") + c10::toString(result);
  return std::nullopt;
}

// per_channel(weight, v, ...): what fold_affine takes.
std::optional<Unmet> is_per_channel(const Matched& match, const std::vector<std::string>& arguments) {
  if (arguments.size() < 2) throw Error("needed per_channel(weight, variable, ...), found " + std::to_string(arguments.size()) + " arguments");
  if (auto unknown = is_constant(match, arguments)) return unknown;
  const auto weight = match.constant(arguments[0])->toTensor();
  if (weight.dim() < 2 || !at::isFloatingType(weight.scalar_type()))
    return Unmet{arguments[0], "a floating-point weight, output channel first", print_sizes(weight.sizes().vec()) + " of " + c10::toString(weight.scalar_type())};
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    const auto* value = match.constant(arguments[i]);
    if (value->isNone()) continue;
    if (auto found = not_per_channel(weight, tensor_of(*value))) return Unmet{arguments[i], arguments[i] + " as " + needed_per_channel(weight), *found};
  }
  return std::nullopt;
}

void need_arguments(const char* builder, const std::vector<c10::IValue>& arguments, std::size_t count) {
  if (arguments.size() != count) {
    throw Error(std::string("needed ") + std::to_string(count) + " arguments of " + builder + ", found " +
                std::to_string(arguments.size()));
  }
}

// w2, b2 = fold_bn(w, b, gamma, beta, mean, var, eps) for a weight whose first dimension is the output channel:
//   s = gamma / sqrt(var + eps);  w2 = w * s;  b2 = (b - mean) * s + beta, in float64, then in the weight's dtype.
std::vector<c10::IValue> fold_bn(const std::vector<c10::IValue>& arguments) {
  need_arguments("fold_bn", arguments, 7);
  auto weight = arguments[0].toTensor();
  auto wide = [&](std::size_t i) {
    return arguments[i].isNone() ? at::Tensor() : arguments[i].toTensor().to(at::kDouble);
  };
  auto bias = wide(1), gamma = wide(2), beta = wide(3), mean = wide(4), var = wide(5);
  if (!mean.defined() || !var.defined()) throw Error("needed running statistics in fold_bn, found None");
  auto scale = (var + arguments[6].toDouble()).rsqrt();
  if (gamma.defined()) scale = scale * gamma;
  auto shift = (bias.defined() ? bias - mean : -mean) * scale;
  if (beta.defined()) shift = shift + beta;
  std::vector<std::int64_t> per_row(static_cast<std::size_t>(weight.dim()), 1);
  per_row[0] = -1;
  return {(weight.to(at::kDouble) * scale.view(per_row)).to(weight.scalar_type()), shift.to(weight.scalar_type())};
}

// w2, b2 = fold_affine(w, b, scale, shift): scale * (w x + b) + shift with one scale and shift per output channel, None for neither. Throws
// where those are anything else (per_channel), since the weights would then hold other numbers than the model multiplies by.
std::vector<c10::IValue> fold_affine(const std::vector<c10::IValue>& arguments) {
  need_arguments("fold_affine", arguments, 4);
  auto weight = arguments[0].toTensor();
  if (weight.dim() < 2 || !at::isFloatingType(weight.scalar_type())) throw Error("needed a floating-point weight in fold_affine, output channel first");
  for (std::size_t i : {2, 3}) {
    auto found = arguments[i].isNone() ? std::nullopt : not_per_channel(weight, tensor_of(arguments[i]));
    if (found) throw Error(std::string("needed the ") + (i == 2 ? "scale" : "shift") + " of fold_affine as " + needed_per_channel(weight) + ", found " + *found);
  }
  if (!arguments[1].isNone() && arguments[1].toTensor().dim() > 1)
    throw Error("needed a bias with one dimension in fold_affine, found " + print_sizes(arguments[1].toTensor().sizes().vec()));
  auto wide = [&](std::size_t i, double otherwise) {
    if (arguments[i].isNone()) return at::full({weight.size(0)}, otherwise, at::kDouble);
    return tensor_of(arguments[i]).to(at::kDouble).reshape({-1}).expand({weight.size(0)});
  };
  auto bias = wide(1, 0), scale = wide(2, 1), shift = wide(3, 0);
  std::vector<std::int64_t> per_row(static_cast<std::size_t>(weight.dim()), 1);
  per_row[0] = -1;
  return {(weight.to(at::kDouble) * scale.view(per_row)).to(weight.scalar_type()), (bias * scale + shift).to(weight.scalar_type())};
}

// w = concat_rows(w1, w2, ...)
std::vector<c10::IValue> concat_rows(const std::vector<c10::IValue>& arguments) {
  std::vector<at::Tensor> rows;
  for (auto& argument : arguments) rows.push_back(argument.toTensor());
  return {at::cat(rows, 0)};
}

// t = transpose(w): the last two dimensions change places, contiguous.
std::vector<c10::IValue> transpose(const std::vector<c10::IValue>& arguments) {
  need_arguments("transpose", arguments, 1);
  return {arguments[0].toTensor().transpose(-2, -1).contiguous()};
}

}  // namespace

void register_builtins(const std::function<void(const std::string&, const std::string&, Condition)>& condition,
                       const std::function<void(const std::string&, Builder)>& builder) {
  condition("constant", codes::weight_not_constant.id, is_constant);
  condition("float", codes::dtype.id, is_float);
  condition("rank", codes::channel_mismatch.id, has_rank);
  condition("shape_equal", codes::broadcast_enlarges.id, shape_equal);
  condition("per_channel", codes::not_per_channel.id, is_per_channel);
  builder("fold_bn", fold_bn);
  builder("fold_affine", fold_affine);
  builder("concat_rows", concat_rows);
  builder("transpose", transpose);
}

}  // namespace fusible::patterns
