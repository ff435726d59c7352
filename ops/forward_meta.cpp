#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/native/ConvUtils.h>

#include "ops/forward.h"
#include "ops/post_op.h"
#include "ops/reference.h"

namespace fusible {

at::Tensor on_meta(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.is_meta()) return tensor;
  return at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kMeta));
}

namespace {

std::vector<at::Tensor> all_on_meta(at::TensorList tensors) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& tensor : tensors) result.push_back(on_meta(tensor));
  return result;
}

// aten::convolution has no Meta kernel in C++ (Python registers one), so its shape rule stands here.
std::vector<std::int64_t> conv_sizes(const at::Tensor& x, const ContractionSpec& s, bool batched) {
  const auto& w = s.weight;
  const auto spatial = static_cast<size_t>(s.spatial_dims());
  const auto at = [](const std::vector<std::int64_t>& list, size_t i) { return list[list.size() == 1 ? 0 : i]; };
  std::vector<std::int64_t> sizes;
  if (batched) sizes.push_back(x.size(0));
  sizes.push_back(s.out_channels());
  for (size_t i = 0; i < spatial; ++i) {
    const std::int64_t in = x.size(batched + 1 + i);
    const std::int64_t reach = at(s.dilation, i) * (w.size(2 + i) - 1) + 1;
    std::int64_t out = 0;
    if (s.kind == Contraction::conv_transpose) {
      out = (in - 1) * at(s.stride, i) - 2 * at(s.padding, i) + reach + at(s.output_padding, i);
    } else if (s.padding_mode == "same") {
      TORCH_CHECK(at(s.stride, i) == 1, "padding='same' is not supported for strided convolutions");
      out = in;
    } else {
      const std::int64_t padded = in + (s.padding_mode.empty() ? 2 * at(s.padding, i) : 0);
      TORCH_CHECK(padded >= reach, "the padded input needs at least the kernel's size ", reach, " in dimension ", i, ", found ", padded);
      out = (padded - reach) / at(s.stride, i) + 1;
    }
    TORCH_CHECK(out >= (x.numel() ? 1 : 0), "the convolution needs a positive output size, found ", out, " for an input of shape ", x.sizes());
    sizes.push_back(out);
  }
  return sizes;
}

// Sizes and strides without memory: the choice of a backend reads nothing else, and a meta tensor would be offered none.
at::Tensor as_if_on_cpu(const at::Tensor& t) {
  static char nothing;
  return at::from_blob(&nothing, t.sizes(), t.strides(), t.options().device(at::kCPU));
}

// `sizes`: the result's, with as many dimensions as x.
at::MemoryFormat conv_memory_format(const at::Tensor& x, const at::Tensor& weight, const ContractionSpec& s, at::IntArrayRef sizes) {
  const at::Tensor image = as_if_on_cpu(x), w = as_if_on_cpu(weight);
  // One number stands for every dimension; the height that 1d gets has its own.
  const auto ints = [&](const std::vector<std::int64_t>& list, std::int64_t height) {
    std::vector<c10::SymInt> all(list.begin(), list.end());
    if (s.spatial_dims() == 1) all.insert(all.begin(), height);
    if (all.size() == 1) all.resize(s.spatial_dims(), all[0]);
    return all;
  };
  const auto b = s.bias.defined() ? std::optional(as_if_on_cpu(s.bias)) : std::nullopt;
  const auto stride = ints(s.stride, 1), padding = ints(s.padding, 0), dilation = ints(s.dilation, 1), output_padding = ints(s.output_padding, 0);
  const auto backend = at::native::select_conv_backend(image, w, b, stride, padding, dilation, s.kind == Contraction::conv_transpose,
                                                       output_padding, s.groups, std::nullopt);
  // ATen's own kernels take one group: several run one by one, and their results are put together.
  const bool by_group = s.groups > 1 && backend != at::native::ConvBackend::Mkldnn && backend != at::native::ConvBackend::MkldnnEmpty &&
                        backend != at::native::ConvBackend::Empty && s.kind == Contraction::conv && image.dim() == 4;
  if (!by_group) return at::native::_determine_backend_memory_format(image, w, backend);
  const at::Tensor of_x = on_meta(image).narrow(1, 0, weight.size(1)).contiguous(image.suggest_memory_format());
  const at::Tensor of_w = on_meta(w).narrow(0, 0, weight.size(0) / s.groups).contiguous(w.suggest_memory_format());
  const auto format = at::native::_determine_backend_memory_format(as_if_on_cpu(of_x), as_if_on_cpu(of_w), backend);
  return at::empty({sizes[0], sizes[1] / s.groups, sizes[2], sizes[3]}, of_x.options(), format).suggest_memory_format();
}

// What ATen asks of a list before it computes with it.
void check_list(const std::vector<std::int64_t>& list, const char* name, std::int64_t spatial, std::int64_t least) {
  TORCH_CHECK(list.size() == 1 || static_cast<std::int64_t>(list.size()) == spatial, "the convolution needs 1 or ", spatial, " entries in ", name,
              ", found ", list.size());
  for (const std::int64_t entry : list) TORCH_CHECK(entry >= least, "the convolution needs ", name, " of at least ", least, ", found ", entry);
}

