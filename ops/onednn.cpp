#include "ops/onednn.h"

#include <ATen/ATen.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "ops/post_op_in_place.h"

namespace fusible {
namespace {

using Ints = at::IntArrayRef;
using Scalars = c10::List<std::optional<c10::Scalar>>;
using Conv = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, Ints padding, Ints stride, Ints dilation,
                        std::int64_t groups, std::string_view attr, Scalars, std::optional<std::string_view> algorithm);
using ConvTranspose = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, Ints padding, Ints output_padding,
                                 Ints stride, Ints dilation, std::int64_t groups, std::string_view attr, Scalars,
                                 std::optional<std::string_view> algorithm);
using Linear = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view attr, Scalars,
                          std::optional<std::string_view> algorithm);

// Nothing when this build of torch has no oneDNN.
template <typename Signature>
std::optional<c10::TypedOperatorHandle<Signature>> find(const char* name) {
  const auto op = c10::Dispatcher::singleton().findSchema({name, ""});
  return op ? std::optional(op->typed<Signature>()) : std::nullopt;
}

// A first step that oneDNN computes on the tile. relu, hardtanh, hardsigmoid and clamp are not here: oneDNN's turn NaN into a number.
struct Attribute {
  std::string_view name = "none";
  Scalars scalars;
  std::optional<std::string_view> algorithm;
  bool rides() const { return name != "none"; }
};

Attribute attribute_for(const PostOps& chain) {
  Attribute attribute;
  if (chain.empty()) return attribute;
  const PostOp& step = chain[0];
  switch (step.kind) {
    case PostOpKind::sigmoid: attribute.name = "sigmoid"; break;
    case PostOpKind::tanh: attribute.name = "tanh"; break;
    case PostOpKind::silu: attribute.name = "swish"; break;
    case PostOpKind::hardswish: attribute.name = "hardswish"; break;
    case PostOpKind::leaky_relu:
      attribute.name = "leaky_relu";
      attribute.scalars.push_back(step.scalars[0]);
      break;
    case PostOpKind::gelu:
      if (step.gelu == Gelu::erf) break;
      attribute.name = "gelu";
      attribute.algorithm = step.gelu == Gelu::tanh ? "tanh" : "none";
      break;
    default: break;
  }
  return attribute;
}

bool is_plain_float(const at::Tensor& t) { return t.scalar_type() == at::kFloat && t.layout() == at::kStrided && t.device().is_cpu(); }

bool has_plain_float_weight(const ContractionSpec& spec) {
  return spec.weight.scalar_type() == at::kFloat && spec.weight.layout() == at::kStrided && (spec.weight.device().is_cpu() || spec.weight.is_meta());
}

// Padding as numbers; nothing where oneDNN cannot pad as ATen does (an odd total for padding='same' pads one side more).
std::optional<std::vector<std::int64_t>> numeric_padding(const ContractionSpec& spec) {
  if (spec.padding_mode.empty()) return spec.padding;
  std::vector<std::int64_t> padding(spec.spatial_dims(), 0);
  if (spec.padding_mode == "valid") return padding;
  for (size_t i = 0; i < padding.size(); ++i) {
    const std::int64_t total = spec.dilation[i] * (spec.weight.size(2 + i) - 1);
    if (total % 2 || spec.stride[i] != 1) return std::nullopt;
    padding[i] = total / 2;
  }
  return padding;
}

// Multiply-adds of the call, and whether it is one that ATen accepts; 0 where it is not, so that ATen raises.
std::int64_t conv_work(const at::Tensor& x, const ContractionSpec& spec, const std::vector<std::int64_t>& padding) {
  const auto& w = spec.weight;
  const bool transposed = spec.kind == Contraction::conv_transpose;
  if (x.size(1) != (transposed ? w.size(0) : w.size(1) * spec.groups)) return 0;
  std::int64_t work = x.size(0) * w.numel();
  for (std::int64_t i = 0; i < spec.spatial_dims(); ++i) {
    const std::int64_t reach = spec.dilation[i] * (w.size(2 + i) - 1) + 1;
    const std::int64_t in = x.size(2 + i);
    const std::int64_t out = transposed ? (in - 1) * spec.stride[i] - 2 * padding[i] + reach + spec.output_padding[i]
                                        : (in + 2 * padding[i] - reach + spec.stride[i]) / spec.stride[i];
    if (out <= 0 || (transposed ? spec.output_padding[i] >= spec.stride[i] : in + 2 * padding[i] < reach)) return 0;
    work *= transposed ? in : out;
  }
  return work;
}

