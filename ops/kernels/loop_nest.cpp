// The loops around the micro-kernels: rows in chunks that stay in the second-level cache, panels of weights inside, tiles inside those.
// Tasks are (chunk, panel) pairs. They share no output and no sum is split.

#include "ops/kernels/loop_nest.h"

#include <algorithm>

namespace fusible::kernels {

namespace {

constexpr std::int64_t kCache = 1 << 20;  // bytes of the second-level cache that a chunk or the weights may count on

// Kept per thread: a call allocates only when it needs more rows than any before it.
std::vector<const float*>& row_pointers(std::int64_t count) {
  thread_local std::vector<const float*> rows;
  if (static_cast<std::int64_t>(rows.size()) < count) rows.resize(count);
  return rows;
}

// Pixels of three channels from planes: images, which the compiler turns into shuffles of vectors.
void interleave(const float* __restrict__ red, const float* __restrict__ green, const float* __restrict__ blue, std::int64_t count, float* __restrict__ out) {
  for (std::int64_t i = 0; i < count; ++i) {
    out[3 * i] = red[i];
    out[3 * i + 1] = green[i];
    out[3 * i + 2] = blue[i];
  }
}

}  // namespace

// Zero borders, NHWC, so that the taps of a kernel row are one run of kw * in floats.
void PackedWeights::copy_padded(const float* x, const Pixels& p, float* to) const {
  const std::int64_t height = p.height + padding_[0] + padding_end_[0], width = p.width + padding_[1] + padding_end_[1];
  at::parallel_for(0, p.images * height, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t line = begin; line < end; ++line) {
      const std::int64_t image = line / height, h = line % height - padding_[0];
      float* out = to + line * width * in_;
      if (h < 0 || h >= p.height) {
        std::fill_n(out, width * in_, 0.0f);
        continue;
      }
      std::fill_n(out, padding_[1] * in_, 0.0f);
      std::fill_n(out + (width - padding_end_[1]) * in_, padding_end_[1] * in_, 0.0f);
      out += padding_[1] * in_;
      const float* const from = p.planar ? x + (image * in_ * p.height + h) * p.width : x + (image * p.height + h) * p.width * p.pixel_stride;
      if (p.planar && in_ == 3)
        interleave(from, from + p.height * p.width, from + 2 * p.height * p.width, p.width, out);
      else
        for (std::int64_t c = 0; c < in_; ++c) {
          const float* const channel = from + (p.planar ? c * p.height * p.width : c);
          const std::int64_t step = p.planar ? 1 : p.pixel_stride;
          for (std::int64_t w = 0; w < p.width; ++w) out[w * in_ + c] = channel[w * step];
        }
    }
  });
}

void PackedWeights::point_rows(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end, const float** rows) const {
  const std::int64_t count = end - begin, per_image = job.out.height * job.out.width;
  const std::int64_t stride = job.in.pixel_stride;
  const float* const zeros = zeros_.defined() ? zeros_.const_data_ptr<float>() : nullptr;
  if (is_pointwise()) {
    const float* first = job.x + (image * job.rows + begin - job.x_line * job.in.width) * stride;
    for (std::int64_t i = 0; i < count; ++i) rows[i] = first + i * stride;
    return;
  }
  // One run of output pixels of a line at a time: along it the pointers of a tap step evenly between the borders.
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t row = image * job.rows + begin + i;
    const std::int64_t n = row / per_image, oh = row % per_image / job.out.width, ow = row % job.out.width;
    const std::int64_t run = std::min(count - i, job.out.width - ow);
    for (std::int64_t kh = 0; kh < kernel_[0]; ++kh) {
      const std::int64_t h = oh * stride_[0] + kh * dilation_[0] - (padded_copy_ ? 0 : padding_[0]);
      const float* const line = job.x + (n * job.in.height + h - job.x_line) * job.in.width * stride;
      const bool inside = h >= 0 && h < job.in.height;
      for (std::int64_t kw = 0; kw < job.taps / kernel_[0]; ++kw) {
        const float** const to = rows + (kh * (job.taps / kernel_[0]) + kw) * count + i;
        const std::int64_t left = kw * dilation_[1] - (padded_copy_ ? 0 : padding_[1]);
        // Output columns whose input column left + column * stride lies in the image.
        const auto clip = [&](std::int64_t column) { return std::clamp<std::int64_t>(column - ow, 0, run); };
        const std::int64_t first = inside ? clip(left < 0 ? divide_up(-left, stride_[1]) : 0) : run;
        const std::int64_t last =
            inside ? std::max(first, clip(job.in.width > left ? divide_up(job.in.width - left, stride_[1]) : 0)) : run;
        std::fill(to, to + first, zeros);
        const float* p = line + (left + (ow + first) * stride_[1]) * stride;
        for (std::int64_t j = first; j < last; ++j, p += stride_[1] * stride) to[j] = p;
        std::fill(to + last, to + run, zeros);
      }
    }
    i += run;
  }
}

