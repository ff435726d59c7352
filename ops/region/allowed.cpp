#include <algorithm>
#include <array>
#include <string_view>

#include "ops/region/integers.h"
#include "ops/region/region.h"
#include "ops/region/text.h"

namespace fusible {
namespace {

// Operators between contractions. Each gives one tensor, draws no random numbers with the arguments that a region may hold, and is pure or
// writes to its first argument alone.
constexpr std::array<std::string_view, 118> kAllowed = {
    "aten::_softmax",
    "aten::abs",
    "aten::adaptive_avg_pool1d",
    "aten::adaptive_avg_pool2d",
    "aten::adaptive_avg_pool3d",
    "aten::add.Scalar",
    "aten::add.Tensor",
    "aten::amax",
    "aten::amin",
    "aten::avg_pool1d",
    "aten::avg_pool2d",
    "aten::avg_pool3d",
    "aten::baddbmm",
    "aten::batch_norm",
    "aten::bmm",
    "aten::cat",
    "aten::clamp",
    "aten::clamp_",
    "aten::clamp_max",
    "aten::clamp_min",
    "aten::constant_pad_nd",
    "aten::contiguous",
    "aten::cos",
    "aten::cumsum",
    "aten::div.Scalar",
    "aten::div.Tensor",
    "aten::elu",
    "aten::elu_",
    "aten::erf",
    "aten::exp",
    "aten::expand",
    "aten::expand_as",
    "aten::flatten.using_ints",
    "aten::gelu",
    "aten::group_norm",
    "aten::hardsigmoid",
    "aten::hardsigmoid_",
    "aten::hardswish",
    "aten::hardswish_",
    "aten::hardtanh",
    "aten::hardtanh_",
    "aten::layer_norm",
    "aten::leaky_relu",
    "aten::leaky_relu_",
    "aten::linalg_vector_norm",
    "aten::log",
    "aten::log_softmax.int",
    "aten::masked_fill.Scalar",
    "aten::matmul",
    "aten::max_pool1d",
    "aten::max_pool2d",
    "aten::max_pool3d",
    "aten::maximum",
    "aten::mean",
    "aten::mean.dim",
    "aten::minimum",
    "aten::mish",
    "aten::mish_",
    "aten::movedim.int",
    "aten::mul.Scalar",
    "aten::mul.Tensor",
    "aten::narrow",
    "aten::neg",
    "aten::pad",
    "aten::permute",
    "aten::pixel_shuffle",
    "aten::pixel_unshuffle",
    "aten::pow.Tensor_Scalar",
    "aten::prelu",
    "aten::relu",
    "aten::relu6",
    "aten::relu6_",
    "aten::relu_",
    "aten::reshape",
    "aten::reshape_as",
    "aten::roll",
    "aten::rsqrt",
    "aten::rsub.Scalar",
    "aten::scaled_dot_product_attention",
    "aten::select.int",
    "aten::sigmoid",
    "aten::sigmoid_",
    "aten::silu",
    "aten::silu_",
    "aten::sin",
    "aten::slice.Tensor",
    "aten::softmax.int",
    "aten::softplus",
    "aten::sqrt",
    "aten::square",
    "aten::squeeze.dim",
    "aten::stack",
    "aten::sub.Scalar",
    "aten::sub.Tensor",
    "aten::sum.dim_IntList",
    "aten::swapaxes",
    "aten::t",
    "aten::tanh",
    "aten::tanh_",
    "aten::transpose.int",
    "aten::unflatten.int",
    "aten::unsqueeze",
    "aten::upsample_bicubic2d.vec",
    "aten::upsample_bilinear2d.vec",
    "aten::upsample_linear1d.vec",
    "aten::upsample_nearest1d.vec",
    "aten::upsample_nearest2d.vec",
    "aten::upsample_nearest3d.vec",
    "aten::upsample_trilinear3d.vec",
    "aten::view",
    "aten::view_as",
    "fusible::chunk",
    "fusible::conv",
    "fusible::conv_transpose",
    "fusible::linear",
    "fusible::split",
    "fusible::split_with_sizes",
    "fusible::unbind"};

}  // namespace

bool Region::takes(const c10::OperatorName& op) {
  const std::string name = op.overload_name.empty() ? op.name : op.name + "." + op.overload_name;
  return gives_integer(op) || std::find(kAllowed.begin(), kAllowed.end(), name) != kAllowed.end();
}

bool Region::takes(const c10::OperatorName& op, const std::vector<const c10::IValue*>& constants) {
  if (!std::all_of(constants.begin(), constants.end(), [](const c10::IValue* constant) { return !constant || has_text(*constant); })) return false;
  // Training updates the statistics.
  if (op.name == "aten::batch_norm") return constants.size() > 5 && constants[5] && constants[5]->isBool() && !constants[5]->toBool();
  return takes(op);
}

}  // namespace fusible
