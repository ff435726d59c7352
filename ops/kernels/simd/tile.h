#pragma once
// The micro-kernel of every contraction: M rows by N vectors of accumulators in registers, one broadcast of a row's element against a row
// of the packed panel. Each element is summed in the order of taps and depth whatever M and N are, so that results do not depend on the
// tiling.

#include "ops/kernels/simd/chain.h"

namespace fusible::kernels {
namespace {

constexpr int kMostVectors = FUSIBLE_VECTORS;
constexpr int kAccumulators = FUSIBLE_ACCUMULATORS;
constexpr int kMostRows = 12;
constexpr int most_rows(int vectors) { return kAccumulators / vectors < kMostRows ? kAccumulators / vectors : kMostRows; }

// Hides how `p` was computed: else the compiler works out the addresses of all rows before the first is used, and spills them.
template <typename T>
inline void next_row(T*& p, std::int64_t stride) {
  p += stride;
  asm("" : "+r"(p));
}

// Keeps what was loaded: else the compiler loads it again at each use.
inline void in_register([[maybe_unused]] Vector& x) {
#if FUSIBLE_LANES == 16
  asm("" : "+v"(x));
#endif
}

enum class Fetch { nothing, ahead, next };

template <Fetch F>
struct Constant {
  static constexpr Fetch value = F;
};

// Steps of depth between fetching weights and using them. A step is 2 M cycles or more, memory answers in some hundred; 64 steps of the widest panel are a
// third of the first-level cache.
constexpr int kNear = 8;
constexpr int far_ahead(int m) { return m < 4 ? 64 : 256 / m; }

// Steps of depth that one element of the panel holds, and each of them.
constexpr int steps_in(const float*) { return 1; }
constexpr int steps_in(const Bfloat16Pair*) { return 2; }
template <int I>
inline Vector step_of(const float* p) {
  return load(p);
}
template <int I>
inline Vector step_of(const Bfloat16Pair* p) {
  return I ? second_of(load(p)) : first_of(load(p));
}

// Cut: of the last vector some columns only are read and written.
template <typename Weight, int M, int N, bool Cut>
void multiply(const Tile& t, const float* added, std::int64_t added_stride, const Step* bounds) {
  const std::int64_t rest = t.columns - (N - 1) * kLanes;
  const auto load_at = [&](const float* p, int n) { return Cut && n == N - 1 ? load_part(p + n * kLanes, rest) : load(p + n * kLanes); };
  float* c = t.c;
  // Each part is a sum of its own, so that rounding grows with the length of a part and not with that of the whole.
  Vector sum[M][N] = {};
  const auto add_products = [&](auto fetch) {
    constexpr int kSteps = steps_in(static_cast<const Weight*>(nullptr));
    constexpr int kAhead = (fetch.value == Fetch::ahead ? far_ahead(M) : kNear) * kMostVectors * kLanes / kSteps;
    const Weight* w = static_cast<const Weight*>(t.weights);
    const char* next = static_cast<const char*>(t.prefetch);
    for (std::int64_t tap = 0; tap < t.taps; ++tap) {
      const float* row[M];
      FUSIBLE_UNROLL for (int m = 0; m < M; ++m) row[m] = t.rows[tap * t.tap_stride + m] + t.offset;
      for (std::int64_t k = 0; k < t.depth; k += kSteps) {
        Vector b[N];
        FUSIBLE_UNROLL for (int n = 0; n < N; ++n) {
          b[n] = step_of<0>(w + n * kLanes);
          if constexpr (fetch.value != Fetch::nothing) __builtin_prefetch(w + n * kLanes + kAhead);
        }
        if constexpr (fetch.value == Fetch::next) {
          __builtin_prefetch(next, 0, 2);
          next += kSteps * t.prefetch_stride;
        }
        [[maybe_unused]] const Weight* const before_stepping = w;
        w += t.weight_stride;
        FUSIBLE_UNROLL for (int m = 0; m < M; ++m) {
          const Vector a = splat(row[m][k]);
          FUSIBLE_UNROLL for (int n = 0; n < N; ++n) sum[m][n] += a * b[n];
        }
        if constexpr (kSteps == 2) {
          FUSIBLE_UNROLL for (int n = 0; n < N; ++n) b[n] = step_of<1>(before_stepping + n * kLanes);
          FUSIBLE_UNROLL for (int m = 0; m < M; ++m) {
            const Vector a = splat(row[m][k + 1]);
            FUSIBLE_UNROLL for (int n = 0; n < N; ++n) sum[m][n] += a * b[n];
          }
        }
      }
    }
  };
  // One row: as many loads as products, and a prefetch is one more. Weights that are in the cache anyway are faster without.
  if (t.ahead)
    add_products(Constant<Fetch::ahead>{});
  else if (M == 1 && t.prefetch_stride == 0)
    add_products(Constant<Fetch::nothing>{});
  else
    add_products(Constant<Fetch::next>{});
  const float* before = t.resume ? c : t.bias;
  const std::int64_t before_stride = t.resume ? t.c_stride : 0;
  FUSIBLE_UNROLL for (int m = 0; m < M; ++m, next_row(before, before_stride)) FUSIBLE_UNROLL for (int n = 0; n < N; ++n) sum[m][n] +=
      load_at(before, n);
  if (added)
    FUSIBLE_UNROLL for (int m = 0; m < M; ++m, next_row(added, added_stride)) FUSIBLE_UNROLL for (int n = 0; n < N; ++n) sum[m][n] +=
        load_at(added, n);
  if (bounds) {
    const Vector low = splat(bounds->a), high = splat(bounds->b);
    FUSIBLE_UNROLL for (int m = 0; m < M; ++m) FUSIBLE_UNROLL for (int n = 0; n < N; ++n) sum[m][n] = at_least(sum[m][n], low);
    if (bounds->b < __builtin_inff())  // relu has none
      FUSIBLE_UNROLL for (int m = 0; m < M; ++m) FUSIBLE_UNROLL for (int n = 0; n < N; ++n) sum[m][n] = at_most(sum[m][n], high);
  }
  FUSIBLE_UNROLL for (int m = 0; m < M; ++m, next_row(c, t.c_stride)) FUSIBLE_UNROLL for (int n = 0; n < N; ++n) {
    if (Cut && n == N - 1) store_part(c + n * kLanes, sum[m][n], rest);
    else store(c + n * kLanes, sum[m][n]);
  }
}

using Multiply = void (*)(const Tile&, const float*, std::int64_t, const Step*);

template <typename Weight, bool Cut>
struct Multiplies {
  Multiply of[kMostVectors + 1][kMostRows + 1] = {};

