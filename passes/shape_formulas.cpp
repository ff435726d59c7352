#include "passes/shape_formulas.h"

#include <ATen/native/ConvUtils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

namespace fusible {

namespace {

using Sizes = std::vector<std::int64_t>;

at::Tensor meta(const Sizes& sizes, const at::Tensor& like) { return at::empty(sizes, like.options().device(at::kMeta)); }

Sizes repeated(const Sizes& sizes, std::size_t dimensions) { return sizes.size() == 1 ? Sizes(dimensions, sizes[0]) : sizes; }

// stride, padding, dilation (, output_padding, groups): where each stands in the schema.
struct Arguments {
  int stride, padding, dilation, output_padding, groups;
  bool transposed;
};

std::optional<Arguments> arguments_of(const std::string& op, const torch::jit::Stack& inputs) {
  if (op == "aten::conv1d" || op == "aten::conv2d" || op == "aten::conv3d" || op == "aten::_convolution_mode") return Arguments{3, 4, 5, -1, 6, false};
  if (op == "aten::conv_transpose1d" || op == "aten::conv_transpose2d" || op == "aten::conv_transpose3d") return Arguments{3, 4, 7, 5, 6, true};
  if (op == "aten::convolution" || op == "aten::_convolution") return Arguments{3, 4, 5, 7, 8, inputs.at(6).toBool()};
  return std::nullopt;
}

std::optional<at::Tensor> convolution(const std::string& op, const torch::jit::Stack& inputs) {
  const auto at = arguments_of(op, inputs);
  if (!at) return std::nullopt;
  at::Tensor input = inputs[0].toTensor();
  const at::Tensor weight = inputs[1].toTensor();
  const std::size_t spatial = weight.dim() - 2;
  const bool batched = input.dim() == weight.dim();
  if (!batched) input = input.unsqueeze(0);
  if (input.dim() != weight.dim()) return std::nullopt;
  const Sizes stride = repeated(inputs[at->stride].toIntVector(), spatial), dilation = repeated(inputs[at->dilation].toIntVector(), spatial);
  Sizes padding;
  if (inputs[at->padding].isString()) {
    // "same" holds the size: dilation * (kernel - 1) zeros, and the stride is 1.
    for (std::size_t i = 0; i < spatial; ++i) padding.push_back(inputs[at->padding].toStringRef() == "same" ? -1 : 0);
  } else {
    padding = repeated(inputs[at->padding].toIntVector(), spatial);
  }
  Sizes sizes;
  if (at->transposed) {
    const Sizes output_padding = repeated(inputs[at->output_padding].toIntVector(), spatial);
    sizes = at::native::conv_input_size(input.sizes(), weight.sizes(), padding, output_padding, stride, dilation, inputs[at->groups].toInt());
  } else if (!padding.empty() && padding[0] < 0) {
    sizes = input.sizes().vec();
    sizes[1] = weight.size(0);
  } else {
    sizes = at::native::conv_output_size(input.sizes(), weight.sizes(), padding, stride, dilation);
  }
  if (std::any_of(sizes.begin(), sizes.end(), [](std::int64_t n) { return n < 0; })) return std::nullopt;
  const auto result = meta(sizes, input);
  return batched ? result : result.squeeze(0);
}

bool keeps_the_shape(const std::string& op) {
  static const std::unordered_set<std::string> ops{"aten::batch_norm", "aten::instance_norm", "aten::layer_norm", "aten::group_norm", "aten::dropout",
                                                   "aten::dropout_", "aten::feature_dropout", "aten::prelu", "aten::local_response_norm"};
  return ops.count(op) != 0;
}

std::optional<at::Tensor> adaptive_pool(const std::string& op, const torch::jit::Stack& inputs) {
  if (op != "aten::adaptive_avg_pool1d" && op != "aten::adaptive_avg_pool2d" && op != "aten::adaptive_avg_pool3d") return std::nullopt;
  Sizes sizes = inputs[0].toTensor().sizes().vec();
  const Sizes pooled = repeated(inputs[1].toIntVector(), op[op.size() - 2] - '0');
  if (pooled.size() > sizes.size()) return std::nullopt;
  std::copy(pooled.begin(), pooled.end(), sizes.end() - static_cast<std::ptrdiff_t>(pooled.size()));
  return meta(sizes, inputs[0].toTensor());
}

}  // namespace

std::optional<at::Tensor> shaped_by_formula(const torch::jit::Node* node, const torch::jit::Stack& inputs) {
  const std::string op = node->kind().toQualString();
  if (inputs.empty() || !inputs[0].isTensor() || !inputs[0].toTensor().defined()) return std::nullopt;
  if (keeps_the_shape(op)) return at::empty_like(inputs[0].toTensor());
  if (auto pooled = adaptive_pool(op, inputs)) return pooled;
  return convolution(op, inputs);
}

}  // namespace fusible
