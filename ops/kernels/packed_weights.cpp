#include "ops/kernels/packed_weights.h"

#include <algorithm>
#include <cstdint>
#include <functional>

#include <ATen/ATen.h>

#include "ops/kernels/loop_nest.h"
#include "ops/kernels/weight_memory.h"

namespace fusible::kernels {

bool PackedWeights::takes(const ContractionSpec& spec) {
  const at::Tensor& w = spec.weight;
  const auto dtype = w.scalar_type();
  if ((dtype != at::kFloat && dtype != at::kBFloat16) || !(w.device().is_cpu() || w.is_meta()) || w.numel() == 0 || !spec.has_usable_attributes()) return false;
  if (spec.bias.defined() && (spec.bias.scalar_type() != dtype || !spec.bias.device().is_cpu())) return false;
  if (spec.kind == Contraction::linear) return true;
  const std::int64_t spatial = w.dim() - 2;
  if (spatial < 1 || spatial > 3) return false;
  if (spec.kind == Contraction::conv_transpose) {
    constexpr std::int64_t kMostPhases = 4096;
    std::int64_t phases = 1;
    for (std::int64_t i = 0; i < spatial; ++i) {
      if (spec.output_padding[i] >= std::max(spec.stride[i], spec.dilation[i])) return false;  // ATen raises
      if (spec.stride[i] > kMostPhases || (phases *= spec.stride[i]) > kMostPhases) return false;
    }
  }
  if (spec.padding_mode == "same" && !std::all_of(spec.stride.begin(), spec.stride.end(), [](std::int64_t s) { return s == 1; }))
    return false;
  if (spec.groups == 1) return true;
  const std::int64_t other = w.size(0) / spec.groups;
  // On one thread ATen runs a kernel of 1x1 group by group, and lays out one pixel of one channel as it runs.
  const bool one_tap = w.numel() == w.size(0) * w.size(1);
  return (w.size(1) == 1 && other == 1 && !one_tap) || (w.size(1) >= 8 && other >= 8) || takes_grouped_lines(spec);
}

PackedWeights::PackedWeights(const ContractionSpec& spec, std::shared_ptr<WeightValues> values)
    : shape_(spec.weight.sizes().vec()),
      dtype_(spec.weight.scalar_type()),
      groups_(spec.groups),
      in_(spec.weight.size(1)),
      out_(spec.weight.size(0) / spec.groups),
      transposed_(spec.kind == Contraction::conv_transpose),
      values_(std::move(values)) {
  if (transposed_) std::swap(in_, out_);
  // conv1d is conv2d on images of height 1, which is conv3d on one frame.
  const size_t spatial = spec.weight.dim() - 2;
  for (size_t i = 0; i < spatial; ++i) {
    const size_t d = 3 - spatial + i;
    kernel_[d] = spec.weight.size(2 + i);
    stride_[d] = spec.stride[i];
    dilation_[d] = spec.dilation[i];
    if (transposed_) output_padding_[d] = spec.output_padding[i];
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
  grouped_ = takes_grouped_lines(spec);
  // Taps of one result, and of a result and the next, leave nothing out between them: a padded copy is not larger than the taps of all results.
  const bool taps_meet = std::equal(stride_, stride_ + 3, kernel_, std::less_equal<>()) && std::all_of(dilation_, dilation_ + 3, [](auto d) { return d == 1; });
  // 8: a tap's depth below which its pointers cost more than its products.
  padded_copy_ = groups_ == 1 && in_ < 8 && kernel_[2] > 1 && taps_meet && !transposed_;
  frames_apart_ = kernel_[0] == 1 && stride_[0] == 1 && !padding_[0] && !padding_end_[0] && !output_padding_[0];
  find_phases();
  pairs_ = dtype_ == at::kBFloat16 && !depthwise_ && !grouped_ && !padded_copy_ && in_ % 2 == 0;
  weight_size_ = pairs_ ? 2 : 4;
  group_weights_ = round_up(out_, isa().lanes) * depth();
  // One run of channels, whatever group they belong to, or each group's from a panel's beginning.
  const bool across = depthwise_ || grouped_;
  const std::int64_t padded = across ? round_up(out_channels(), panel_) : groups_ * round_up(out_, panel_);
  bias_ = at::zeros({padded}, at::kFloat);
  if (spec.bias.defined()) {
    const at::Tensor bias = spec.bias.to(at::kFloat).contiguous();
    const float* from = bias.const_data_ptr<float>();
    const std::int64_t per_group = across ? out_channels() : out_;
    for (std::int64_t g = 0; g * per_group < bias.numel(); ++g)
      std::copy_n(from + g * per_group, per_group, bias_.mutable_data_ptr<float>() + g * round_up(out_, panel_));
  }
  const bool has_borders = std::any_of(padding_, padding_ + 3, [](auto p) { return p; }) ||
                           std::any_of(padding_end_, padding_end_ + 3, [](auto p) { return p; });
  if (transposed_ || (!padded_copy_ && has_borders)) zeros_ = at::zeros({in_channels()}, at::kFloat);
}

void PackedWeights::find_phases() {
  std::vector<std::pair<std::int64_t, std::vector<std::int64_t>>> along[3];  // of each residue: its first result, the taps that it reads
  for (int d = 0; d < 3; ++d)
    for (std::int64_t first = 0; first < out_step(d); ++first) {
      auto& taps = along[d].emplace_back(first, std::vector<std::int64_t>{}).second;
      for (std::int64_t k = 0; k < kernel_[d]; ++k)
        if ((first + padding_[d] - dilation_[d] * k) % out_step(d) == 0) taps.push_back(k);
    }
  // What the input's position is where tap k is met first. A padded copy has its borders itself, and a kernel row in one run of memory.
  const auto offset = [&](int d, std::int64_t first, std::int64_t k) {
    if (transposed_) return (first + padding_[d] - dilation_[d] * k) / stride_[d];
    return k * dilation_[d] - (padded_copy_ ? 0 : padding_[d]);
  };
  for (const auto& [frame, frame_taps] : along[0])
    for (const auto& [line, line_taps] : along[1])
      for (const auto& [column, column_taps] : along[2]) {
        Phase& phase = phases_.emplace_back(Phase{{frame, line, column}, {}, static_cast<std::int64_t>(tap_order_.size())});
        for (const std::int64_t k : frame_taps) phase.offsets[0].push_back(offset(0, frame, k));
        for (const std::int64_t k : line_taps) phase.offsets[1].push_back(offset(1, line, k));
        for (const std::int64_t k : column_taps)
          if (!padded_copy_ || k == 0) phase.offsets[2].push_back(offset(2, column, k));
        for (const std::int64_t i : frame_taps)
          for (const std::int64_t j : line_taps)
            for (const std::int64_t k : column_taps) tap_order_.push_back((i * kernel_[1] + j) * kernel_[2] + k);
      }
}

std::int64_t PackedWeights::dense_index(std::int64_t group, std::int64_t out, std::int64_t in) const {
  return (transposed_ ? (group * in_ + in) * out_ + out : (group * out_ + out) * in_ + in) * taps();
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
    packed_ = made([this] {
      const at::Tensor dense = values_->dense().contiguous();
      return pairs_ ? pack<c10::BFloat16>(dense) : pack<float>(dense.to(at::kFloat));
    });
    values_->give_up_dense([this] { return unpack(); }, static_cast<std::int64_t>(packed_.nbytes()));
  });
  return packed_;
}