  template <int M, int N>
  constexpr void fill() {
    of[N][M] = multiply<Weight, M, N, Cut>;
    if constexpr (M < most_rows(N))
      fill<M + 1, N>();
    else if constexpr (N < kMostVectors)
      fill<1, N + 1>();
  }
  constexpr Multiplies() { fill<1, 1>(); }
};
constexpr Multiplies<float, false> kMultiplies;
constexpr Multiplies<float, true> kCutMultiplies;
constexpr Multiplies<Bfloat16Pair, false> kBfloat16Multiplies;
constexpr Multiplies<Bfloat16Pair, true> kCutBfloat16Multiplies;

Multiply multiply_of(const Tile& t) {
  if (t.columns < t.vectors * kLanes) return (t.bfloat16 ? kCutBfloat16Multiplies.of : kCutMultiplies.of)[t.vectors][t.m];
  return (t.bfloat16 ? kBfloat16Multiplies.of : kMultiplies.of)[t.vectors][t.m];
}

// The chain's head (an addend of the tile's own shape, bounds) is taken in registers, the rest on the stored tile.
void run_tile(const Tile& t) {
  const Multiply multiply = multiply_of(t);
  if (!t.finish) return multiply(t, nullptr, 0, nullptr);
  const Step* step = t.chain;
  const Step* const end = t.chain + t.steps;
  const float* added = nullptr;
  std::int64_t added_stride = 0;
  if (step < end && step->kind == StepKind::add && step->operand && step->column) {
    added = step->operand + t.image * step->image_stride + t.row * step->row_stride + t.channel;
    added_stride = step->row_stride;
    ++step;
  }
  const Step* bounds = step < end && step->kind == StepKind::clamp ? step++ : nullptr;
  multiply(t, added, added_stride, bounds);
  run_chain(t.c, t.c_stride, t.m, t.columns, step, static_cast<std::int32_t>(end - step), t.image, t.row, t.channel);
}

}  // namespace
}  // namespace fusible::kernels
