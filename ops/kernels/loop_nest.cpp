// The loops around the micro-kernels: rows in chunks that stay in the second-level cache, panels of weights inside, tiles inside those.
// Tasks are (chunk, panel) pairs. They share no output and no sum is split.

#include "ops/kernels/loop_nest.h"

#include <algorithm>

namespace fusible::kernels {

namespace {

constexpr std::int64_t kCache = 1 << 20;  // bytes of the second-level cache that a chunk or the weights may count on

// Pixels of three channels from planes: images, which the compiler turns into shuffles of vectors.
void interleave(const float* __restrict__ red, const float* __restrict__ green, const float* __restrict__ blue, std::int64_t count, float* __restrict__ out) {
  for (std::int64_t i = 0; i < count; ++i) {
    out[3 * i] = red[i];
    out[3 * i + 1] = green[i];
    out[3 * i + 2] = blue[i];
  }
}

}  // namespace

std::vector<const float*>& row_pointers(std::int64_t count) {
  thread_local std::vector<const float*> rows;
  if (static_cast<std::int64_t>(rows.size()) < count) rows.resize(count);
  return rows;
}

const std::vector<Step>& stepping_chain(const std::vector<Step>& chain, std::int64_t image, std::int64_t row, std::int64_t distance) {
  thread_local std::vector<Step> stepping;
  stepping.assign(chain.begin(), chain.end());
  for (Step& step : stepping) {
    if (step.operand) step.operand += image * step.image_stride + row * step.row_stride;
    step.row_stride *= distance;
  }
  return stepping;
}

// The whole result lies evenly where there is one phase, else a line of a phase, whose neighbours are out_step(2) apart.
PackedWeights::Run PackedWeights::run_at(const Job& job, std::int64_t image, std::int64_t row) const {
  if (phases_.size() == 1) return {job.y + (image * job.rows + row - job.y_row) * job.y_stride, job.chain->data(), row};
  const std::int64_t line = row / job.columns, column = row % job.columns;
  const std::int64_t f = line / job.lines * out_step(0) + job.phase->first[0], h = line % job.lines * out_step(1) + job.phase->first[1];
  const std::int64_t first = (f * job.out.height + h) * job.out.width + job.phase->first[2];
  // The image is the tile's own.
  const std::vector<Step>& chain = stepping_chain(*job.chain, 0, first, out_step(2));
  return {job.y + (image * job.out.rows() + first + column * out_step(2)) * job.y_stride, chain.data(), column};
}

// Zero borders, channels innermost, so that the taps of a kernel row are one run of kw * in floats.
void PackedWeights::copy_padded(const float* x, const Pixels& p, float* to) const {
  const auto padded = [&](int d, std::int64_t size) { return size + padding_[d] + padding_end_[d]; };
  const std::int64_t frames = padded(0, p.frames), height = padded(1, p.height), width = padded(2, p.width);
  for_each_range(p.images * frames * height, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t line = begin; line < end; ++line) {
      const std::int64_t image = line / height / frames, f = line / height % frames - padding_[0], h = line % height - padding_[1];
      float* out = to + line * width * in_;
      if (f < 0 || f >= p.frames || h < 0 || h >= p.height) {
        std::fill_n(out, width * in_, 0.0f);
        continue;
      }
      std::fill_n(out, padding_[2] * in_, 0.0f);
      std::fill_n(out + (width - padding_end_[2]) * in_, padding_end_[2] * in_, 0.0f);
      out += padding_[2] * in_;
      const std::int64_t plane = p.rows();
      const float* const from = p.planar ? x + image * in_ * plane + (f * p.height + h) * p.width
                                         : x + ((image * p.frames + f) * p.height + h) * p.width * p.pixel_stride;
      if (p.planar && in_ == 3)
        interleave(from, from + plane, from + 2 * plane, p.width, out);
      else
        for (std::int64_t c = 0; c < in_; ++c) {
          const float* const channel = from + (p.planar ? c * plane : c);
          const std::int64_t step = p.planar ? 1 : p.pixel_stride;
          for (std::int64_t w = 0; w < p.width; ++w) out[w * in_ + c] = channel[w * step];
        }
    }
  });
}

