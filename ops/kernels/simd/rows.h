#pragma once
// Work on whole rows: transposition, layer_norm, softmax.

#include "ops/kernels/simd/math.h"

namespace fusible::kernels {
namespace {

// A square of kLanes x kLanes in registers: in each round vectors `step` apart exchange every other run of `step` lanes (Eklundh, 1972).
template <int Step>
inline void exchange(Vector (&v)[kLanes]) {
  if constexpr (Step > 0) {
    Integers low, high;
    for (int i = 0; i < kLanes; ++i) {
      low[i] = i & Step ? kLanes + i - Step : i;
      high[i] = i & Step ? kLanes + i : i + Step;
    }
    FUSIBLE_UNROLL for (int i = 0; i < kLanes; ++i) {
      if (i & Step) continue;
      const Vector a = v[i], b = v[i + Step];
      v[i] = __builtin_shuffle(a, b, low);
      v[i + Step] = __builtin_shuffle(a, b, high);
    }
    exchange<Step / 2>(v);
  }
}

void transpose(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns, float* to, std::int64_t to_stride) {
  for (std::int64_t r = 0; r < rows; r += kLanes)
    for (std::int64_t c = 0; c < columns; c += kLanes) {
      const float* const in = from + r * from_stride + c;
      float* const out = to + c * to_stride + r;
      if (r + kLanes <= rows && c + kLanes <= columns) {
        Vector v[kLanes];
        FUSIBLE_UNROLL for (int i = 0; i < kLanes; ++i) v[i] = load(in + i * from_stride);
        exchange<kLanes / 2>(v);
        FUSIBLE_UNROLL for (int i = 0; i < kLanes; ++i) store(out + i * to_stride, v[i]);
        continue;
      }
      for (std::int64_t j = 0; j < kLanes && c + j < columns; ++j)
        for (std::int64_t i = 0; i < kLanes && r + i < rows; ++i) out[j * to_stride + i] = in[i * from_stride + j];
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

inline float greatest(Vector v) {
  float most = v[0];
  for (int i = 1; i < kLanes; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

// A comparison with NaN is false, so the greatest is that of the others; the NaN then reaches the sum.
float softmax(float* x, std::int64_t width, float scale, const float* mask) {
  const Vector factor = splat(scale), low = splat(-__builtin_inff());
  Vector best[2] = {low, low};
  const auto scores = [&](std::int64_t i, std::int64_t n) {
    Vector z = read(x + i, n) * factor;
    if (mask) z += read(mask + i, n);
    write(x + i, z, n);
    return z;
  };
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= width; i += 2 * kLanes) FUSIBLE_UNROLL for (int k = 0; k < 2; ++k) {
      const Vector z = scores(i + k * kLanes, kLanes);
      best[k] = z > best[k] ? z : best[k];
    }
  for (; i < width; i += kLanes) {
    const std::int64_t n = width - i < kLanes ? width - i : kLanes;
    const Vector z = scores(i, n);
    Vector seen = low;
    __builtin_memcpy(&seen, &z, n * sizeof(float));
    best[0] = seen > best[0] ? seen : best[0];
  }
  const float most = greatest(best[0] > best[1] ? best[0] : best[1]);
  const Vector top = splat(most == -__builtin_inff() ? 0.0f : most);
  const double sum = sum_of(width, [&](std::int64_t at, std::int64_t n) {
    const Vector e = exp(read(x + at, n) - top);
    write(x + at, e, n);
    if (n == kLanes) return e;
    Vector part{};
    __builtin_memcpy(&part, &e, n * sizeof(float));
    return part;
  });
  return sum == 0 ? 0.0f : static_cast<float>(1.0 / sum);
}

}  // namespace
}  // namespace fusible::kernels
