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

// Neighbours in a line read the same pixels: each is loaded once and meets every result that it belongs to. The order of each sum is that of
// the taps, as above.
template <int M, int N, int Width, int Stride, bool Part>
inline void depthwise_line_block(const DepthwiseTile& t, std::int64_t at, std::int64_t part) {
  constexpr int kPixels = (M - 1) * Stride + Width;
  const auto read = [part](const float* p) { return Part ? load_part(p, part) : load(p); };
  Vector sum[M][N];
  FUSIBLE_UNROLL for (int n = 0; n < N; ++n) FUSIBLE_UNROLL for (int m = 0; m < M; ++m) sum[m][n] = load(t.bias + at + n * kLanes);
  for (std::int64_t tap = 0; tap < t.taps; tap += Width) {
    Vector w[Width][N];
    FUSIBLE_UNROLL for (int k = 0; k < Width; ++k) FUSIBLE_UNROLL for (int n = 0; n < N; ++n) w[k][n] =
        load(t.weights + (tap + k) * t.weight_stride + at + n * kLanes);
    FUSIBLE_UNROLL for (int p = 0; p < kPixels; ++p) {
      // Pixel p is tap k of result m where m * Stride + k == p.
      const int m0 = p / Stride < M ? p / Stride : M - 1;
      const float* const row = t.rows[(tap + p - m0 * Stride) * t.tap_stride + m0] + at;
      FUSIBLE_UNROLL for (int n = 0; n < N; ++n) {
        const Vector x = read(row + n * kLanes);
        FUSIBLE_UNROLL for (int m = 0; m < M; ++m) {
          const int k = p - m * Stride;
          if (k >= 0 && k < Width) sum[m][n] += x * w[k][n];
        }
      }
    }
  }
  FUSIBLE_UNROLL for (int m = 0; m < M; ++m) FUSIBLE_UNROLL for (int n = 0; n < N; ++n) {
    float* c = t.c + m * t.c_stride + at + n * kLanes;
    Part ? store_part(c, sum[m][n], part) : store(c, sum[m][n]);
  }
}

template <int M, int Width, int Stride>
void depthwise_line(const DepthwiseTile& t) {
  constexpr int kVectors = kLanes == 16 && Width < 7 ? 2 : 1;
  std::int64_t at = 0;
  for (; at + kVectors * kLanes <= t.channels; at += kVectors * kLanes) depthwise_line_block<M, kVectors, Width, Stride, false>(t, at, 0);
  for (; at + kLanes <= t.channels; at += kLanes) depthwise_line_block<M, 1, Width, Stride, false>(t, at, 0);
  if (at < t.channels) depthwise_line_block<M, 1, Width, Stride, true>(t, at, t.channels - at);
}

using Depthwise = void (*)(const DepthwiseTile&);

template <int Width, int Stride>
constexpr Depthwise kLine[kDepthwiseRows] = {depthwise_line<1, Width, Stride>, depthwise_line<2, Width, Stride>, depthwise_line<3, Width, Stride>,
                                             depthwise_line<4, Width, Stride>};

Depthwise depthwise_kernel(const DepthwiseTile& t) {
  static constexpr Depthwise kAnyRows[] = {depthwise_rows<1>, depthwise_rows<2>, depthwise_rows<3>, depthwise_rows<4>};
  if (t.line_width == 3 && t.line_stride == 1) return kLine<3, 1>[t.m - 1];
  if (t.line_width == 3 && t.line_stride == 2) return kLine<3, 2>[t.m - 1];
  if (t.line_width == 5 && t.line_stride == 1) return kLine<5, 1>[t.m - 1];
  if (t.line_width == 5 && t.line_stride == 2) return kLine<5, 2>[t.m - 1];
  if (t.line_width == 7 && t.line_stride == 1) return kLine<7, 1>[t.m - 1];
  return kAnyRows[t.m - 1];
}

void run_depthwise(const DepthwiseTile& t) {
  depthwise_kernel(t)(t);
  run_chain(t.c, t.c_stride, t.m, t.channels, t.chain, t.steps, t.image, t.row, 0);
}

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