// Long sums are taken in parts, so that a part of a panel stays near while it meets every tile: the same additions in the same order.
std::int64_t PackedWeights::part_count(const Job& job) const {
  constexpr std::int64_t kPart = 512;  // additions
  const std::int64_t parts = job.taps * job.depth / kPart;
  return std::clamp<std::int64_t>(parts, 1, job.taps > 1 ? job.taps : parts + 1);
}

bool PackedWeights::is_heavy() const { return weight_bytes() > kCache; }

// Rows [begin, end) of an image meet one panel.
void PackedWeights::run_panel(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end, std::int64_t panel_index) const {
  const Isa& machine = isa();
  const std::int64_t group = panel_index / panels(), panel = panel_index % panels(), width = panel_width(panel), count = end - begin;
  const float** rows = row_pointers(count * job.taps).data();
  point_rows(job, image, begin, end, rows);
  if (group) {
    for (std::int64_t r = 0; r < count * job.taps; ++r) rows[r] += group * in_;
  }
  const float* weights = packed().const_data_ptr<float>() + group * group_floats_ + panel * panel_ * depth();
  Tile t{};
  t.vectors = static_cast<std::int32_t>(width / machine.lanes);
  t.tap_stride = count;
  t.weight_stride = width;
  t.channel = group * out_ + panel * panel_;
  t.bias = bias_.const_data_ptr<float>() + group * panels() * panel_ + panel * panel_;
  t.columns = static_cast<std::int32_t>(std::min(width, out_ - panel * panel_));
  t.c_stride = job.y_stride;
  t.chain = job.chain->data();
  t.steps = static_cast<std::int32_t>(job.chain->size());
  t.image = image + job.chain_image;
  const std::int64_t tiles = divide_up(count, machine.most_rows(t.vectors));
  const bool heavy = is_heavy();
  // The first panel meets pixels that no other has brought near: the next tile's are fetched during this one's products.
  const bool streams = panel_index == 0 && is_pointwise() && job.in.pixel_stride == in_;
  // A cut tile is summed in scratch memory, in one part.
  const std::int64_t parts = t.columns == width ? part_count(job) : 1;
  const float* const padding = zeros_.defined() && t.columns == width ? zeros_.const_data_ptr<float>() + group * in_ : nullptr;
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t split = job.taps > 1 ? job.taps : job.depth, from = split * part / parts, to = split * (part + 1) / parts;
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const std::int64_t first = count * tile / tiles, last = count * (tile + 1) / tiles;
      // Taps before and behind which all rows read padding: most of a kernel whose dilation is that of the image.
      Lines taken{0, split};
      if (padding && job.taps > 1) {
        const auto is_padding = [&](std::int64_t tap) {
          return std::all_of(rows + tap * count + first, rows + tap * count + last, [&](const float* row) { return row == padding; });
        };
        while (taken.begin + 1 < taken.end && is_padding(taken.begin)) ++taken.begin;
        while (taken.begin + 1 < taken.end && is_padding(taken.end - 1)) --taken.end;
      }
      const std::int64_t at = std::max(from, taken.begin), size = std::min(to, taken.end) - at;
      if (size <= 0) continue;
      t.resume = at > taken.begin;
      t.finish = at + size == taken.end;
      t.taps = job.taps > 1 ? size : 1;
      t.depth = job.taps > 1 ? job.depth : size;
      t.offset = job.taps > 1 ? 0 : at;
      const std::int64_t done = job.taps > 1 ? at * job.depth : at;
      t.weights = weights + done * width;
      t.prefetch = weights;
      t.m = static_cast<std::int32_t>(last - first);
      t.rows = rows + first + (job.taps > 1 ? at * count : 0);
      t.row = begin + first;
      t.c = job.y + (image * job.rows + t.row - job.y_row) * job.y_stride + t.channel;
      if (heavy) {
        // This tile's share of the same part of the next panel, which another thread may be at already.
        t.prefetch = weights + width * depth() + width * (done + t.taps * t.depth * tile / tiles);
        t.prefetch_stride = divide_up(width, tiles);
      } else if (streams && last < count) {
        t.prefetch = rows[last];
        t.prefetch_stride = t.m;
      } else {
        t.prefetch_stride = 0;
      }
      machine.tile(t);
    }
  }
}

