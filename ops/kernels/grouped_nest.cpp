// The loops around the kernels of grouped convolutions: lines in chunks, each met by some vectors of channels.

#include "ops/kernels/loop_nest.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "ops/kernels/weight_memory.h"

namespace fusible::kernels {

namespace {

constexpr std::int64_t kWidth = 3;     // of the kernels that there are
constexpr std::int64_t kMostSum = 512;  // additions: rounding grows with them (loop_nest.cpp takes longer sums in parts)

// Whether each vector of results holds whole groups, whose inputs are the same channels.
bool lies_within(std::int64_t in, std::int64_t out, std::int64_t channels) {
  const std::int64_t lanes = isa().lanes;
  return in == out && lanes % out == 0 && channels % lanes == 0;
}

}  // namespace

// Groups of which a vector meets two at most, or some of a power of two of channels.
bool PackedWeights::takes_grouped_lines(const ContractionSpec& spec) {
  const at::Tensor& w = spec.weight;
  if (spec.kind != Contraction::conv || spec.groups == 1 || w.dim() > 4 || w.size(-1) != kWidth) return false;
  if (spec.stride.back() > 2 || spec.dilation.back() != 1) return false;
  const std::int64_t lanes = isa().lanes, in = w.size(1), out = w.size(0) / spec.groups;
  if (in == 1 || out == 1 || w.numel() / w.size(0) > kMostSum) return false;
  // Else a group's own panels fill their vectors, and a tile's rows share each weight (measured: 32, 48, 64 and 264 channels per group).
  if (out > lanes && 8 * out >= 7 * round_up(out, lanes)) return false;
  if (lies_within(in, out, w.size(0))) return true;
  for (std::int64_t first = 0; first < w.size(0); first += lanes)
    if (std::min(first + lanes, w.size(0)) > (first / out + 2) * out) return false;
  return true;
}

std::int64_t PackedWeights::vectors() const { return divide_up(out_channels(), isa().lanes); }

// Where kernel row `line` of output channel `o` has the weight of tap `tap` of its group's input channel `i`.
std::int64_t PackedWeights::grouped_index(std::int64_t o, std::int64_t line, std::int64_t i, std::int64_t tap) const {
  const std::int64_t lanes = isa().lanes;
  return (((o / lanes * kernel_[1] + line) * in_ + i) * kWidth + tap) * lanes + o % lanes;
}

at::Tensor PackedWeights::pack_grouped(const float* from) const {
  at::Tensor data = weight_memory(vectors() * isa().lanes * depth(), at::kFloat).zero_();
  float* const to = data.mutable_data_ptr<float>();
  for_each_grouped_weight([&](std::int64_t dense, std::int64_t packed) { to[packed] = from[dense]; });
  return data;
}

template <typename Visit>
void PackedWeights::for_each_grouped_weight(Visit visit) const {
  for_each_range(out_channels(), isa().lanes, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t o = begin; o < end; ++o)
      for (std::int64_t i = 0; i < in_; ++i)
        for (std::int64_t line = 0; line < kernel_[1]; ++line)
          for (std::int64_t tap = 0; tap < kWidth; ++tap) visit(((o * in_ + i) * kernel_[1] + line) * kWidth + tap, grouped_index(o, line, i, tap));
  });
}

void PackedWeights::unpack_grouped(const float* from, float* to) const {
  for_each_grouped_weight([&](std::int64_t dense, std::int64_t packed) { to[dense] = from[packed]; });
}

// Columns of lines of an image, channels of vectors [first, last).
void PackedWeights::run_grouped_lines(const Job& job, std::int64_t image, Lines lines, Lines columns, std::int64_t first, std::int64_t last) const {
  const std::int64_t lanes = isa().lanes, height = lines_spanned(lines.end - lines.begin), width = (columns.end - columns.begin - 1) * stride_[2] + kWidth;
  const std::int64_t top = lines.begin * stride_[1] - padding_[1], left = columns.begin * stride_[2] - padding_[2];
  const float** const pixels = row_pointers(height * width).data();
  for (std::int64_t line = std::max<std::int64_t>(0, -top); line < std::min(height, job.in.height - top); ++line) {
    const float* const x = job.x + (image * job.in.height + top + line - job.x_line) * job.in.width * job.in.pixel_stride;
    for (std::int64_t column = 0; column < width; ++column) {
      const std::int64_t w = left + column;
      pixels[line * width + column] = w >= 0 && w < job.in.width ? x + w * job.in.pixel_stride : zeros_.const_data_ptr<float>();
    }
  }
  GroupedLine t{};
  t.line_stride = dilation_[1] * width;
  t.stride = stride_[2];
  t.depth = in_;
  t.c_stride = job.y_stride;
  t.count = columns.end - columns.begin;
  t.chain = job.chain->data();
  t.steps = static_cast<std::int32_t>(job.chain->size());
  t.image = image + job.chain_image;
  const bool within = lies_within(in_, out_, out_channels());
  for (std::int64_t vector = first; vector < last; ++vector) {
    t.channel = vector * lanes;
    const std::int64_t group = t.channel / out_, rest = (group + 1) * out_ - t.channel;
    t.columns = static_cast<std::int32_t>(std::min(lanes, out_channels() - t.channel));
    t.spread = rest >= t.columns ? Spread::one_group : within ? Spread::within : Spread::two_groups;
    t.lanes = static_cast<std::int32_t>(rest);
    t.offset = group * in_;
    t.bias = bias_.const_data_ptr<float>() + t.channel;
    for (std::int64_t oh = lines.begin; oh < lines.end; ++oh) {
      const std::int64_t from = oh * stride_[1] - padding_[1];
      const Lines met = kernel_lines_met(from, job.in.height);
      t.pixels = pixels + (from - top + met.begin * dilation_[1]) * width;
      t.lines = met.end - met.begin;
      t.weights = packed().const_data_ptr<float>() + grouped_index(t.channel, met.begin, 0, 0);
      t.row = oh * job.out.width + columns.begin;
      t.c = job.y + (image * job.rows + t.row - job.y_row) * job.y_stride + t.channel;
      isa().grouped_line(t);
    }
  }
}

void PackedWeights::run_grouped(const Job& job) const {
  packed();
  // Few lines leave a thread less of the other's than few channels do, and weights are read once per chunk of them.
  constexpr std::int64_t kMostLines = 16, kMostColumns = 256;
  const std::int64_t threads = at::get_num_threads(), lines = std::clamp<std::int64_t>(divide_up(job.images * job.lines, threads), 1, kMostLines);
  const std::int64_t chunks = divide_up(job.lines, lines), pieces = divide_up(job.columns, kMostColumns), places = job.images * chunks * pieces;
  const std::int64_t parts = std::clamp<std::int64_t>(divide_up(4 * threads, places), 1, vectors());
  const auto share = [](std::int64_t size, std::int64_t i, std::int64_t of) { return Lines{size * i / of, size * (i + 1) / of}; };
  for_each_task(places * parts, [&](std::int64_t i) {
    const std::int64_t place = i / parts, chunk = place / pieces;
    const Lines of_vectors = share(vectors(), i % parts, parts);
    run_grouped_lines(job, chunk / chunks, share(job.lines, chunk % chunks, chunks), share(job.columns, place % pieces, pieces), of_vectors.begin, of_vectors.end);
  });
}

}  // namespace fusible::kernels