// conv1d runs as ATen runs it: as conv2d on an image of height 1.
std::vector<std::int64_t> with_height(const std::vector<std::int64_t>& list, std::int64_t value, bool is_1d) {
  std::vector<std::int64_t> result = list;
  if (is_1d) result.insert(result.begin(), value);
  return result;
}

bool try_conv(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const Attribute& attribute, at::Tensor& y,
              std::int64_t least_work) {
  static const auto conv = find<Conv>("mkldnn::_convolution_pointwise");
  static const auto conv_transpose = find<ConvTranspose>("mkldnn::_convolution_transpose_pointwise");
  const bool transposed = spec.kind == Contraction::conv_transpose;
  if (!attribute.rides() || !(transposed ? conv_transpose.has_value() : conv.has_value())) return false;
  if (x.dim() != spec.weight.dim() || !x.is_non_overlapping_and_dense()) return false;
  // In 3d ATen takes oneDNN or its own contiguous kernel by rules of batch and threads, and the strides of the result with it.
  const auto contiguous = at::MemoryFormat::Contiguous;
  if (x.dim() == 5 && (x.suggest_memory_format() != contiguous || spec.weight.suggest_memory_format() != contiguous)) return false;
  const auto padding = numeric_padding(spec);
  if (!padding || conv_work(x, spec, *padding) < least_work) return false;
  const bool is_1d = spec.spatial_dims() == 1;
  const at::Tensor image = is_1d ? x.contiguous().unsqueeze(2) : x;
  const at::Tensor dense = dense_weight(spec, packed), weight = is_1d ? dense.unsqueeze(2) : dense;
  const auto bias = spec.bias.defined() ? std::optional(spec.bias) : std::nullopt;
  const auto pad = with_height(*padding, 0, is_1d);
  const auto stride = with_height(spec.stride, 1, is_1d);
  const auto dilation = with_height(spec.dilation, 1, is_1d);
  if (transposed) {
    const auto output_padding = with_height(spec.output_padding, 0, is_1d);
    y = conv_transpose->call(image, weight, bias, pad, output_padding, stride, dilation, spec.groups, attribute.name, attribute.scalars,
                             attribute.algorithm);
  } else {
    y = conv->call(image, weight, bias, pad, stride, dilation, spec.groups, attribute.name, attribute.scalars, attribute.algorithm);
  }
  if (is_1d) y = y.squeeze(2);
  return true;
}

bool try_linear(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const Attribute& attribute, at::Tensor& y,
                std::int64_t least_work) {
  static const auto linear = find<Linear>("mkldnn::_linear_pointwise");
  if (!linear || x.dim() < 2 || !x.is_contiguous() || spec.weight.dim() != 2 || !spec.weight.is_contiguous() ||
      x.size(-1) != spec.weight.size(1))
    return false;
  if (!attribute.rides() || x.numel() * spec.weight.size(0) < least_work) return false;
  const auto bias = spec.bias.defined() ? std::optional(spec.bias) : std::nullopt;
  y = linear->call(x, dense_weight(spec, packed), bias, attribute.name, attribute.scalars, attribute.algorithm);
  return true;
}

}  // namespace

bool try_onednn(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const PostOps& chain,
                at::TensorList operands, at::Tensor& y, std::int64_t least_work) {
  if (!is_plain_float(x) || !has_plain_float_weight(spec) || (spec.bias.defined() && !is_plain_float(spec.bias)) || x.numel() == 0 ||
      spec.weight.numel() == 0 || !at::globalContext().userEnabledMkldnn())
    return false;
  if (spec.bias.defined() && (spec.bias.dim() != 1 || spec.bias.size(0) != spec.out_channels())) return false;
  const Attribute attribute = attribute_for(chain);
  const bool done = spec.kind == Contraction::linear ? try_linear(x, spec, packed, attribute, y, least_work)
                                                     : try_conv(x, spec, packed, attribute, y, least_work);
  if (!done) return false;
  y = apply_post_ops_in_place(std::move(y), chain, operands, attribute.rides() ? 1 : 0);
  return true;
}

}  // namespace fusible
