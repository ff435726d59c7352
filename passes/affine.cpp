#include <charconv>

#include "ops/post_op.h"
#include "passes/chain.h"

namespace fusible {

namespace {

at::Tensor wide(const at::Tensor& t) { return t.detach().to(at::kDouble).reshape({-1}); }

// [O] float64 from a constant that broadcasts over the result along its channel axis alone; undefined when it does not.
// `axis` is counted from the right, as broadcasting does: [1, C] against a 4-D result is the width, not the channels.
at::Tensor per_channel(const at::Tensor& constant, std::int64_t axis, std::int64_t channels) {
  if (constant.numel() == 1) return wide(constant).expand({channels}).contiguous();
  const std::int64_t position = constant.dim() + axis;
  if (position < 0 || constant.size(position) != channels || constant.numel() != channels) return {};
  return wide(constant);
}

// A weight times a larger number, or a sum of such, may be an infinity where the result of the steps one by one is none.
bool is_foldable(const Affine& affine) { return at::maximum(affine.scale.abs(), affine.shift.abs()).le(0x1p40).all().item<bool>(); }

std::optional<double> number(const c10::IValue& value) {
  if (value.isInt()) return static_cast<double>(value.toInt());
  if (value.isDouble()) return value.toDouble();
  return std::nullopt;
}

}  // namespace

std::string scalar_text(const c10::IValue& value) {
  if (value.isNone()) return "none";
  if (value.isBool()) return value.toBool() ? "true" : "false";
  if (value.isInt()) return std::to_string(value.toInt());
  if (value.isString()) return value.toStringRef();
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value.toDouble()).ptr;
  std::string printed(text, end);
  // An integral double stays a double: ATen's result type may depend on it.
  if (printed.find_first_of(".en") == std::string::npos) printed += ".0";
  return printed;
}

bool is_step(const std::string& text, int operands) {
  try {
    const PostOps& steps = parse_post_ops(text);
    return steps.size() == 1 && steps[0].operands == operands;
  } catch (const c10::Error&) {
    return false;
  }
}

Decided<Affine> batch_norm_affine(const patterns::View& view, const ContractionSpec& spec, const Facts& facts) {
  // First: without statistics eval() changes nothing (track_running_stats=False exports training=True in eval mode).
  const auto absent = [](const Value* value) { return value->type()->kind() == c10::TypeKind::NoneType; };
  Value* mean_value = view["running_mean"];
  Value* var_value = view["running_var"];
  const auto none = [&](Value* value) { const auto* c = facts.constant(value); return absent(value) || (c && c->isNone()); };
  if (none(mean_value) || none(var_value))
    return Decline{codes::no_running_statistics, "batch_norm with running statistics", "batch_norm has none: it normalizes with those of each batch",
                   "train with track_running_stats=True, or keep it: its result depends on the batch",
                   {Fix::Kind::model_edit, "BatchNorm(..., track_running_stats=True)", false}};
  const auto* training = facts.constant(view["training"]);
  if (!training || !training->isBool() || training->toBool())
    return Decline{codes::training_batch_norm, "batch_norm with training=False", training ? "batch_norm runs in training mode" : "the mode of batch_norm is decided at run time",
                   "call eval() on the whole model before it is scripted, traced or saved",
                   {Fix::Kind::call, "model.eval()", false}};
  const std::int64_t channels = spec.out_channels();
  std::vector<at::Tensor> operands;  // weight, bias, running_mean, running_var
  for (const char* role : {"weight", "bias", "running_mean", "running_var"}) {
    Value* value = view[role];
    if (none(value)) {
      operands.emplace_back();
      continue;
    }
    const auto* tensor = facts.constant_tensor(value);
    if (!tensor)
      return Decline{facts.is_written(value) || value->node()->kind() == torch::jit::prim::GetAttr ? codes::weight_written : codes::operand_not_constant,
                     std::string("a constant ") + role, std::string(role) + " is computed or written at run time", "make it a parameter that no method writes", {}};
    if (tensor->numel() != channels)
      return Decline{codes::channel_mismatch, "as many features as the contraction has output channels (" + std::to_string(channels) + ")",
                     "batch_norm has " + std::to_string(tensor->numel()), "nothing: the model raises here for batched input", {}};
    if (tensor->scalar_type() != spec.weight.scalar_type())
      return Decline{codes::dtype, std::string("batch_norm parameters of the weight's dtype ") + c10::toString(spec.weight.scalar_type()),
                     std::string(role) + " is " + c10::toString(tensor->scalar_type()), "convert the whole model with one .to(dtype)", {}};
    operands.push_back(*tensor);
  }
  const auto* eps = facts.constant(view["eps"]);
  const auto eps_number = eps ? number(*eps) : std::nullopt;
  if (!eps_number)
    return Decline{codes::dynamic_attribute, "eps known when the model is fused", "eps is computed at run time", "give eps as a number", {}};
  // y = (x - mean) / sqrt(var + eps) * weight + bias
  Affine affine;
  affine.scale = at::rsqrt(wide(operands[3]) + *eps_number);
  if (operands[0].defined()) affine.scale = affine.scale * wide(operands[0]);
  affine.shift = -wide(operands[2]) * affine.scale;
  if (operands[1].defined()) affine.shift = affine.shift + wide(operands[1]);
  if (!is_foldable(affine))
    return Decline{codes::unsupported_attribute, "statistics that give a scale and a shift below 1e12", "its variance, mean or weight gives more, or NaN", "check the statistics", {}};
  affine.text = "batch_norm(" + scalar_text(*eps) + ")";
  affine.operands = std::move(operands);
  return affine;
}