// Rows that one task takes: their pixels stay in the cache while the panels pass by, their pointers in the first-level cache.
std::int64_t PackedWeights::chunk_rows(const Job& job) const {
  const std::int64_t row_bytes = std::max<std::int64_t>(1, in_channels() * 4 * stride_[0] * stride_[1]);
  return std::min(std::max<std::int64_t>(48, (is_heavy() ? kCache : kCache / 4) / row_bytes), std::max<std::int64_t>(48, 4096 / job.taps));
}

void PackedWeights::run_panels(const Job& job) const {
  packed();
  const std::int64_t all_panels = groups_ * panels(), wanted = divide_up(4 * at::get_num_threads(), all_panels * job.images);
  const std::int64_t chunk = std::min(chunk_rows(job), std::max<std::int64_t>(24, divide_up(job.rows, wanted)));
  const std::int64_t chunks = divide_up(job.rows, chunk);
  // Heavy weights are read once, so all rows meet a panel before the next one; else rows stay and panels pass by.
  const bool heavy = is_heavy();
  for_each_task(job.images * chunks * all_panels, [&](std::int64_t i) {
    const std::int64_t panel = heavy ? i / (chunks * job.images) : i % all_panels;
    const std::int64_t rest = heavy ? i % (chunks * job.images) : i / all_panels;
    const std::int64_t image = rest / chunks, piece = rest % chunks;
    run_panel(job, image, job.rows * piece / chunks, job.rows * (piece + 1) / chunks, panel);
  });
}

// Rows [begin, end) of an image, each by the pointers to its taps.
void PackedWeights::run_depthwise_rows(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end) const {
  const Isa& machine = isa();
  const std::int64_t count = end - begin;
  const float** rows = row_pointers(count * job.taps).data();
  point_rows(job, image, begin, end, rows);
  DepthwiseTile t{};
  t.tap_stride = count;
  t.taps = job.taps;
  t.weights = packed().const_data_ptr<float>();
  t.weight_stride = bias_.numel();
  t.bias = bias_.const_data_ptr<float>();
  t.c_stride = job.y_stride;
  t.channels = groups_;
  t.chain = job.chain->data();
  t.steps = static_cast<std::int32_t>(job.chain->size());
  t.image = image + job.chain_image;
  for (std::int64_t first = 0; first < count; first += t.m) {
    t.m = static_cast<std::int32_t>(std::min<std::int64_t>(machine.depthwise_rows, count - first));
    t.rows = rows + first;
    t.row = begin + first;
    t.c = job.y + (image * job.rows + t.row - job.y_row) * job.y_stride;
    machine.depthwise(t);
  }
}

bool PackedWeights::has_depthwise_line() const {
  return dilation_[1] == 1 && kernel_[0] <= DepthwiseLine::kMostLines && isa().has_line(kernel_[1], stride_[1]);
}

