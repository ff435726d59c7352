#include "ops/kernels/try_panels.h"

#include <ATen/ATen.h>

#include "ops/kernels/chain.h"

namespace fusible {
namespace {

using kernels::Chain;
using kernels::Operand;
using kernels::PackedWeights;
using kernels::Pixels;

bool is_nhwc(const at::Tensor& x) {
  return x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast) && x.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
}

// The pixels of x, or nothing where the kernels or ATen do not take it.
std::optional<Pixels> pixels_of(const at::Tensor& x, const ContractionSpec& spec) {
  Pixels p;
  if (spec.kind == Contraction::linear) {
    if (x.dim() < 2 || !x.is_contiguous() || x.size(-1) != spec.weight.size(1)) return std::nullopt;
    p.pixel_stride = x.size(-1);
    if (x.dim() > 2) p.images = x.size(0);
    p.width = x.numel() / (p.pixel_stride * p.images);
    return p;
  }
  const std::int64_t channels = spec.kind == Contraction::conv_transpose ? spec.weight.size(0) : spec.weight.size(1) * spec.groups;
  if (!is_nhwc(x) || spec.weight.dim() != 4 || x.size(1) != channels) return std::nullopt;
  p.images = x.size(0);
  p.height = x.size(2);
  p.width = x.size(3);
  p.pixel_stride = x.size(1);
  return p;
}

// Of float32 and weights of any dtype that the loop nests take.
bool try_float(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction& packed, const PostOps& chain, at::TensorList operands,
               at::Tensor& y, std::int64_t most_work) {
  const auto pixels = pixels_of(x, spec);
  if (!pixels) return false;
  const bool linear = spec.kind == Contraction::linear;
  const PackedWeights& weights = kernels::packed_weights(packed);
  const Pixels out = weights.out_pixels(*pixels);
  const std::int64_t rows = out.height * out.width;
  if (rows <= 0 || rows * out.images * spec.weight.numel() >= most_work) return false;
  kernels::View view;
  view.sizes = x.sizes().vec();
  if (linear) {
    view.channel_dim = x.dim() - 1;
    view.sizes.back() = weights.out_channels();
  } else {
    view.sizes = {out.images, weights.out_channels(), out.height, out.width};
  }
  std::vector<Operand> described;
  std::vector<const float*> data;
  for (const at::Tensor& operand : operands) {
    if (!operand.defined()) {
      described.push_back({{}, {}, at::kFloat, false, nullptr});
      data.push_back(nullptr);
      continue;
    }
    if (operand.layout() != at::kStrided || !operand.device().is_cpu() || operand.is_neg()) return false;
    described.push_back({operand.sizes(), operand.strides(), operand.scalar_type(), true, &operand});
    data.push_back(static_cast<const float*>(operand.const_data_ptr()));
  }
  // ATen lets the left operand decide the strides of a result.
  size_t next = 0;
  for (const PostOp& step : chain) {
    if (step.reversed && step.operands) return false;
    next += step.operands;
  }
  const auto planned = Chain::plan(chain, described, view);
  if (!planned || next != operands.size()) return false;
  std::vector<kernels::Step> steps;
  planned->bind(data.data(), steps);
  at::Tensor result = at::empty(view.sizes, x.options(), linear ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast);
  at::Tensor scratch;
  if (const std::int64_t floats = weights.scratch_floats(*pixels)) scratch = at::empty({floats}, x.options());
  weights.run(x.const_data_ptr<float>(), *pixels, result.mutable_data_ptr<float>(), weights.out_channels(), steps,
              planned->rows_collapse(rows), scratch.defined() ? scratch.mutable_data_ptr<float>() : nullptr);
  y = std::move(result);
  return true;
}

// Operands in float32; nothing where one is of another dtype than `dtype`, so that ATen raises or promotes.
std::optional<std::vector<at::Tensor>> widened(at::TensorList operands, at::ScalarType dtype) {
  std::vector<at::Tensor> wide;
  for (const at::Tensor& operand : operands) {
    if (operand.defined() && operand.scalar_type() != dtype) return std::nullopt;
    wide.push_back(operand.defined() ? operand.to(at::kFloat) : operand);
  }
  return wide;
}

}  // namespace

const PackedWeights& kernels::packed_weights(const PackedContraction& contraction) {
  return static_cast<const PackedWeights&>(
      contraction.packed(PackedFor::panels, [&] { return std::make_unique<PackedWeights>(contraction.spec(), contraction.values()); }));
}

bool try_panels(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const PostOps& chain,
                at::TensorList operands, at::Tensor& y, std::int64_t most_work) {
  const auto dtype = x.scalar_type();
  if (!packed || !x.device().is_cpu() || x.layout() != at::kStrided || x.numel() == 0 || !PackedWeights::takes(spec) ||
      spec.weight.scalar_type() != dtype)
    return false;
  if (dtype == at::kFloat) return try_float(x, spec, *packed, chain, operands, y, most_work);
  if (!pixels_of(x, spec)) return false;
  const auto wide = widened(operands, dtype);
  if (!wide || !try_float(x.to(at::kFloat), spec, *packed, chain, *wide, y, most_work)) return false;
  y = y.to(dtype);
  return true;
}

}  // namespace fusible
