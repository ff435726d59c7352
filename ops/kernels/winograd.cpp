// 3x3 convolutions of stride 1 by Winograd's F(2x2, 3x3) (simd/winograd.h): 4/9 of the products.
// A dilated kernel meets every d-th pixel of every d-th line: d * d images beside each other, of which each is convolved by itself.
// A task is a few lines of tiles: transformed, multiplied panel by panel as 16 matrix products and transformed back while they are near.

#include "ops/kernels/loop_nest.h"
#include "ops/kernels/weight_memory.h"

#include <array>

#include <ATen/ATen.h>

namespace fusible::kernels {
namespace {

constexpr std::int64_t kProducts = 16;
constexpr std::int64_t kBlock = 1 << 20;         // bytes of transformed tiles that a task may keep in the second-level cache
constexpr std::int64_t kLeastTiles = 40;         // below, the 16/9 larger weights cost more than the saved products
constexpr std::int64_t kMostChannels = 1 << 14;
constexpr std::int64_t kMostWeights = 2 << 20;   // bytes of transformed weights that are read again for each task

// Kept per thread, as the row pointers are.
float* buffer(std::int64_t floats) {
  thread_local std::vector<float> memory;
  if (static_cast<std::int64_t>(memory.size()) < floats) memory.resize(floats);
  return memory.data();
}

// A pixel outside the image, and the bias of a bare product.
const float* zeros() {
  static const std::vector<float> list(kMostChannels);
  return list.data();
}

}  // namespace

bool PackedWeights::fits_winograd() const {
  const std::int64_t lanes = isa().lanes;
  if (kernel_[1] != 3 || kernel_[2] != 3 || stride_[1] != 1 || stride_[2] != 1 || dilation_[1] != dilation_[2] || groups_ != 1)
    return false;
  if (!frames_apart_ || transposed_) return false;
  if (padding_[1] % dilation_[1] != 0 || padding_[2] % dilation_[1] != 0) return false;  // a part would read another part's pixels
  return !padded_copy_ && in_ % lanes == 0 && out_ % lanes == 0 && in_ >= 32 && out_ >= 32 && in_ <= kMostChannels;
}

bool PackedWeights::takes_winograd(const Pixels& out) const {
  if (!fits_winograd() || out.frames != 1 || tile_columns(out) * kProducts * in_ * 4 > kBlock || out.images * winograd_tiles(out) < kLeastTiles) return false;
  // Parts of few pixels leave tiles half empty, and a direct sum leaves out most taps of a kernel as large as the image.
  return dilation_[1] == 1 || 5 * kProducts * winograd_tiles(out) <= 3 * 9 * out.height * out.width;
}

// Of the largest part.
std::int64_t PackedWeights::tile_lines(const Pixels& out) const { return divide_up(out.height, 2 * dilation_[1]); }
std::int64_t PackedWeights::tile_columns(const Pixels& out) const { return divide_up(out.width, 2 * dilation_[1]); }
std::int64_t PackedWeights::winograd_tiles(const Pixels& out) const { return parts_of_image() * tile_lines(out) * tile_columns(out); }

// Part (line, column) of an image: pixels (line + i * dilation, column + j * dilation).
struct PackedWeights::ImagePart {
  std::int64_t image, line, column, step;
  std::int64_t lines(const Pixels& p) const { return std::max<std::int64_t>(0, divide_up(p.height - line, step)); }
  std::int64_t columns(const Pixels& p) const { return std::max<std::int64_t>(0, divide_up(p.width - column, step)); }
  std::int64_t first_pixel(const Pixels& p) const { return (image * p.height + line) * p.width + column; }
};

PackedWeights::ImagePart PackedWeights::part_of(std::int64_t index) const {
  const std::int64_t step = dilation_[1], part = index % (step * step);
  return {index / (step * step), part / step, part % step, step};
}

// Weights that do not stay in the cache are read once, for all tiles of an image, unless there are many more tiles than weights (measured:
// docs/performance.md).
bool PackedWeights::transforms_first(const Pixels& out) const {
  const std::int64_t weights = kProducts * in_ * out_ * 4, tiles = kProducts * in_ * winograd_tiles(out) * 4;
  return weights > 3 * kMostWeights || (weights > kMostWeights && tiles < 2 * weights);
}

// U = G g Gt with G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1], in float64: from the panels [panel][9][in][panel width] to
// [panel][16][in][panel width].
at::Tensor PackedWeights::transform_weights() const {
  const at::Tensor panels_as_float = packed().to(at::kFloat);
  const float* const from = panels_as_float.const_data_ptr<float>();
  at::Tensor data = weight_memory(kProducts * in_ * out_);
  float* const to = data.mutable_data_ptr<float>();
  // A line of the cache at a time: 9 are read and 16 written, whose addresses often differ by a power of two.
  using Line = std::array<double, 16>;
  // g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2
  const auto transform = [](const Line& g0, const Line& g1, const Line& g2, Line* u, std::int64_t stride) {
    for (size_t l = 0; l < g0.size(); ++l) {
      const double even = (g0[l] + g2[l]) * 0.5, odd = g1[l] * 0.5;
      u[0][l] = g0[l];
      u[stride][l] = even + odd;
      u[2 * stride][l] = even - odd;
      u[3 * stride][l] = g2[l];
    }
  };
  for_each_task(panels() * in_, [&](std::int64_t task) {
    const std::int64_t panel = task / in_, i = task % in_, width = panel_width(panel), channel = panel * panel_;
    const float* const g = from + channel * depth();
    float* const u = to + kProducts * in_ * channel + i * width;
    Line taps[9]{}, rows[4 * 3], all[kProducts];
    for (std::int64_t o = 0; o < width; o += 16) {
      const std::int64_t count = std::min<std::int64_t>(16, width - o);
      for (std::int64_t tap = 0; tap < 9; ++tap)
        for (std::int64_t l = 0; l < count; ++l) taps[tap][l] = g[panel_index(tap * in_ + i, o + l, width)];
      for (std::int64_t column = 0; column < 3; ++column) transform(taps[column], taps[3 + column], taps[6 + column], rows + column, 3);
      for (std::int64_t row = 0; row < 4; ++row) transform(rows[row * 3], rows[row * 3 + 1], rows[row * 3 + 2], all + row * 4, 1);
      for (std::int64_t product = 0; product < kProducts; ++product)
        for (std::int64_t l = 0; l < count; ++l) u[product * in_ * width + o + l] = static_cast<float>(all[product][l]);
    }
  });
  return data;
}

const at::Tensor& PackedWeights::winograd_weights() const {
  std::call_once(winograd_once_, [this] {
    winograd_ = made([this] { return transform_weights(); });
    values_->add_derived(static_cast<std::int64_t>(winograd_.nbytes()));
  });
  return winograd_;
}

bool PackedWeights::transform_tiles(const Job& job, std::int64_t index, std::int64_t first, std::int64_t count, float* v,
                                    std::int64_t v_stride) const {
  const ImagePart part = part_of(index);
  const std::int64_t pixel = part.step * job.in.pixel_stride;
  return isa().winograd_input({job.x + part.first_pixel(job.in) * job.in.pixel_stride, pixel, pixel * job.in.width, part.lines(job.in),
                               part.columns(job.in), padding_[1] / part.step, padding_[2] / part.step, zeros(), first, count,
                               tile_columns(job.out), in_, v, v_stride});
}

bool PackedWeights::multiply_tiles(const Job& job, std::int64_t index, std::int64_t first, std::int64_t count, std::int64_t panel,
                                   const float* v, std::int64_t v_stride, float* m) const {
  const Isa& machine = isa();
  const ImagePart part = part_of(index);
  const std::int64_t tiles = count * tile_columns(job.out), width = panel_width(panel), channel = panel * panel_;
  thread_local std::vector<const float*> rows;
  rows.resize(tiles);
  for (std::int64_t t = 0; t < tiles; ++t) rows[t] = v + t * in_;
  Tile t{};
  t.vectors = static_cast<std::int32_t>(width / machine.lanes);
  t.taps = 1;
  t.depth = in_;
  t.tap_stride = tiles;
  t.weight_stride = t.c_stride = width;
  t.columns = static_cast<std::int32_t>(width);
  t.finish = true;
  t.bias = zeros();
  const std::int64_t pieces = divide_up(tiles, machine.most_rows(t.vectors));
  for (std::int64_t product = 0; product < kProducts; ++product) {
    const float* const weights = winograd_weights().const_data_ptr<float>() + kProducts * in_ * channel + product * in_ * width;
    t.weights = weights;
    t.offset = product * v_stride;
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      const std::int64_t begin = tiles * piece / pieces;
      t.m = static_cast<std::int32_t>(tiles * (piece + 1) / pieces - begin);
      // This piece's share of the next product's weights, which lie behind these.
      t.prefetch = weights + in_ * width + in_ * width * piece / pieces;
      t.prefetch_stride = divide_up(width, pieces) * 4;
      t.rows = rows.data() + begin;
      t.c = m + (product * tiles + begin) * width;
      machine.tile(t);
    }
  }
  // Rows of all images are counted as one where they collapse.
  const bool collapsed = job.images == 1;
  const std::int64_t row = part.first_pixel(job.out) - (collapsed ? 0 : part.image * job.out.height * job.out.width);
  const std::vector<Step>& chain = stepping_chain(*job.chain, collapsed ? 0 : part.image, row, part.step);
  return machine.winograd_output({m, tiles * width, width, bias_.const_data_ptr<float>() + channel,
                                  job.y + part.first_pixel(job.out) * job.y_stride + channel, part.step * job.y_stride,
                                  part.step * job.y_stride * job.out.width, part.lines(job.out), part.columns(job.out), first, count,
                                  tile_columns(job.out), chain.data(), static_cast<std::int32_t>(chain.size()), 0, 0, channel, job.out.width});
}

