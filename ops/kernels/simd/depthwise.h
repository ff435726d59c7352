#pragma once
// Depthwise convolution and pooling: channels in vectors, taps in the order of the kernel.

#include "ops/kernels/simd/chain.h"

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

// ATen's max keeps a NaN wherever it stands among the taps.
inline Vector max_or_nan(Vector best, Vector x) { return (x > best) | (x != x) ? x : best; }

void run_pool(const PoolTile& t) {
  const Vector scale = splat(t.scale);
  const auto block = [&](std::int64_t at, auto read) {
    Vector v = read(t.rows[0] + at);
    for (std::int64_t tap = 1; tap < t.taps; ++tap) {
      const Vector x = read(t.rows[tap] + at);
      v = t.max ? max_or_nan(v, x) : v + x;
    }
    return t.max ? v : v * scale;
  };
  std::int64_t at = 0;
  for (; at + kLanes <= t.channels; at += kLanes) store(t.c + at, block(at, [](const float* p) { return load(p); }));
  const std::int64_t width = t.channels - at;
  if (width) store_part(t.c + at, block(at, [&](const float* p) { return load_part(p, width); }), width);
}

}  // namespace
}  // namespace fusible::kernels
