#pragma once
// Convolution in groups of few channels, three taps wide: a vector holds output channels of several groups, each lane meets the input of its
// own group, and a pixel is read once for all results of its line that it belongs to.

#include "ops/kernels/simd/tile.h"

namespace fusible::kernels {
namespace {

// Results of a block: their sums, three weights, a pixel and what spreads it stay in registers.
constexpr int kMostResults = kAccumulators > 16 ? 14 : 9;

template <Spread S>
struct PixelReader {
  std::int64_t offset, next;
  std::int32_t lanes;

  // Input channel i of each lane's group.
  Vector operator()(const float* pixel, std::int64_t i) const {
    pixel += offset + i;
    if constexpr (S == Spread::two_groups) return blend(splat(*pixel), splat(pixel[next]), lanes);
    return splat(*pixel);
  }
};

// Groups of a power of two of channels, in as out: lane l reads channel l / size * size + i of the lanes themselves.
template <>
struct PixelReader<Spread::within> {
  std::int64_t offset, next;
  std::int32_t lanes;

  Vector operator()(const float* pixel, std::int64_t i) const {
    Integers lane;
    for (int l = 0; l < kLanes; ++l) lane[l] = l;
    const auto size = static_cast<std::int32_t>(next);
    return pick(load(pixel + offset), (lane & -size) + static_cast<std::int32_t>(i));
  }
};

template <int M, int Stride, Spread S>
void grouped_block(const GroupedLine& t, std::int64_t first, const Step* bounds) {
  constexpr int kWidth = 3, kPixels = (M - 1) * Stride + kWidth;
  const PixelReader<S> read{t.offset, t.depth, t.lanes};
  Vector sum[M];
  FUSIBLE_UNROLL for (int m = 0; m < M; ++m) sum[m] = load(t.bias);
  const float* w = t.weights;
  for (std::int64_t line = 0; line < t.lines; ++line) {
    const float* const* const pixels = t.pixels + line * t.line_stride + first * Stride;
    for (std::int64_t i = 0; i < t.depth; ++i, w += kWidth * kLanes) {
      const Vector weights[kWidth] = {load(w), load(w + kLanes), load(w + 2 * kLanes)};
#pragma GCC unroll 32
      for (int p = 0; p < kPixels; ++p) {
        Vector x = read(pixels[p], i);
        in_register(x);
        // Pixel p is tap k of result m where m * Stride + k == p.
        FUSIBLE_UNROLL for (int m = 0; m < M; ++m) {
          const int k = p - m * Stride;
          if (k >= 0 && k < kWidth) sum[m] += x * weights[k];
        }
      }
    }
  }
  if (bounds) {
    const Vector low = splat(bounds->a), high = splat(bounds->b);
    FUSIBLE_UNROLL for (int m = 0; m < M; ++m) sum[m] = at_most(at_least(sum[m], low), high);
  }
  float* c = t.c + first * t.c_stride;
  FUSIBLE_UNROLL for (int m = 0; m < M; ++m, next_row(c, t.c_stride)) t.columns < kLanes ? store_part(c, sum[m], t.columns) : store(c, sum[m]);
}

using GroupedBlock = void (*)(const GroupedLine&, std::int64_t, const Step*);

struct GroupedBlocks {
  GroupedBlock of[2][3][kMostResults + 1] = {};

  template <int Stride, Spread S, int M = 1>
  constexpr void fill() {
    of[Stride - 1][static_cast<int>(S)][M] = grouped_block<M, Stride, S>;
    if constexpr (M < kMostResults) fill<Stride, S, M + 1>();
  }
  constexpr GroupedBlocks() {
    fill<1, Spread::one_group>(), fill<1, Spread::two_groups>(), fill<1, Spread::within>();
    fill<2, Spread::one_group>(), fill<2, Spread::two_groups>(), fill<2, Spread::within>();
  }
};
constexpr GroupedBlocks kGroupedBlocks;

// A line in blocks of about one size. The chain's head, where it is bounds, is taken in registers, the rest on the stored results.
void run_grouped_line(const GroupedLine& t) {
  const bool bounded = t.steps && t.chain->kind == StepKind::clamp;
  const std::int64_t blocks = (t.count + kMostResults - 1) / kMostResults;
  for (std::int64_t i = 0; i < blocks; ++i) {
    const std::int64_t first = t.count * i / blocks, count = t.count * (i + 1) / blocks - first;
    kGroupedBlocks.of[t.stride - 1][static_cast<int>(t.spread)][count](t, first, bounded ? t.chain : nullptr);
  }
  run_chain(t.c, t.c_stride, t.count, t.columns, t.chain + bounded, t.steps - bounded, t.image, t.row, t.channel);
}

}  // namespace
}  // namespace fusible::kernels
