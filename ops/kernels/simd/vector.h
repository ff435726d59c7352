#pragma once
// Vectors of FUSIBLE_LANES floats in the compiler's own form; every function is internal to the file that includes it.

#include <cstdint>

namespace fusible::kernels {
namespace {

constexpr int kLanes = FUSIBLE_LANES;
using Vector = float __attribute__((vector_size(4 * FUSIBLE_LANES), aligned(4), may_alias));
using Integers = std::int32_t __attribute__((vector_size(4 * FUSIBLE_LANES), aligned(4), may_alias));

inline Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
inline Vector splat(float x) { return x - Vector{}; }

inline Vector load_part(const float* p, std::int64_t n) {
  Vector v{};
  __builtin_memcpy(&v, p, n * sizeof(float));
  return v;
}
inline void store_part(float* p, Vector v, std::int64_t n) { __builtin_memcpy(p, &v, n * sizeof(float)); }

// Keep NaN: where x is NaN the comparison is false and x comes back.
inline Vector at_least(Vector x, Vector low) { return low > x ? low : x; }
inline Vector at_most(Vector x, Vector high) { return high < x ? high : x; }
inline Vector absolute(Vector x) { return reinterpret_cast<Vector>(reinterpret_cast<Integers>(x) & 0x7fffffff); }

}  // namespace
}  // namespace fusible::kernels
