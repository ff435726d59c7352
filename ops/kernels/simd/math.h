#pragma once
// Elementary functions on vectors, within 3 ulp of the true value where they are used as activations; NaN stays NaN.

#include "ops/kernels/simd/vector.h"

namespace fusible::kernels {
namespace {

// The polynomial in x with these coefficients, that of the highest power first.
template <typename... Rest>
inline Vector horner(Vector x, float first, Rest... rest) {
  Vector p = splat(first);
  ((p = p * x + splat(rest)), ...);
  return p;
}

#if FUSIBLE_LANES == 16
// AMD divides a vector in the time of five products, Intel in that of sixteen or more.
const bool kDivides = __builtin_cpu_is("amd");
#endif

// a / d for d >= 1, NaN or infinite; where a division is slow, by a step of Newton from the machine's estimate, 14 bits.
inline Vector over(Vector a, Vector d) {
#if FUSIBLE_LANES == 16
  if (kDivides) return a / d;
  const Vector estimate = Vector(_mm512_rcp14_ps(__m512(d)));
  const Vector refined = estimate + estimate * (splat(1.0f) - d * estimate);
  // Of an infinite d the step makes inf * 0: there the answer 8 of the table, +0, takes its place, elsewhere the answer 0, as it is.
  const __m512i table = _mm512_set1_epi32(8 << 20);
  return a * Vector(_mm512_fixupimm_ps(__m512(refined), __m512(d), table, 0));
#else
  return a / d;
#endif
}

// p * 2^n, n a whole number, also where the result is denormal.
inline Vector scaled(Vector p, Vector n) {
#if FUSIBLE_LANES == 16
  return Vector(_mm512_scalef_ps(__m512(p), __m512(n)));
#else
  // In two factors: each stays normal.
  const Integers k = __builtin_convertvector(n, Integers);
  const Integers half = k >> 1;
  return p * reinterpret_cast<Vector>((half + 127) << 23) * reinterpret_cast<Vector>((k - half + 127) << 23);
#endif
}

// x = n ln 2 + r, |r| <= ln 2 / 2
struct Reduced {
  Vector n, r;
};

inline Reduced reduce(Vector x) {
  x = at_least(at_most(x, splat(89.0f)), splat(-105.0f));
  const Vector magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vector n = (x * splat(1.44269504088896341f) + magic) - magic;
  return {n, (x - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f)};
}

// 2^n p(r), p minimax, 9.2e-8.
inline Vector exp(Vector x) {
  const auto [n, r] = reduce(x);
  const Vector p = horner(r, 8.2903054747e-3f, 4.1897975710e-2f, 1.6667636593e-1f, 4.9999149189e-1f, 9.9999970701e-1f, 1.0f);
  return scaled(p, n);
}

// For x <= 0, accurate near 0: e^r - 1 = r + r^2 q(r), q by least squares.
inline Vector expm1(Vector x) {
  const auto [n, r] = reduce(x);
  const Vector q = horner(r, 1.9900443781e-4f, 1.3934544520e-3f, 8.3332970639e-3f, 4.1666456778e-2f, 1.6666666722e-1f,
                          5.0000000143e-1f);
  const Vector scale = scaled(splat(1.0f), n);
  return (r + r * r * q) * scale + (scale - splat(1.0f));
}

inline Vector sigmoid(Vector x) { return over(splat(1.0f), splat(1.0f) + exp(-x)); }

inline Vector silu(Vector x) { return over(x, splat(1.0f) + exp(-x)); }

// tanh |x| = -e / (2 + e) with e = e^(-2|x|) - 1
inline Vector tanh(Vector x) {
  const Vector e = expm1(splat(-2.0f) * absolute(x));
  const Vector magnitude = over(-e, splat(2.0f) + e);
  return x < Vector{} ? -magnitude : magnitude;
}

// e^(-z^2) t p(t), t = 1 / (1 + 0.4 z), for z >= 0; p by least squares, 1.5e-8.
inline Vector erfc(Vector z) {
  const Vector t = over(splat(1.0f), splat(1.0f) + splat(0.4f) * z);
  const Vector p = horner(t, -0.026863185447f, 0.183079707439f, -0.463488120341f, 0.500108223883f, -0.244884012257f,
                          0.250853108790f, 0.137000596555f, 0.213357964032f, 0.225138276205f, 0.225697450961f);
  return exp(-z * z) * t * p;
}

// ln(1 + u) = 2 artanh(u / (2 + u)) for u in [0, 1]
inline Vector log1p(Vector u) {
  const Vector s = over(u, splat(2.0f) + u);
  const Vector s2 = s * s;
  const Vector p = horner(s2, 2.0f / 15, 2.0f / 13, 2.0f / 11, 2.0f / 9, 2.0f / 7, 2.0f / 5, 2.0f / 3);
  return s * splat(2.0f) + s * s2 * p;
}

inline Vector gelu_erf(Vector x) {
  const Vector half = splat(0.5f) * erfc(absolute(x) * splat(0.70710678118654752f));
  return x * (x < Vector{} ? half : splat(1.0f) - half);
}

inline Vector gelu_tanh(Vector x) {
  const Vector inner = splat(0.79788456080286536f) * (x + splat(0.044715f) * x * x * x);
  return splat(0.5f) * x * (splat(1.0f) + tanh(inner));
}

// x tanh(ln(1 + e)) = x n / (n + 2), n = e (e + 2), e = e^x
inline Vector mish(Vector x) {
  const Vector e = exp(at_most(x, splat(20.0f)));
  const Vector n = e * (e + splat(2.0f));
  return x * over(n, n + splat(2.0f));
}

inline Vector softplus(Vector x, Vector beta, Vector threshold) {
  const Vector z = x * beta;
  const Vector y = (at_least(z, Vector{}) + log1p(exp(-absolute(z)))) / beta;
  return z > threshold ? x : y;
}

}  // namespace
}  // namespace fusible::kernels
