#pragma once
// Work on whole rows: transposition, layer_norm, softmax.

#include "ops/kernels/simd/math.h"

namespace fusible::kernels {
namespace {

// Blocks of one vector each way: a block's lines stay in the first-level cache between their reads and writes.
void transpose(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns, float* to, std::int64_t to_stride) {
  constexpr std::int64_t kBlock = 16;
  for (std::int64_t r = 0; r < rows; r += kBlock)
    for (std::int64_t c = 0; c < columns; c += kBlock) {
      const std::int64_t r_end = r + kBlock < rows ? r + kBlock : rows, c_end = c + kBlock < columns ? c + kBlock : columns;
      for (std::int64_t j = c; j < c_end; ++j)
        for (std::int64_t i = r; i < r_end; ++i) to[j * to_stride + i] = from[i * from_stride + j];
    }
}

inline double total(Vector v) {
  double sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

template <typename Term>
inline double sum_of(std::int64_t width, Term term) {
  Vector sum[2] = {};
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= width; i += 2 * kLanes) {
    sum[0] += term(i, kLanes);
    sum[1] += term(i + kLanes, kLanes);
  }
  for (; i < width; i += kLanes) sum[0] += term(i, width - i < kLanes ? width - i : kLanes);
  return total(sum[0]) + total(sum[1]);
}

inline Vector read(const float* p, std::int64_t n) { return n == kLanes ? load(p) : load_part(p, n); }
inline void write(float* p, Vector v, std::int64_t n) { n == kLanes ? store(p, v) : store_part(p, v, n); }

// Two passes, the mean first: the variance does not cancel.
void layer_norm(const float* x, const float* added, float* sum, std::int64_t rows, std::int64_t width, const float* weight,
                const float* bias, double eps, float* y) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* in = x + r * width;
    float* out = y + r * width;
    const double mean = sum_of(width,
                               [&](std::int64_t i, std::int64_t n) {
                                 Vector v = read(in + i, n);
                                 if (added) {
                                   v += read(added + r * width + i, n);
                                   write(sum + r * width + i, v, n);
                                 }
                                 return v;
                               }) /
                        static_cast<double>(width);
    if (added) in = sum + r * width;
    const Vector centre = splat(static_cast<float>(mean));
    const double square = sum_of(width, [&](std::int64_t i, std::int64_t n) {
      const Vector d = read(in + i, n) - centre;
      if (n == kLanes) return d * d;
      Vector part{};
      const Vector whole = d * d;
      __builtin_memcpy(&part, &whole, n * sizeof(float));
      return part;
    });
    const Vector scale = splat(static_cast<float>(1.0 / __builtin_sqrt(square / static_cast<double>(width) + eps)));
    for (std::int64_t i = 0; i < width; i += kLanes) {
      const std::int64_t n = width - i < kLanes ? width - i : kLanes;
      Vector v = (read(in + i, n) - centre) * scale;
      if (weight) v *= read(weight + i, n);
      if (bias) v += read(bias + i, n);
      write(out + i, v, n);
    }
  }
}

void softmax(const float* x, std::int64_t rows, std::int64_t width, float scale, float* y) {
  const Vector factor = splat(scale);
  for (std::int64_t r = 0; r < rows; ++r, x += width, y += width) {
    float most = -__builtin_inff();
    for (std::int64_t i = 0; i < width; ++i) most = x[i] * scale > most ? x[i] * scale : most;
    const Vector top = splat(most);
    const double sum = sum_of(width, [&](std::int64_t i, std::int64_t n) {
      const Vector e = exp(read(x + i, n) * factor - top);
      write(y + i, e, n);
      if (n == kLanes) return e;
      Vector part{};
      __builtin_memcpy(&part, &e, n * sizeof(float));
      return part;
    });
    const Vector inverse = splat(static_cast<float>(1.0 / sum));
    for (std::int64_t i = 0; i < width; i += kLanes) {
      const std::int64_t n = width - i < kLanes ? width - i : kLanes;
      write(y + i, read(y + i, n) * inverse, n);
    }
  }
}

}  // namespace
}  // namespace fusible::kernels
