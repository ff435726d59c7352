// The loops around the depthwise kernels: lines in chunks, one task each.

#include "ops/kernels/loop_nest.h"

#include <algorithm>

namespace fusible::kernels {

// Rows [begin, end) of a phase of an image, each by the pointers to its taps.
void PackedWeights::run_depthwise_rows(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end) const {
  const Isa& machine = isa();
  const std::int64_t count = end - begin;
  const float** rows = row_pointers(count * job.taps).data();
  point_rows(job, image, begin, end, rows);
  DepthwiseTile t{};
  t.tap_stride = count;
  t.taps = job.taps;
  t.weight_stride = bias_.numel();
  t.weights = packed().const_data_ptr<float>() + job.phase->begin * t.weight_stride;
  t.bias = bias_.const_data_ptr<float>();
  t.c_stride = job.y_stride * out_step(2);
  t.channels = groups_;
  t.steps = static_cast<std::int32_t>(job.chain->size());
  t.image = image + job.chain_image;
  for (std::int64_t run_begin = begin, run_end; run_begin < end; run_begin = run_end) {
    run_end = phases_.size() == 1 ? end : std::min(end, (run_begin / job.columns + 1) * job.columns);
    const Run run = run_at(job, image, run_begin);
    t.chain = run.chain;
    for (std::int64_t first = 0; first < run_end - run_begin; first += t.m) {
      t.m = static_cast<std::int32_t>(std::min<std::int64_t>(machine.depthwise_rows, run_end - run_begin - first));
      t.rows = rows + run_begin - begin + first;
      t.row = run.row + first;
      t.c = run.c + first * t.c_stride;
      machine.depthwise(t);
    }
  }
}

bool PackedWeights::has_depthwise_line(const Job& job) const {
  return frames_apart_ && job.in.frames == 1 && !transposed_ && dilation_[2] == 1 && kernel_[1] <= DepthwiseLine::kMostLines &&
         isa().has_line(kernel_[2], stride_[2]);
}

// Columns [first, last) of line `oh`, whose taps all lie between the left and the right border; or one column.
void PackedWeights::run_depthwise_line(const Job& job, std::int64_t image, std::int64_t oh, std::int64_t first, std::int64_t last,
                                       std::int64_t channel, std::int64_t channels) const {
  DepthwiseLine t{};
  const std::int64_t top = oh * stride_[1] - padding_[1], left = first * stride_[2] - padding_[2];
  const Lines met = kernel_lines_met(top, job.in.height);
  for (std::int64_t kh = met.begin; kh < met.end; ++kh) {
    const std::int64_t line = image * job.in.height + top + kh * dilation_[1] - job.x_line;
    t.lines[kh - met.begin] = job.x + (line * job.in.width + left) * job.in.pixel_stride + channel;
  }
  t.pixel_stride = job.in.pixel_stride;
  t.kernel_height = met.end - met.begin;
  t.kernel_width = kernel_[2];
  t.stride = stride_[2];
  t.tap_begin = std::clamp<std::int64_t>(-left, 0, kernel_[2]);
  t.tap_end = std::clamp<std::int64_t>(job.in.width - left, t.tap_begin, kernel_[2]);
  t.weight_stride = bias_.numel();
  t.weights = packed().const_data_ptr<float>() + met.begin * kernel_[2] * t.weight_stride + channel;
  t.bias = bias_.const_data_ptr<float>() + channel;
  t.image = image + job.chain_image;
  t.row = oh * job.out.width + first;
  t.channel = channel;
  t.c = job.y + (image * job.rows + t.row - job.y_row) * job.y_stride + channel;
  t.c_stride = job.y_stride;
  t.channels = channels;
  t.count = last - first;
  t.chain = job.chain->data();
  t.steps = static_cast<std::int32_t>(job.chain->size());
  isa().depthwise_line(t);
}

// Lines [begin, end) of a phase of an image, those of all its frames counted as one.
void PackedWeights::run_depthwise_lines(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end) const {
  const std::int64_t width = job.columns;
  if (!has_depthwise_line(job)) return run_depthwise_rows(job, image, begin * width, end * width);
  const std::int64_t first = std::min(width, divide_up(padding_[2], stride_[2]));
  const std::int64_t room = job.in.width + padding_[2] - kernel_[2];
  const std::int64_t last = std::clamp(room < 0 ? 0 : room / stride_[2] + 1, first, width);
  // The lines under the kernel, of some channels, stay in the first-level cache from one line of results to the next.
  constexpr std::int64_t kNear = 96 << 10;
  const std::int64_t step = isa().lanes * 3, most = kNear / (kernel_[1] * job.in.width * 4) / step * step;
  for (std::int64_t channel = 0, channels; channel < groups_; channel += channels) {
    channels = std::min(groups_ - channel, std::max(step, most));
    for (std::int64_t oh = begin; oh < end; ++oh) {
      for (std::int64_t ow = 0; ow < first; ++ow) run_depthwise_line(job, image, oh, ow, ow + 1, channel, channels);
      if (first < last) run_depthwise_line(job, image, oh, first, last, channel, channels);
      for (std::int64_t ow = last; ow < width; ++ow) run_depthwise_line(job, image, oh, ow, ow + 1, channel, channels);
    }
  }
}

void PackedWeights::run_depthwise(const Job& all) const {
  packed();
  for (const Job& job : by_phase(all)) {
    const std::int64_t all_lines = job.frames * job.lines;
    const std::int64_t lines = std::clamp<std::int64_t>(job.images * all_lines / (4 * at::get_num_threads()), 1, 16);
    const std::int64_t chunks = divide_up(all_lines, lines);
    for_each_task(job.images * chunks, [&](std::int64_t i) {
      const std::int64_t image = i / chunks, piece = i % chunks;
      run_depthwise_lines(job, image, all_lines * piece / chunks, all_lines * (piece + 1) / chunks);
    });
  }
}

}  // namespace fusible::kernels
