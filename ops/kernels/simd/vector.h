#pragma once
// Vectors of FUSIBLE_LANES floats in the compiler's own form; every function is internal to the file that includes it.

#include <cstdint>
#if FUSIBLE_LANES > 4
#include <immintrin.h>
#endif

#define FUSIBLE_UNROLL _Pragma("GCC unroll 16")

namespace fusible::kernels {
namespace {

constexpr int kLanes = FUSIBLE_LANES;
using Vector = float __attribute__((vector_size(4 * FUSIBLE_LANES), aligned(4), may_alias));
using Integers = std::int32_t __attribute__((vector_size(4 * FUSIBLE_LANES), aligned(4), may_alias));

inline Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
inline Vector splat(float x) { return x - Vector{}; }

// Two steps of depth of a bfloat16 weight, the first one in the lower half. A bfloat16 is the upper half of a float (A Study of BFLOAT16 for Deep
// Learning Training, Kalamkar et al., 2019), so widening rounds nothing.
struct Bfloat16Pair {
  std::uint32_t bits;
};
inline Integers load(const Bfloat16Pair* p) { return *reinterpret_cast<const Integers*>(p); }
inline Vector first_of(Integers pairs) { return reinterpret_cast<Vector>(pairs << 16); }
inline Vector second_of(Integers pairs) { return reinterpret_cast<Vector>(pairs & static_cast<std::int32_t>(0xffff0000)); }

// The first n of kLanes; nothing behind them is read or written, the rest of the vector is 0. blend: those of a, the rest of b.
#if FUSIBLE_LANES == 16
inline __mmask16 first(std::int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
inline Vector load_part(const float* p, std::int64_t n) { return Vector(_mm512_maskz_loadu_ps(first(n), p)); }
inline void store_part(float* p, Vector v, std::int64_t n) { _mm512_mask_storeu_ps(p, first(n), __m512(v)); }
inline Vector blend(Vector a, Vector b, std::int64_t n) { return Vector(_mm512_mask_mov_ps(__m512(b), first(n), __m512(a))); }
#elif FUSIBLE_LANES == 8
inline __m256i first(std::int64_t n) {
  static constexpr std::int32_t kMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - n));
}
inline Vector load_part(const float* p, std::int64_t n) { return Vector(_mm256_maskload_ps(p, first(n))); }
inline void store_part(float* p, Vector v, std::int64_t n) { _mm256_maskstore_ps(p, first(n), __m256(v)); }
inline Vector blend(Vector a, Vector b, std::int64_t n) { return Vector(_mm256_blendv_ps(__m256(b), __m256(a), _mm256_castsi256_ps(first(n)))); }
#else
inline Vector load_part(const float* p, std::int64_t n) {
  Vector v{};
  __builtin_memcpy(&v, p, n * sizeof(float));
  return v;
}
inline void store_part(float* p, Vector v, std::int64_t n) { __builtin_memcpy(p, &v, n * sizeof(float)); }
inline Vector blend(Vector a, Vector b, std::int64_t n) {
  for (int i = 0; i < n; ++i) b[i] = a[i];
  return b;
}
#endif

// Lane l of the result is lane which[l] of x.
inline Vector pick(Vector x, Integers which) { return __builtin_shuffle(x, which); }

// Keep NaN: where x is NaN the comparison is false and x comes back, which is what the machine's own instructions do with their second
// operand. The compiler finds them in some places only.
#if FUSIBLE_LANES == 16
inline Vector at_least(Vector x, Vector low) { return Vector(_mm512_max_ps(__m512(low), __m512(x))); }
inline Vector at_most(Vector x, Vector high) { return Vector(_mm512_min_ps(__m512(high), __m512(x))); }
#elif FUSIBLE_LANES == 8
inline Vector at_least(Vector x, Vector low) { return Vector(_mm256_max_ps(__m256(low), __m256(x))); }
inline Vector at_most(Vector x, Vector high) { return Vector(_mm256_min_ps(__m256(high), __m256(x))); }
#else
inline Vector at_least(Vector x, Vector low) { return low > x ? low : x; }
inline Vector at_most(Vector x, Vector high) { return high < x ? high : x; }
#endif
inline Vector absolute(Vector x) { return reinterpret_cast<Vector>(reinterpret_cast<Integers>(x) & 0x7fffffff); }

}  // namespace
}  // namespace fusible::kernels
