#pragma once
// Depthwise convolution and pooling: channels in vectors, taps in the order of the kernel.

#include "ops/kernels/simd/tile.h"

namespace fusible::kernels {
namespace {

constexpr int kDepthwiseRows = 4;

template <int M, int N, bool Part>
inline void depthwise_block(const DepthwiseTile& t, std::int64_t at, std::int64_t width) {
  Vector sum[M][N];
  for (int n = 0; n < N; ++n)
    for (int m = 0; m < M; ++m) sum[m][n] = load(t.bias + at + n * kLanes);
  for (std::int64_t tap = 0; tap < t.taps; ++tap) {
    Vector w[N];
    for (int n = 0; n < N; ++n) w[n] = load(t.weights + tap * t.weight_stride + at + n * kLanes);
    for (int m = 0; m < M; ++m) {
      const float* row = t.rows[tap * t.tap_stride + m] + at;
      for (int n = 0; n < N; ++n) sum[m][n] += (Part ? load_part(row, width) : load(row + n * kLanes)) * w[n];
    }
  }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) {
      float* c = t.c + m * t.c_stride + at + n * kLanes;
      Part ? store_part(c, sum[m][n], width) : store(c, sum[m][n]);
    }
}

template <int M>
void depthwise_rows(const DepthwiseTile& t) {
  std::int64_t at = 0;
  for (; at + 4 * kLanes <= t.channels; at += 4 * kLanes) depthwise_block<M, 4, false>(t, at, 0);
  for (; at + 2 * kLanes <= t.channels; at += 2 * kLanes) depthwise_block<M, 2, false>(t, at, 0);
  for (; at + kLanes <= t.channels; at += kLanes) depthwise_block<M, 1, false>(t, at, 0);
  if (at < t.channels) depthwise_block<M, 1, true>(t, at, t.channels - at);
}

void run_depthwise(const DepthwiseTile& t) {
  static constexpr void (*kRows[])(const DepthwiseTile&) = {depthwise_rows<1>, depthwise_rows<2>, depthwise_rows<3>, depthwise_rows<4>};
  kRows[t.m - 1](t);
  run_chain(t.c, t.c_stride, t.m, t.channels, t.chain, t.steps, t.image, t.row, 0);
}

// Neighbours in a line read the same pixels: each is loaded once and meets every result that it belongs to. The order of each sum is that of
// the taps, as above.
template <int M, int N, int Width, int Stride, bool Part>
inline void line_block(const DepthwiseLine& t, std::int64_t first, std::int64_t at, const Step* bounds) {
  const std::int64_t part = t.channels - at;
  // Results that are not in the first-level cache are fetched while their sums are made: stores would wait for them one after the other.
  float* c = t.c + first * t.c_stride + at;
  FUSIBLE_UNROLL for (int m = 0; m < M; ++m, next_row(c, t.c_stride)) FUSIBLE_UNROLL for (int n = 0; n < N; ++n) __builtin_prefetch(c + n * kLanes, 1);
  Vector sum[M][N];
  FUSIBLE_UNROLL for (int n = 0; n < N; ++n) FUSIBLE_UNROLL for (int m = 0; m < M; ++m) sum[m][n] = load(t.bias + at + n * kLanes);
  const float* weights = t.weights + at;
  for (std::int64_t line = 0; line < t.kernel_height; ++line) {
    Vector w[Width][N];
    FUSIBLE_UNROLL for (int k = 0; k < Width; ++k, next_row(weights, t.weight_stride)) FUSIBLE_UNROLL for (int n = 0; n < N; ++n) w[k][n] =
        load(weights + n * kLanes);
    const float* pixel = t.lines[line] + first * Stride * t.pixel_stride + at;
    FUSIBLE_UNROLL for (int p = 0; p < (M - 1) * Stride + Width; ++p, next_row(pixel, t.pixel_stride))
        FUSIBLE_UNROLL for (int n = 0; n < N; ++n) {
      Vector x = Part ? load_part(pixel, part) : load(pixel + n * kLanes);
      in_register(x);
      // Pixel p is tap k of result m where m * Stride + k == p.
      FUSIBLE_UNROLL for (int m = 0; m < M; ++m) {
        const int k = p - m * Stride;
        if (k >= 0 && k < Width) sum[m][n] += x * w[k][n];
      }
    }
  }
  if (bounds) {
    const Vector low = splat(bounds->a), high = splat(bounds->b);
    FUSIBLE_UNROLL for (int m = 0; m < M; ++m) FUSIBLE_UNROLL for (int n = 0; n < N; ++n) sum[m][n] = at_most(at_least(sum[m][n], low), high);
  }
  c = t.c + first * t.c_stride + at;
  FUSIBLE_UNROLL for (int m = 0; m < M; ++m, next_row(c, t.c_stride)) FUSIBLE_UNROLL for (int n = 0; n < N; ++n) {
    if (Part) store_part(c, sum[m][n], part);
    else store(c + n * kLanes, sum[m][n]);
  }
}

template <int N, int Width, int Stride, bool Part>
inline void line_blocks(const DepthwiseLine& t, std::int64_t at, const Step* bounds) {
  std::int64_t first = 0;
  for (; first + 4 <= t.count; first += 4) line_block<4, N, Width, Stride, Part>(t, first, at, bounds);
  if (first + 2 <= t.count) {
    line_block<2, N, Width, Stride, Part>(t, first, at, bounds);
    first += 2;
  }
  if (first < t.count) line_block<1, N, Width, Stride, Part>(t, first, at, bounds);
}

// One result at the left or right border.
template <int N, bool Part>
inline void edge_block(const DepthwiseLine& t, std::int64_t at, const Step* bounds) {
  const std::int64_t part = t.channels - at;
  Vector sum[N];
  FUSIBLE_UNROLL for (int n = 0; n < N; ++n) sum[n] = load(t.bias + at + n * kLanes);
  for (std::int64_t line = 0; line < t.kernel_height; ++line)
    for (std::int64_t k = t.tap_begin; k < t.tap_end; ++k) {
      const float* pixel = t.lines[line] + k * t.pixel_stride + at;
      const float* weights = t.weights + (line * t.kernel_width + k) * t.weight_stride + at;
      FUSIBLE_UNROLL for (int n = 0; n < N; ++n) sum[n] += (Part ? load_part(pixel, part) : load(pixel + n * kLanes)) * load(weights + n * kLanes);
    }
  if (bounds)
    FUSIBLE_UNROLL for (int n = 0; n < N; ++n) sum[n] = at_most(at_least(sum[n], splat(bounds->a)), splat(bounds->b));
  FUSIBLE_UNROLL for (int n = 0; n < N; ++n) {
    if (Part) store_part(t.c + at, sum[n], part);
    else store(t.c + at + n * kLanes, sum[n]);
  }
}

// Vectors of channels that a block takes: its sums and the weights of a kernel row stay in registers.
constexpr int line_vectors(int width) { return kLanes < 16 ? 1 : width < 7 ? 3 : 2; }

template <int N>
inline void edge(const DepthwiseLine& t, std::int64_t at, const Step* bounds) {
  for (; at + N * kLanes <= t.channels; at += N * kLanes) edge_block<N, false>(t, at, bounds);
  if constexpr (N > 1) return edge<N - 1>(t, at, bounds);
  if (at < t.channels) edge_block<1, true>(t, at, bounds);
}

template <int N, int Width, int Stride>
inline void line_channels(const DepthwiseLine& t, std::int64_t at, const Step* bounds) {
  for (; at + N * kLanes <= t.channels; at += N * kLanes) line_blocks<N, Width, Stride, false>(t, at, bounds);
  if constexpr (N > 1) return line_channels<N - 1, Width, Stride>(t, at, bounds);
  if (at < t.channels) line_blocks<1, Width, Stride, true>(t, at, bounds);
}

// The chain's head, where it is bounds, is taken in registers, the rest on the stored rows.
template <int Width, int Stride>
void depthwise_line(const DepthwiseLine& t) {
  const bool bounded = t.steps && t.chain->kind == StepKind::clamp;
  const Step* const bounds = bounded ? t.chain : nullptr;
  if (t.tap_begin > 0 || t.tap_end < Width)
    edge<line_vectors(Width)>(t, 0, bounds);
  else
    line_channels<line_vectors(Width), Width, Stride>(t, 0, bounds);
  run_chain(t.c, t.c_stride, t.count, t.channels, t.chain + bounded, t.steps - bounded, t.image, t.row, t.channel);
}

using LineKernel = void (*)(const DepthwiseLine&);

// Null for kernels that are not made.
LineKernel line_kernel(std::int64_t width, std::int64_t stride) {
  if (width == 3 && stride == 1) return depthwise_line<3, 1>;
  if (width == 3 && stride == 2) return depthwise_line<3, 2>;
  if (width == 5 && stride == 1) return depthwise_line<5, 1>;
  if (width == 5 && stride == 2) return depthwise_line<5, 2>;
  if (width == 7 && stride == 1) return depthwise_line<7, 1>;
  return nullptr;
}

bool has_line(std::int64_t width, std::int64_t stride) { return line_kernel(width, stride); }

void run_depthwise_line(const DepthwiseLine& t) { line_kernel(t.kernel_width, t.stride)(t); }

// ATen's max keeps a NaN wherever it stands among the taps.
inline Vector max_or_nan(Vector best, Vector x) { return (x > best) | (x != x) ? x : best; }

void run_pool(const PoolTile& t) {
  const Vector scale = splat(t.scale);
  const auto one = [&](std::int64_t at, auto read) {
    Vector v = read(t.rows[0] + at);
    for (std::int64_t tap = 1; tap < t.taps; ++tap) {
      const Vector x = read(t.rows[tap] + at);
      v = t.max ? max_or_nan(v, x) : v + x;
    }
    return t.max ? v : v * scale;
  };
  std::int64_t at = 0;
  // Four chains of additions at a time.
  for (; at + 4 * kLanes <= t.channels; at += 4 * kLanes) {
    Vector v[4];
    FUSIBLE_UNROLL for (int n = 0; n < 4; ++n) v[n] = load(t.rows[0] + at + n * kLanes);
    for (std::int64_t tap = 1; tap < t.taps; ++tap) FUSIBLE_UNROLL for (int n = 0; n < 4; ++n) {
      const Vector x = load(t.rows[tap] + at + n * kLanes);
      v[n] = t.max ? max_or_nan(v[n], x) : v[n] + x;
    }
    FUSIBLE_UNROLL for (int n = 0; n < 4; ++n) store(t.c + at + n * kLanes, t.max ? v[n] : v[n] * scale);
  }
  for (; at + kLanes <= t.channels; at += kLanes) store(t.c + at, one(at, [](const float* p) { return load(p); }));
  const std::int64_t width = t.channels - at;
  if (width) store_part(t.c + at, one(at, [&](const float* p) { return load_part(p, width); }), width);
}

}  // namespace
}  // namespace fusible::kernels
