#include "ops/kernels/packed_weights.h"

#include <algorithm>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "ops/kernels/loop_nest.h"

namespace fusible::kernels {
namespace {

std::int64_t round_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

}  // namespace

void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t kHuge = 2 << 20;
  const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(memory) + kHuge - 1) / kHuge * kHuge;
  const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(memory) + bytes) / kHuge * kHuge;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

bool PackedWeights::takes(const ContractionSpec& spec) {
  const at::Tensor& w = spec.weight;
  if (spec.kind == Contraction::conv_transpose || w.scalar_type() != at::kFloat || !(w.device().is_cpu() || w.is_meta()) || w.numel() == 0) return false;
  if (spec.bias.defined() && (spec.bias.scalar_type() != at::kFloat || !spec.bias.device().is_cpu())) return false;
  if (spec.kind == Contraction::linear) return true;
  const std::int64_t spatial = w.dim() - 2;
  if (spatial < 1 || spatial > 2) return false;
  if (spec.padding_mode == "same" && !std::all_of(spec.stride.begin(), spec.stride.end(), [](std::int64_t s) { return s == 1; }))
    return false;
  if (spec.groups == 1) return true;
  const std::int64_t out = w.size(0) / spec.groups;
  return (w.size(1) == 1 && out == 1) || (w.size(1) >= 8 && out >= 8);
}

PackedWeights::PackedWeights(const ContractionSpec& spec, std::shared_ptr<WeightValues> values)
    : shape_(spec.weight.sizes().vec()),
      groups_(spec.groups),
      in_(spec.weight.size(1)),
      out_(spec.weight.size(0) / spec.groups),
      values_(std::move(values)) {
  // conv1d is conv2d on images of height 1.
  const size_t spatial = spec.weight.dim() - 2;
  for (size_t i = 0; i < spatial; ++i) {
    const size_t d = 2 - spatial + i;
    kernel_[d] = spec.weight.size(2 + i);
    stride_[d] = spec.stride[i];
    dilation_[d] = spec.dilation[i];
    if (spec.padding_mode.empty()) padding_[d] = padding_end_[d] = spec.padding[i];
    if (spec.padding_mode == "same") {
      const std::int64_t total = dilation_[d] * (kernel_[d] - 1);
      padding_[d] = total / 2;
      padding_end_[d] = total - total / 2;
    }
  }
  // As many panels as the widest tile asks for, of one width: 144 channels are 3 x 48, not 2 x 64 and a thin rest.
  const std::int64_t vectors = (out_ + isa().lanes - 1) / isa().lanes, count = (vectors + isa().vectors - 1) / isa().vectors;
  panel_ = (vectors + count - 1) / count * isa().lanes;
  depthwise_ = groups_ > 1 && in_ == 1 && out_ == 1;
  // 8: a tap's depth below which its pointers cost more than its products.
  padded_copy_ = groups_ == 1 && in_ < 8 && kernel_[1] > 1 && dilation_[1] == 1;
  group_floats_ = round_up(out_, isa().lanes) * depth();
  const std::int64_t padded = depthwise_ ? round_up(groups_, panel_) : groups_ * round_up(out_, panel_);
  bias_ = at::zeros({padded}, at::kFloat);
  if (spec.bias.defined()) {
    const at::Tensor bias = spec.bias.contiguous();
    const float* from = bias.const_data_ptr<float>();
    const std::int64_t per_group = depthwise_ ? groups_ : out_;
    for (std::int64_t g = 0; g * per_group < bias.numel(); ++g)
      std::copy_n(from + g * per_group, per_group, bias_.mutable_data_ptr<float>() + g * round_up(out_, panel_));
  }
  if (!padded_copy_ && (padding_[0] | padding_[1] | padding_end_[0] | padding_end_[1])) zeros_ = at::zeros({in_channels()}, at::kFloat);
}

std::int64_t PackedWeights::panel_width(std::int64_t panel) const { return std::min(panel_, round_up(out_ - panel * panel_, isa().lanes)); }

at::Tensor PackedWeights::made(const std::function<at::Tensor()>& make) const {
  try {
    return make();
  } catch (const c10::Error& error) {
    const std::string reason = error.what_without_backtrace();
    TORCH_CHECK(false, "packing the weight ", at::IntArrayRef(shape_), " of a fused operator failed, the next call tries again: ", reason.substr(0, reason.find('\n')));
  }
}

const at::Tensor& PackedWeights::packed() const {
  std::call_once(packed_once_, [this] {
    packed_ = made([this] { return pack(values_->dense().contiguous()); });
    values_->give_up_dense([this] { return unpack(); }, static_cast<std::int64_t>(packed_.nbytes()));
  });
  return packed_;
}