void PackedWeights::point_rows(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end, const float** rows) const {
  const std::int64_t count = end - begin, stride = job.in.pixel_stride;
  const float* const zeros = zeros_.defined() ? zeros_.const_data_ptr<float>() : nullptr;
  if (is_pointwise()) {
    const float* first = job.x + (image * job.rows + begin - job.x_line * job.in.width) * stride;
    for (std::int64_t i = 0; i < count; ++i) rows[i] = first + i * stride;
    return;
  }
  const std::int64_t steps[3] = {in_step(0), in_step(1), in_step(2)};
  const auto& offsets = job.phase->offsets;
  // One run of results of a line at a time: along it the pointers of a tap step evenly between the borders.
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t row = image * job.rows + begin + i, ow = row % job.columns, oh = row / job.columns % job.lines;
    const std::int64_t of = row / job.columns / job.lines % job.frames, n = row / job.columns / job.lines / job.frames;
    const std::int64_t run = std::min(count - i, job.columns - ow);
    const float** to = rows + i;
    for (const std::int64_t frame : offsets[0]) {
      const std::int64_t f = of * steps[0] + frame;
      for (const std::int64_t above : offsets[1]) {
        const std::int64_t h = oh * steps[1] + above;
        const float* const line = job.x + ((n * job.in.frames + f) * job.in.height + h - job.x_line) * job.in.width * stride;
        const bool inside = f >= 0 && f < job.in.frames && h >= 0 && h < job.in.height;
        for (const std::int64_t left : offsets[2]) {
          // Output columns whose input column left + column * step lies in the image.
          const auto clip = [&](std::int64_t column) { return std::clamp<std::int64_t>(column - ow, 0, run); };
          const std::int64_t first = inside ? clip(left < 0 ? divide_up(-left, steps[2]) : 0) : run;
          const std::int64_t last =
              inside ? std::max(first, clip(job.in.width > left ? divide_up(job.in.width - left, steps[2]) : 0)) : run;
          std::fill(to, to + first, zeros);
          const float* p = line + (left + (ow + first) * steps[2]) * stride;
          for (std::int64_t j = first; j < last; ++j, p += steps[2] * stride) to[j] = p;
          std::fill(to + last, to + run, zeros);
          to += count;
        }
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

// Rows [begin, end) of a phase of an image meet one panel.
void PackedWeights::run_panel(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end, std::int64_t panel_index) const {
  const Isa& machine = isa();
  const std::int64_t group = panel_index / panels(), panel = panel_index % panels(), width = panel_width(panel), count = end - begin;
  const float** rows = row_pointers(count * job.taps).data();
  point_rows(job, image, begin, end, rows);
  if (group) {
    for (std::int64_t r = 0; r < count * job.taps; ++r) rows[r] += group * in_;
  }
  const std::int64_t first_tap = job.phase->begin * in_ * width;
  const char* const weights = static_cast<const char*>(packed().const_data_ptr()) + (group * group_weights_ + panel * panel_ * depth() + first_tap) * weight_size_;
  Tile t{};
  t.vectors = static_cast<std::int32_t>(width / machine.lanes);
  t.bfloat16 = pairs_;
  t.tap_stride = count;
  t.weight_stride = width;
  t.channel = group * out_ + panel * panel_;
  t.bias = bias_.const_data_ptr<float>() + group * panels() * panel_ + panel * panel_;
  t.columns = static_cast<std::int32_t>(std::min(width, out_ - panel * panel_));
  t.c_stride = job.y_stride * out_step(2);
  t.steps = static_cast<std::int32_t>(job.chain->size());
  t.image = image + job.chain_image;
  const std::int64_t most = machine.most_rows(t.vectors), all_tiles = divide_up(count, most);
  const bool heavy = is_heavy();
  t.ahead = heavy && all_tiles <= 2;  // more tiles meet the weights in the cache, and have time to fetch the next panel
  // The first panel meets pixels that no other has brought near: the next tile's are fetched during this one's products.
  const bool streams = panel_index == 0 && is_pointwise() && job.in.pixel_stride == in_;
  const std::int64_t parts = part_count(job);
  const float* const padding = zeros_.defined() ? zeros_.const_data_ptr<float>() + group * in_ : nullptr;
  const bool by_depth = job.taps == 1;  // how a long sum is divided; a phase may have no tap at all
  const std::int64_t split = by_depth ? job.depth : job.taps;
  for (std::int64_t part = 0; part < parts; ++part) {
    const auto bound = [&](std::int64_t i) { return by_depth && pairs_ ? split / 2 * i / parts * 2 : split * i / parts; };
    const std::int64_t from = bound(part), to = bound(part + 1);
    std::int64_t tile = 0;
    for (std::int64_t run_begin = begin, run_end; run_begin < end; run_begin = run_end) {
      run_end = phases_.size() == 1 ? end : std::min(end, (run_begin / job.columns + 1) * job.columns);
      const Run run = run_at(job, image, run_begin);
      t.chain = run.chain;
      const std::int64_t run_rows = run_end - run_begin, tiles = divide_up(run_rows, most);
      for (std::int64_t i = 0; i < tiles; ++i, ++tile) {
        const std::int64_t done_rows = run_rows * i / tiles;
        const std::int64_t first = run_begin - begin + done_rows, last = run_begin - begin + run_rows * (i + 1) / tiles;
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
        if (size <= 0 && split) continue;
        t.resume = at > taken.begin;
        t.finish = at + size == taken.end;
        t.taps = by_depth ? 1 : size;
        t.depth = by_depth ? size : job.depth;
        t.offset = by_depth ? at : 0;
        const std::int64_t done = by_depth ? at : at * job.depth;
        t.weights = weights + done * width * weight_size_;
        t.prefetch = weights;
        t.m = static_cast<std::int32_t>(last - first);
        t.rows = rows + first + (by_depth ? 0 : at * count);
        t.row = run.row + done_rows;
        t.c = run.c + done_rows * t.c_stride + t.channel;
        if (heavy) {
          // This tile's share of the same part of the next panel, which another thread may be at already.
          t.prefetch = weights + (width * depth() + width * (done + t.taps * t.depth * tile / all_tiles)) * weight_size_;
          t.prefetch_stride = divide_up(width, all_tiles) * weight_size_;
        } else if (streams && last < count) {
          t.prefetch = rows[last];
          t.prefetch_stride = t.m * 4;
        } else {
          t.prefetch_stride = 0;
        }
        machine.tile(t);
      }
    }
  }
}

// Rows that one task takes: their pixels stay in the cache while the panels pass by, their pointers in the first-level cache.
std::int64_t PackedWeights::chunk_rows(const Job& job) const {
  const std::int64_t row_bytes = std::max<std::int64_t>(1, in_channels() * 4 * in_step(0) * in_step(1) * in_step(2));
  return std::min(std::max<std::int64_t>(48, (is_heavy() ? kCache : kCache / 4) / row_bytes),
                  std::max<std::int64_t>(48, 4096 / std::max<std::int64_t>(1, job.taps)));
}

// Those that have results.
std::vector<PackedWeights::Job> PackedWeights::by_phase(const Job& job) const {
  if (phases_.size() == 1) return {job};
  std::vector<Job> jobs;
  for (const Phase& phase : phases_) {
    Job& part = jobs.emplace_back(job);
    const auto results = [&](int d, std::int64_t out) { return divide_up(std::max<std::int64_t>(0, out - phase.first[d]), out_step(d)); };
    part.phase = &phase;
    part.taps = phase.taps();
    part.frames = results(0, job.out.frames);
    part.lines = results(1, job.out.height);
    part.columns = results(2, job.out.width);
    part.rows = part.frames * part.lines * part.columns;
    if (part.rows == 0) jobs.pop_back();
  }
  return jobs;
}

void PackedWeights::run_panels(const Job& all) const {
  packed();
  const std::vector<Job> jobs = by_phase(all);
  const auto count = static_cast<std::int64_t>(jobs.size());
  const std::int64_t all_panels = groups_ * panels(), wanted = divide_up(4 * at::get_num_threads(), all_panels * all.images * count);
  // The first phase has the most results.
  const std::int64_t most = jobs.front().rows, chunk = std::min(chunk_rows(all), std::max<std::int64_t>(24, divide_up(most, wanted)));
  const std::int64_t chunks = divide_up(most, chunk), places = all.images * chunks;
  // Heavy weights are read once, so all rows meet a panel before the next one; else rows stay and phases and panels pass by.
  const bool heavy = is_heavy();
  for_each_task(places * count * all_panels, [&](std::int64_t i) {
    const std::int64_t panel = heavy ? i / (places * count) : i % all_panels, rest = heavy ? i % (places * count) : i / all_panels;
    const std::int64_t place = heavy ? rest % places : rest / count, image = place / chunks, piece = place % chunks;
    const Job& job = jobs[heavy ? rest / places : rest % count];
    const std::int64_t unit = phases_.size() == 1 ? 1 : job.columns, units = job.rows / unit;
    run_panel(job, image, units * piece / chunks * unit, units * (piece + 1) / chunks * unit, panel);
  });
}

// `x` as laid_out() gives it.
PackedWeights::Job PackedWeights::job_of(const float* x, const Pixels& pixels, float* y, std::int64_t y_stride, const std::vector<Step>& chain) const {
  const Pixels out = out_pixels(pixels);
  Job job{x, pixels, out, y, y_stride, &chain, 1, out.rows(), phases_[0].taps(), in_, &phases_[0], out.frames, out.height, out.width};
  if (padded_copy_) {
    job.in.frames += padding_[0] + padding_end_[0];
    job.in.height += padding_[1] + padding_end_[1];
    job.in.width += padding_[2] + padding_end_[2];
    job.in.pixel_stride = in_;
    job.depth = kernel_[2] * in_;
  }
  return job;
}

const float* PackedWeights::laid_out(const float* x, const Pixels& pixels, float* scratch) const {
  if (!padded_copy_) return x;
  copy_padded(x, pixels, scratch);
  return scratch;
}

void PackedWeights::run(const float* x, const Pixels& pixels, float* y, std::int64_t y_stride, const std::vector<Step>& chain,
                        bool rows_collapse, float* scratch) const {
  // A task of a depthwise or grouped kernel or of a residue class has lines of one image, by whose number operands are found.
  const bool one = (rows_collapse || pixels.images == 1) && !depthwise_ && !grouped_ && phases_.size() == 1;
  const bool alike = std::all_of(chain.begin(), chain.end(), [](const Step& step) { return !step.image_stride && !step.row_stride; });
  Job job = job_of(laid_out(x, pixels, scratch), one || alike ? with_frames_as_images(pixels) : pixels, y, y_stride, chain);
  if (one)
    job.rows *= job.out.images;
  else
    job.images = job.out.images;
  if (takes_winograd(job.out) && run_winograd(job, scratch)) return;
  depthwise_ ? run_depthwise(job) : grouped_ ? run_grouped(job) : run_panels(job);
}

std::int64_t PackedWeights::lines_spanned(std::int64_t lines) const {
  return (lines - 1) * stride_[1] + dilation_[1] * (kernel_[1] - 1) + 1;
}

Lines PackedWeights::lines_read(Lines y, std::int64_t height) const {
  const std::int64_t begin = y.begin * stride_[1] - padding_[1], end = begin + lines_spanned(y.end - y.begin);
  return {std::clamp<std::int64_t>(begin, 0, height), std::clamp<std::int64_t>(end, 0, height)};
}

Lines PackedWeights::kernel_lines_met(std::int64_t top, std::int64_t height) const {
  const std::int64_t begin = std::clamp<std::int64_t>(divide_up(-top, dilation_[1]), 0, kernel_[1]);
  return {begin, std::clamp<std::int64_t>(divide_up(height - top, dilation_[1]), begin, kernel_[1])};
}

void PackedWeights::run_lines(const float* x, std::int64_t x_line, const Pixels& pixels, float* y, Lines lines, const std::vector<Step>& chain,
                              std::int64_t image) const {
  Job job = job_of(x, pixels, y, out_channels(), chain);
  job.x_line = x_line;
  job.y_row = lines.begin * job.out.width;
  job.chain_image = image;
  if (depthwise_) return run_depthwise_lines(job, 0, lines.begin, lines.end);
  if (grouped_) return run_grouped_lines(job, 0, lines, {0, job.columns}, 0, vectors());
  const std::int64_t rows = lines.end * job.out.width - job.y_row, chunks = divide_up(rows, chunk_rows(job));
  for (std::int64_t piece = 0; piece < chunks; ++piece)
    for (std::int64_t panel = 0; panel < groups_ * panels(); ++panel)
      run_panel(job, 0, job.y_row + rows * piece / chunks, job.y_row + rows * (piece + 1) / chunks, panel);
}

}  // namespace fusible::kernels