// Columns [first, last) of line `oh`, whose taps all lie between the left and the right border; or one column.
void PackedWeights::run_depthwise_line(const Job& job, std::int64_t image, std::int64_t oh, std::int64_t first, std::int64_t last,
                                       std::int64_t channel, std::int64_t channels) const {
  DepthwiseLine t{};
  const std::int64_t top = oh * stride_[0] - padding_[0], left = first * stride_[1] - padding_[1];
  const std::int64_t begin = top < 0 ? divide_up(-top, dilation_[0]) : 0;
  const std::int64_t end = std::clamp<std::int64_t>(divide_up(job.in.height - top, dilation_[0]), begin, kernel_[0]);
  for (std::int64_t kh = begin; kh < end; ++kh)
    t.lines[kh - begin] = job.x + ((image * job.in.height + top + kh * dilation_[0] - job.x_line) * job.in.width + left) * job.in.pixel_stride + channel;
  t.pixel_stride = job.in.pixel_stride;
  t.kernel_height = end - begin;
  t.kernel_width = kernel_[1];
  t.stride = stride_[1];
  t.tap_begin = std::clamp<std::int64_t>(-left, 0, kernel_[1]);
  t.tap_end = std::clamp<std::int64_t>(job.in.width - left, t.tap_begin, kernel_[1]);
  t.weight_stride = bias_.numel();
  t.weights = packed().const_data_ptr<float>() + begin * kernel_[1] * t.weight_stride + channel;
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

// Lines [begin, end) of an image.
void PackedWeights::run_depthwise_lines(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end) const {
  const std::int64_t width = job.out.width;
  if (!has_depthwise_line()) return run_depthwise_rows(job, image, begin * width, end * width);
  const std::int64_t first = std::min(width, divide_up(padding_[1], stride_[1]));
  const std::int64_t room = job.in.width + padding_[1] - kernel_[1];
  const std::int64_t last = std::clamp(room < 0 ? 0 : room / stride_[1] + 1, first, width);
  // The lines under the kernel, of some channels, stay in the first-level cache from one line of results to the next.
  constexpr std::int64_t kNear = 96 << 10;
  const std::int64_t step = isa().lanes * 3, most = kNear / (kernel_[0] * job.in.width * 4) / step * step;
  for (std::int64_t channel = 0, channels; channel < groups_; channel += channels) {
    channels = std::min(groups_ - channel, std::max(step, most));
    for (std::int64_t oh = begin; oh < end; ++oh) {
      for (std::int64_t ow = 0; ow < first; ++ow) run_depthwise_line(job, image, oh, ow, ow + 1, channel, channels);
      if (first < last) run_depthwise_line(job, image, oh, first, last, channel, channels);
      for (std::int64_t ow = last; ow < width; ++ow) run_depthwise_line(job, image, oh, ow, ow + 1, channel, channels);
    }
  }
}

void PackedWeights::run_depthwise(const Job& job) const {
  packed();
  const std::int64_t images = job.out.images, lines = std::clamp<std::int64_t>(images * job.out.height / (4 * at::get_num_threads()), 1, 16);
  const std::int64_t chunks = divide_up(job.out.height, lines);
  for_each_task(images * chunks, [&](std::int64_t i) {
    const std::int64_t image = i / chunks, piece = i % chunks;
    run_depthwise_lines(job, image, job.out.height * piece / chunks, job.out.height * (piece + 1) / chunks);
  });
}

// `x` as laid_out() gives it.
PackedWeights::Job PackedWeights::job_of(const float* x, const Pixels& pixels, float* y, std::int64_t y_stride, const std::vector<Step>& chain) const {
  Job job{x, pixels, out_pixels(pixels), y, y_stride, &chain, 1, 0, kernel_[0] * kernel_[1], in_};
  if (padded_copy_) {
    job.in.height += padding_[0] + padding_end_[0];
    job.in.width += padding_[1] + padding_end_[1];
    job.in.pixel_stride = in_;
    job.taps = kernel_[0];
    job.depth = kernel_[1] * in_;
  }
  job.rows = job.out.height * job.out.width;
  return job;
}

const float* PackedWeights::laid_out(const float* x, const Pixels& pixels, float* scratch) const {
  if (!padded_copy_) return x;
  copy_padded(x, pixels, scratch);
  return scratch;
}

void PackedWeights::run(const float* x, const Pixels& pixels, float* y, std::int64_t y_stride, const std::vector<Step>& chain,
                        bool rows_collapse, float* scratch) const {
  Job job = job_of(laid_out(x, pixels, scratch), pixels, y, y_stride, chain);
  if (rows_collapse && !depthwise_)  // a depthwise task has lines of one image
    job.rows *= job.out.images;
  else
    job.images = job.out.images;
  if (takes_winograd(job.out) && run_winograd(job, scratch)) return;
  depthwise_ ? run_depthwise(job) : run_panels(job);
}

std::int64_t PackedWeights::lines_spanned(std::int64_t lines) const { return (lines - 1) * stride_[0] + dilation_[0] * (kernel_[0] - 1) + 1; }

Lines PackedWeights::lines_read(Lines y, std::int64_t height) const {
  const std::int64_t begin = y.begin * stride_[0] - padding_[0], end = begin + lines_spanned(y.end - y.begin);
  return {std::clamp<std::int64_t>(begin, 0, height), std::clamp<std::int64_t>(end, 0, height)};
}

void PackedWeights::run_lines(const float* x, std::int64_t x_line, const Pixels& pixels, float* y, Lines lines, const std::vector<Step>& chain,
                              std::int64_t image) const {
  Job job = job_of(x, pixels, y, out_channels(), chain);
  job.x_line = x_line;
  job.y_row = lines.begin * job.out.width;
  job.chain_image = image;
  if (depthwise_) return run_depthwise_lines(job, 0, lines.begin, lines.end);
  const std::int64_t rows = lines.end * job.out.width - job.y_row, chunks = divide_up(rows, chunk_rows(job));
  for (std::int64_t piece = 0; piece < chunks; ++piece)
    for (std::int64_t panel = 0; panel < groups_ * panels(); ++panel)
      run_panel(job, 0, job.y_row + rows * piece / chunks, job.y_row + rows * (piece + 1) / chunks, panel);
}

}  // namespace fusible::kernels