// [O, I, taps], transposed [I, O, taps] -> panels of [taps][I][width], one task per panel.
template <typename Weight>
at::Tensor PackedWeights::pack(const at::Tensor& weight) const {
  const Weight* from = weight.const_data_ptr<Weight>();
  const std::int64_t taps = this->taps();
  if (depthwise_) {
    const std::int64_t stride = round_up(groups_, panel_);
    at::Tensor data = at::zeros({taps * stride}, at::kFloat);
    float* to = data.mutable_data_ptr<float>();
    for (std::int64_t c = 0; c < groups_; ++c)
      for (std::int64_t tap = 0; tap < taps; ++tap) to[tap * stride + c] = from[c * taps + tap_order_[tap]];
    return data;
  }
  if (grouped_)
    if constexpr (std::is_same_v<Weight, float>) return pack_grouped(from);
  // Reads past the last panel are prefetches only.
  at::Tensor data = weight_memory(groups_ * group_weights_, pairs_ ? at::kBFloat16 : at::kFloat);
  Weight* const to = data.mutable_data_ptr<Weight>();
  const std::int64_t step = dense_index(0, 1, 0);
  for_each_range(groups_ * panels(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t group = task / panels(), panel = task % panels(), width = panel_width(panel), first = panel * panel_;
      const std::int64_t filled = std::min(width, out_ - first);
      Weight* p = to + group * group_weights_ + first * depth();
      for (std::int64_t tap = 0; tap < taps; ++tap)
        for (std::int64_t i = 0; i < in_; ++i) {
          const Weight* w = from + dense_index(group, first, i) + tap_order_[tap];
          for (std::int64_t o = 0; o < width; ++o) p[panel_index(tap * in_ + i, o, width)] = o < filled ? w[o * step] : Weight(0.0f);
        }
    }
  });
  return data;
}