// [O, I, kh, kw] -> panels of [kh][kw][I][width], one task per panel.
at::Tensor PackedWeights::pack(const at::Tensor& weight) const {
  const float* from = weight.const_data_ptr<float>();
  const std::int64_t taps = kernel_[0] * kernel_[1];
  if (depthwise_) {
    const std::int64_t stride = round_up(groups_, panel_);
    at::Tensor data = at::zeros({taps * stride}, at::kFloat);
    float* to = data.mutable_data_ptr<float>();
    for (std::int64_t c = 0; c < groups_; ++c)
      for (std::int64_t tap = 0; tap < taps; ++tap) to[tap * stride + c] = from[c * taps + tap];
    return data;
  }
  // Reads past the last panel are prefetches only.
  at::Tensor data = at::empty({groups_ * group_floats_}, at::kFloat);
  prefer_huge_pages(data.mutable_data_ptr<float>(), data.nbytes());
  float* const to = data.mutable_data_ptr<float>();
  at::parallel_for(0, groups_ * panels(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t group = task / panels(), panel = task % panels(), width = panel_width(panel), first = panel * panel_;
      const std::int64_t filled = std::min(width, out_ - first);
      float* p = to + group * group_floats_ + first * depth();
      for (std::int64_t tap = 0; tap < taps; ++tap)
        for (std::int64_t i = 0; i < in_; ++i, p += width) {
          const float* w = from + ((group * out_ + first) * in_ + i) * taps + tap;
          for (std::int64_t o = 0; o < filled; ++o) p[o] = w[o * in_ * taps];
          std::fill(p + filled, p + width, 0.0f);
        }
    }
  });
  return data;
}

at::Tensor PackedWeights::unpack() const {
  at::Tensor weight = at::empty(shape_, at::kFloat);
  float* const to = weight.mutable_data_ptr<float>();
  const float* const from = packed().const_data_ptr<float>();
  const std::int64_t taps = kernel_[0] * kernel_[1];
  if (depthwise_) {
    const std::int64_t stride = round_up(groups_, panel_);
    for (std::int64_t c = 0; c < groups_; ++c)
      for (std::int64_t tap = 0; tap < taps; ++tap) to[c * taps + tap] = from[tap * stride + c];
    return weight;
  }
  // A task is some input channels of a panel, which stay in the cache while its output channels pass by.
  constexpr std::int64_t kChannels = 32;
  const std::int64_t pieces = (in_ + kChannels - 1) / kChannels;
  at::parallel_for(0, groups_ * panels() * pieces, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t group = task / pieces / panels(), panel = task / pieces % panels(), width = panel_width(panel), first = panel * panel_;
      const std::int64_t first_in = task % pieces * kChannels, last_in = std::min(in_, first_in + kChannels);
      const float* const p = from + group * group_floats_ + first * depth();
      for (std::int64_t o = 0; o < std::min(width, out_ - first); ++o)
        for (std::int64_t i = first_in; i < last_in; ++i)
          for (std::int64_t tap = 0; tap < taps; ++tap) to[((group * out_ + first + o) * in_ + i) * taps + tap] = p[(tap * in_ + i) * width + o];
    }
  });
  return weight;
}

Pixels PackedWeights::out_pixels(const Pixels& x) const {
  Pixels y = x;
  y.planar = false;
  const auto size = [&](int d, std::int64_t in) {
    const std::int64_t room = in + padding_[d] + padding_end_[d] - dilation_[d] * (kernel_[d] - 1) - 1;
    return room < 0 ? 0 : room / stride_[d] + 1;
  };
  y.height = size(0, x.height);
  y.width = size(1, x.width);
  y.pixel_stride = out_channels();
  return y;
}

bool PackedWeights::is_pointwise() const {
  return kernel_[0] * kernel_[1] == 1 && stride_[0] == 1 && stride_[1] == 1 && !zeros_.defined() && !padded_copy_;
}

std::int64_t PackedWeights::weight_bytes() const { return 4 * (depthwise_ ? kernel_[0] * kernel_[1] * bias_.numel() : groups_ * group_floats_); }

std::int64_t PackedWeights::laid_out_floats(const Pixels& x) const {
  if (!padded_copy_) return x.height * x.width * x.pixel_stride;
  return (x.height + padding_[0] + padding_end_[0]) * (x.width + padding_[1] + padding_end_[1]) * in_;
}

std::int64_t PackedWeights::scratch_floats(const Pixels& x) const {
  if (padded_copy_) return x.images * laid_out_floats(x);
  const Pixels out = out_pixels(x);
  return takes_winograd(out) && transforms_first(out) ? out.images * winograd_tiles(out) * 16 * in_ : 0;
}

}  // namespace fusible::kernels