Decided<std::optional<Affine>> binary_affine(const patterns::View& view, bool chain_on_left, const ContractionSpec& spec, const Facts& facts) {
  const std::string& op = view.entry->name;
  const auto* constant = facts.constant(view[chain_on_left ? "rhs" : "lhs"]);
  if (!constant || (op == "div" && !chain_on_left)) return std::optional<Affine>();
  double alpha = 1;
  if (view["alpha"]) {
    const auto* found = facts.constant(view["alpha"]);
    const auto value = found ? number(*found) : std::nullopt;
    if (!value || (*value != 1 && !chain_on_left)) return std::optional<Affine>();
    alpha = *value;
  }
  const std::int64_t channels = spec.out_channels();
  at::Tensor c;
  Affine affine;
  const std::string step = (chain_on_left ? "" : "r") + op + (view.in_place ? "_" : "");
  if (constant->isTensor()) {
    const at::Tensor& tensor = constant->toTensor();
    if (facts.is_written(view[chain_on_left ? "rhs" : "lhs"])) return std::optional<Affine>();
    if (op == "sub" && tensor.scalar_type() == at::kBool) return std::optional<Affine>();  // torch refuses it
    // A tensor of rank 0, or of a lower category, does not take part in promotion; any other dtype changes the result's.
    const bool promotes = tensor.dim() > 0 && !at::isIntegralType(tensor.scalar_type(), true) && tensor.scalar_type() != spec.weight.scalar_type();
    if (promotes || at::isComplexType(tensor.scalar_type()))
      return Decline{codes::dtype, std::string("a constant of ") + c10::toString(spec.weight.scalar_type()), std::string("the constant is of ") + c10::toString(tensor.scalar_type()),
                     "convert the constant: the result is promoted to its dtype", {}};
    const std::int64_t rank = spec.kind == Contraction::linear ? -1 : spec.weight.dim();
    if ((rank > 0 && tensor.dim() > rank) || (rank > 0 && tensor.dim() == rank && tensor.size(0) > 1))
      return Decline{codes::broadcast_enlarges, "a constant that broadcasts inside the contraction's result", "the constant has rank " +
                     std::to_string(tensor.dim()) + " and a leading size of " + std::to_string(tensor.size(0)), "drop its batch dimension", {}};
    c = per_channel(tensor, channel_axis(spec), channels);
    if (!c.defined()) return std::optional<Affine>();
    affine.operands = {tensor};
    affine.text = step;
  } else {
    const auto value = number(*constant);
    if (!value) return std::optional<Affine>();
    c = at::full({channels}, *value, at::kDouble);
    affine.text = step + "(" + scalar_text(*constant) + ")";
  }
  if (alpha != 1) {
    if (!affine.operands.empty()) affine.operands[0] = affine.operands[0] * alpha;
    else affine.text = step + "(" + scalar_text(c10::IValue(c[0].item<double>() * alpha)) + ")";
    c = c * alpha;
  }
  const auto one = at::ones({channels}, at::kDouble), zero = at::zeros({channels}, at::kDouble);
  if (op == "add") affine.scale = one, affine.shift = c;
  else if (op == "sub") affine.scale = chain_on_left ? one : -one, affine.shift = chain_on_left ? -c : c;
  else if (op == "mul") affine.scale = c, affine.shift = zero;
  else affine.scale = one / c, affine.shift = zero;
  // y / 0 is an infinity; inside of the sum over inputs it would become NaN.
  if (!is_foldable(affine)) return std::optional<Affine>();
  return std::optional<Affine>(std::move(affine));
}

ContractionSpec fold(ContractionSpec spec, const std::vector<Affine>& affines) {
  if (affines.empty()) return spec;
  const std::int64_t channels = spec.out_channels();
  at::Tensor scale = at::ones({channels}, at::kDouble), shift = at::zeros({channels}, at::kDouble);
  for (const auto& affine : affines) {
    scale = scale * affine.scale;
    shift = shift * affine.scale + affine.shift;
    spec.folded_ops += (spec.folded_ops.empty() ? "" : "|") + affine.text;
    spec.folded_operands.insert(spec.folded_operands.end(), affine.operands.begin(), affine.operands.end());
  }
  // Output channels lie along dimension 0, for a transposed convolution along dimension 1 within each group.
  std::vector<std::int64_t> shape(spec.weight.dim(), 1);
  at::Tensor weight = spec.weight.to(at::kDouble);
  if (spec.kind == Contraction::conv_transpose) {
    const std::int64_t per_group = spec.weight.size(1);
    std::vector<std::int64_t> sizes = spec.weight.sizes().vec();
    auto full = weight.reshape({spec.groups, sizes[0] / spec.groups, per_group, -1}) * scale.reshape({spec.groups, 1, per_group, 1});
    weight = full.reshape(sizes);
  } else {
    shape[0] = channels;
    weight = weight * scale.reshape(shape);
  }
  const auto dtype = spec.weight.scalar_type();
  // For inputs on which the fold is not valid it is undone, which a scale cannot be that is zero, or takes folded weights and their products
  // to where numbers lose digits (below 2^-126 in float32 and bfloat16): those need the original.
  if (scale.abs().lt(0x1p-80).any().item<bool>()) spec.unfolded_weight = spec.weight;
  spec.unfolded_bias = spec.bias.defined() || spec.unfolded_weight.defined() ? spec.bias : at::zeros({channels}, spec.weight.options());
  const at::Tensor bias = spec.bias.defined() ? wide(spec.bias) * scale + shift : shift;
  spec.weight = at::empty_like(spec.weight).copy_(weight);  // all strides: one channel is contiguous and channels_last at once
  spec.bias = bias.to(dtype);
  spec.fold_scale = scale;
  spec.fold_shift = shift;
  return spec;
}

}  // namespace fusible