at::Tensor PackedWeights::unpack() const { return pairs_ ? unpack_as<c10::BFloat16>() : unpack_as<float>().to(dtype_); }

template <typename Weight>
at::Tensor PackedWeights::unpack_as() const {
  at::Tensor weight = at::empty(shape_, pairs_ ? at::kBFloat16 : at::kFloat);
  Weight* const to = weight.mutable_data_ptr<Weight>();
  const std::int64_t taps = this->taps();
  if (depthwise_) {
    const float* const from = packed().const_data_ptr<float>();
    const std::int64_t stride = round_up(groups_, panel_);
    for (std::int64_t c = 0; c < groups_; ++c)
      for (std::int64_t tap = 0; tap < taps; ++tap) to[c * taps + tap_order_[tap]] = from[tap * stride + c];
    return weight;
  }
  if (grouped_) {
    if constexpr (std::is_same_v<Weight, float>) unpack_grouped(packed().const_data_ptr<float>(), to);
    return weight;
  }
  const Weight* const from = packed().const_data_ptr<Weight>();
  // A task is some input channels of a panel, which stay in the cache while its output channels pass by.
  constexpr std::int64_t kChannels = 32;
  const std::int64_t pieces = (in_ + kChannels - 1) / kChannels;
  for_each_range(groups_ * panels() * pieces, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t group = task / pieces / panels(), panel = task / pieces % panels(), width = panel_width(panel), first = panel * panel_;
      const std::int64_t first_in = task % pieces * kChannels, last_in = std::min(in_, first_in + kChannels);
      const Weight* const p = from + group * group_weights_ + first * depth();
      for (std::int64_t o = 0; o < std::min(width, out_ - first); ++o)
        for (std::int64_t i = first_in; i < last_in; ++i)
          for (std::int64_t tap = 0; tap < taps; ++tap) to[dense_index(group, first + o, i) + tap_order_[tap]] = p[panel_index(tap * in_ + i, o, width)];
    }
  });
  return weight;
}

Pixels PackedWeights::out_pixels(const Pixels& x) const {
  Pixels y = x;
  y.planar = false;
  const auto size = [&](int d, std::int64_t in) -> std::int64_t {
    const std::int64_t reach = dilation_[d] * (kernel_[d] - 1) + 1;
    if (transposed_) return std::max<std::int64_t>(0, (in - 1) * stride_[d] - padding_[d] - padding_end_[d] + reach + output_padding_[d]);
    const std::int64_t room = in + padding_[d] + padding_end_[d] - reach;
    return room < 0 ? 0 : room / stride_[d] + 1;
  };
  y.frames = size(0, x.frames);
  y.height = size(1, x.height);
  y.width = size(2, x.width);
  y.pixel_stride = out_channels();
  return y;
}

Pixels PackedWeights::with_frames_as_images(const Pixels& x) const {
  Pixels all = x;
  if (!frames_apart_ || x.planar) return all;
  all.images *= x.frames;
  all.frames = 1;
  return all;
}

bool PackedWeights::is_pointwise() const {
  return taps() == 1 && std::all_of(stride_, stride_ + 3, [](std::int64_t s) { return s == 1; }) && !zeros_.defined() && !padded_copy_;
}

std::int64_t PackedWeights::weight_bytes() const {
  if (grouped_) return 4 * depth() * vectors() * isa().lanes;
  return depthwise_ ? 4 * taps() * bias_.numel() : weight_size_ * groups_ * group_weights_;
}

std::int64_t PackedWeights::laid_out_floats(const Pixels& x) const {
  if (!padded_copy_) return x.rows() * x.pixel_stride;
  const auto padded = [&](int d, std::int64_t size) { return size + padding_[d] + padding_end_[d]; };
  return padded(0, x.frames) * padded(1, x.height) * padded(2, x.width) * in_;
}

std::int64_t PackedWeights::scratch_floats(const Pixels& x) const {
  if (padded_copy_) return x.images * laid_out_floats(x);
  const Pixels out = out_pixels(with_frames_as_images(x));
  return takes_winograd(out) && transforms_first(out) ? out.images * winograd_tiles(out) * 16 * in_ : 0;
}

}  // namespace fusible::kernels