// False: a number was not finite, and nothing that was written counts.
bool PackedWeights::run_winograd(const Job& job, float* scratch) const {
  winograd_weights();
  const std::int64_t columns = tile_columns(job.out), all_lines = tile_lines(job.out), images = job.out.images * parts_of_image();
  const std::int64_t threads = at::get_num_threads();
  const bool first_all = transforms_first(job.out);
  std::int64_t lines = std::max<std::int64_t>(1, (first_all ? kBlock : kBlock / 2) / (columns * kProducts * (first_all ? panel_ : in_) * 4));
  const std::int64_t tasks_per_line = images * (first_all ? panels() : 1);
  lines = std::min(lines, divide_up(all_lines * tasks_per_line, 2 * threads));
  const std::int64_t blocks = divide_up(all_lines, lines);
  const auto first_of = [&](std::int64_t block) { return all_lines * block / blocks; };
  const auto most_tiles = divide_up(all_lines, blocks) * columns;
  std::atomic<bool> finite{true};
  if (!first_all) {
    // With fewer blocks than threads each block is transformed once for each group of panels.
    const std::int64_t groups = std::min(panels(), std::max<std::int64_t>(1, threads / (blocks * images)));
    for_each_task(images * blocks * groups, [&](std::int64_t i) {
      const std::int64_t group = i % groups, block = i / groups % blocks, image = i / groups / blocks;
      const std::int64_t first = first_of(block), count = first_of(block + 1) - first, v_stride = count * columns * in_;
      float* const v = buffer(kProducts * most_tiles * (in_ + panel_));
      bool good = finite && transform_tiles(job, image, first, count, v, v_stride);
      for (std::int64_t panel = panels() * group / groups; good && panel < panels() * (group + 1) / groups; ++panel)
        good = multiply_tiles(job, image, first, count, panel, v, v_stride, v + kProducts * most_tiles * in_);
      if (!good) finite = false;
    });
    return finite;
  }
  const std::int64_t v_stride = all_lines * columns * in_;
  const auto tiles_of = [&](std::int64_t image, std::int64_t first) { return scratch + image * kProducts * v_stride + first * columns * in_; };
  for_each_task(images * all_lines, [&](std::int64_t i) {
    if (!transform_tiles(job, i / all_lines, i % all_lines, 1, tiles_of(i / all_lines, i % all_lines), v_stride)) finite = false;
  });
  if (!finite) return false;
  for_each_task(panels() * images * blocks, [&](std::int64_t i) {
    const std::int64_t block = i % blocks, image = i / blocks % images, first = first_of(block);
    float* const m = buffer(kProducts * most_tiles * panel_);
    if (!multiply_tiles(job, image, first, first_of(block + 1) - first, i / blocks / images, tiles_of(image, first), v_stride, m)) finite = false;
  });
  return finite;
}

}  // namespace fusible::kernels