void check_conv_attributes(const ContractionSpec& spec) {
  const at::IntArrayRef weight = spec.weight.sizes();
  const std::int64_t spatial = spec.spatial_dims();
  TORCH_CHECK(spatial >= 1 && spatial <= 3, "the convolution needs a weight of 3 to 5 dimensions, found shape ", weight);
  TORCH_CHECK(std::all_of(weight.begin() + 2, weight.end(), [](std::int64_t size) { return size > 0; }), "the convolution needs a kernel, found shape ", weight);
  TORCH_CHECK(spec.groups >= 1 && weight[0] % spec.groups == 0 && (weight[0] == 0 || spec.groups <= weight[0]),
              "the convolution needs groups that divide the weight's first dimension, found groups ", spec.groups, " for shape ", weight);
  check_list(spec.stride, "stride", spatial, 1);
  check_list(spec.padding, "padding", spatial, 0);
  check_list(spec.dilation, "dilation", spatial, 1);
  check_list(spec.output_padding, "output_padding", spatial, 0);
}

void check_conv_input(const at::Tensor& x, const ContractionSpec& spec) {
  check_conv_attributes(spec);
  const std::int64_t spatial = spec.spatial_dims();
  const bool batched = x.dim() == spatial + 2;
  TORCH_CHECK(batched || x.dim() == spatial + 1, "the convolution needs an input of ", spatial + 1, " or ", spatial + 2, " dimensions, found shape ",
              x.sizes());
  const std::int64_t channels = spec.kind == Contraction::conv_transpose ? spec.weight.size(0) : spec.weight.size(1) * spec.groups;
  TORCH_CHECK(x.size(batched) == channels, "the convolution needs an input of ", channels, " channels, found shape ", x.sizes());
  TORCH_CHECK(x.scalar_type() == spec.weight.scalar_type(), "the convolution needs an input of dtype ", spec.weight.scalar_type(), ", found ",
              x.scalar_type());
}

at::Tensor conv_meta(const at::Tensor& x, const ContractionSpec& spec) {
  check_conv_input(x, spec);
  const std::int64_t spatial = spec.spatial_dims();
  const bool batched = x.dim() == spatial + 2;
  std::vector<std::int64_t> sizes = conv_sizes(x, spec, batched);
  if (!batched) sizes.insert(sizes.begin(), 1);
  if (spatial == 1) {
    const at::Tensor w = on_meta(spec.weight).unsqueeze(2);
    const at::Tensor x4 = (batched ? x : x.unsqueeze(0)).contiguous().unsqueeze(2);
    sizes.insert(sizes.begin() + 2, 1);
    const at::Tensor y = at::empty(sizes, x.options(), conv_memory_format(x4, w, spec, sizes)).squeeze(2);
    return batched ? y : y.squeeze(0);
  }
  const at::Tensor y = at::empty(sizes, x.options(), conv_memory_format(batched ? x : x.unsqueeze(0), spec.weight, spec, sizes));
  return batched ? y : y.squeeze(0);
}

at::Tensor contract_meta(const at::Tensor& x, const ContractionSpec& spec) {
  if (spec.kind == Contraction::linear) return contract(x, spec, on_meta(spec.weight), on_meta(spec.bias));
  return conv_meta(x, spec);
}

// Steps whose ATen operators have no Meta kernel in C++; each keeps y's shape and dtype, and all but batch_norm its strides.
std::optional<at::Tensor> result_like(const at::Tensor& y, const PostOp& step) {
  switch (step.kind) {
    case PostOpKind::relu:
    case PostOpKind::relu6:
    case PostOpKind::hardtanh:
    case PostOpKind::hardswish:
    case PostOpKind::prelu: return at::empty_like(y);
    case PostOpKind::batch_norm: return at::empty_like(y, y.suggest_memory_format());
    default: return std::nullopt;
  }
}

at::Tensor chain_meta(at::Tensor y, const PostOps& chain, at::TensorList operands) {
  for (const PostOp& step : chain) {
    TORCH_CHECK(static_cast<size_t>(step.operands) <= operands.size(), "post_ops needs more operands than the ", operands.size(), " found");
    const auto like = result_like(y, step);
    y = like ? *like : apply_post_ops(y, {step}, operands.slice(0, step.operands));
    operands = operands.slice(step.operands);
  }
  TORCH_CHECK(operands.empty(), "post_ops needs ", operands.size(), " operands fewer than found");
  return y;
}

}  // namespace

std::vector<std::int64_t> contraction_sizes(const at::Tensor& x, const ContractionSpec& spec) {
  check_rank(x, spec);
  if (spec.kind != Contraction::linear) {
    check_conv_input(x, spec);
    return conv_sizes(x, spec, x.dim() == spec.spatial_dims() + 2);
  }
  TORCH_CHECK(x.dim() > 0 && x.size(-1) == spec.weight.size(1), "the linear layer needs rows of ", spec.weight.size(1), ", found shape ", x.sizes());
  std::vector<std::int64_t> sizes = x.sizes().vec();
  sizes.back() = spec.weight.size(0);
  return sizes;
}

at::Tensor forward_meta(const at::Tensor& x, const ContractionSpec& spec, std::string_view post_ops, at::TensorList operands) {
  check_rank(x, spec);
  at::Tensor y = contract_meta(on_meta(x), spec);
  if (!fold_is_valid(x, spec)) y = chain_meta(y, parse_post_ops(spec.folded_ops), all_on_meta(spec.folded_operands));
  return chain_meta(y, parse_post_ops(post_ops), all_on_meta(operands));
}

}  // namespace fusible
