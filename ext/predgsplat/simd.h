// Vectors of floats for the CPU kernels, and the functions that gaussian.h requires.
//
// GCC's vector types rather than intrinsics: one source for AVX-512, AVX2, SSE and NEON. Vectors are as wide as the
// registers: GCC splits wider ones into scalars, which is ten times slower. Compile with -ffp-contract=fast, which
// fuses a*b + c, and never with -ffast-math, which would delete the rounding below.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace predgsplat {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(LANES * sizeof(int32_t))));

#define PREDGSPLAT_INLINE inline __attribute__((always_inline))
#define PREDGSPLAT_LAMBDA __attribute__((always_inline))

PREDGSPLAT_INLINE Lanes broadcast(float x) { return Lanes{} + x; }

PREDGSPLAT_INLINE Lanes load(const float* from) {
  Lanes x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

PREDGSPLAT_INLINE void store(float* to, Lanes x) { std::memcpy(to, &x, sizeof x); }

// `count` numbers, STRIDE apart, and then zeros: the last vector of an array must not be read beyond its end.
template <int STRIDE>
PREDGSPLAT_INLINE Lanes load_some(const float* from, int count) {
  Lanes x{};
  if (count < LANES) {
    for (int i = 0; i < count; ++i) x[i] = from[STRIDE * i];
    return x;
  }
  if constexpr (STRIDE == 1) return load(from);
  for (int i = 0; i < LANES; ++i) x[i] = from[STRIDE * i];
  return x;
}

// 0, 1, 2, ...
PREDGSPLAT_INLINE Lanes lane_numbers() {
  Lanes x;
  for (int i = 0; i < LANES; ++i) x[i] = static_cast<float>(i);
  return x;
}

// The first `count` numbers of a vector.
template <class Number, class Vector>
PREDGSPLAT_INLINE void store_some(Number* to, Vector x, int count) {
  if (count == LANES) {
    std::memcpy(to, &x, sizeof x);
  } else {
    std::memcpy(to, &x, count * sizeof(Number));
  }
}

// The lanes before `count`.
PREDGSPLAT_INLINE Ints before(int64_t count) { return lane_numbers() < static_cast<float>(count); }

// x > y ? x : y. Intrinsics, because for the sake of NaN compilers turn this expression into a comparison and a move.
PREDGSPLAT_INLINE Lanes larger(Lanes x, Lanes y) {
#if defined(__AVX512F__)
  return (Lanes)_mm512_maskz_max_ps(0xffff, (__m512)x, (__m512)y);
#elif defined(__AVX__)
  return (Lanes)_mm256_max_ps((__m256)x, (__m256)y);
#else
  return x > y ? x : y;
#endif
}

PREDGSPLAT_INLINE Lanes smaller(Lanes x, Lanes y) {
#if defined(__AVX512F__)
  return (Lanes)_mm512_maskz_min_ps(0xffff, (__m512)x, (__m512)y);
#elif defined(__AVX__)
  return (Lanes)_mm256_min_ps((__m256)x, (__m256)y);
#else
  return x < y ? x : y;
#endif
}

PREDGSPLAT_INLINE Lanes larger(Lanes x, float y) { return larger(x, broadcast(y)); }
PREDGSPLAT_INLINE Lanes smaller(Lanes x, float y) { return smaller(x, broadcast(y)); }
PREDGSPLAT_INLINE Ints at_least(Lanes x, float y) { return x >= y; }
PREDGSPLAT_INLINE Lanes zero_unless(Ints mask, Lanes x) { return (Lanes)((Ints)x & mask); }
PREDGSPLAT_INLINE Lanes absolute(Lanes x) { return (Lanes)((Ints)x & 0x7fffffff); }
PREDGSPLAT_INLINE Ints finite(Lanes x) { return (x - x) == 0.0f; }

// Lane i of the result is lane numbers[i] of x.
PREDGSPLAT_INLINE Lanes pick(Lanes x, Lanes numbers) {
  return __builtin_shuffle(x, __builtin_convertvector(numbers, Ints));
}

// x * m + a, rounded twice: the product passes through memory, so that the compiler cannot fuse it.
PREDGSPLAT_INLINE Lanes multiply_then_add(Lanes x, float m, float a) {
  Lanes product = x * m;
  __asm__("" : "+m"(product));
  return product + a;
}

// Adding and subtracting it rounds |x| < 2^22 to the nearest integer, because its last bit is worth 1.
constexpr float ROUNDER = 12582912.0f;

PREDGSPLAT_INLINE Lanes floor(Lanes x) {
  const Lanes inside = larger(smaller(x, 4e6f), -4e6f);
  const Lanes nearest = (inside + ROUNDER) - ROUNDER;
  return nearest - zero_unless(nearest > inside, broadcast(1.0f));
}

// Whether any lane is not 0.
PREDGSPLAT_INLINE bool any(Ints mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#else
  int32_t all = 0;
  for (int i = 0; i < LANES; ++i) all |= mask[i];
  return all != 0;
#endif
}

// a b - c d, without cancellation: double precision holds the products exactly.
PREDGSPLAT_INLINE Lanes difference_of_products(Lanes a, Lanes b, Lanes c, Lanes d) {
  Lanes x;
  for (int i = 0; i < LANES; ++i)
    x[i] = static_cast<float>(static_cast<double>(a[i]) * b[i] - static_cast<double>(c[i]) * d[i]);
  return x;
}

// log2 x or up to 0.0861 more, for positive x: log2(1 + m) <= m + 0.0861 where the mantissa is 1 + m.
PREDGSPLAT_INLINE Lanes log2_at_least(Lanes x) {
  const Ints bits = (Ints)x;
  const Lanes mantissa = (Lanes)((bits & 0x7fffff) | 0x3f800000);
  return __builtin_convertvector((bits >> 23) - 127, Lanes) + (mantissa - 1.0f + 0.0861f);
}

PREDGSPLAT_INLINE Lanes square_root(Lanes x) {
  for (int i = 0; i < LANES; ++i) x[i] = std::sqrt(x[i]);
  return x;
}

// 2^x with a relative error of 2e-7, for x up to 127; x below -126 counts as -126.
PREDGSPLAT_INLINE Lanes exp2(Lanes x) {
  x = larger(x, -126.0f);
  const Lanes rounded = x + ROUNDER;
  const Lanes f = x - (rounded - ROUNDER);
  // Minimax polynomial of the relative error on [-1/2, 1/2].
  Lanes y = broadcast(1.326470e-3f);
  y = y * f + 9.671510e-3f;
  y = y * f + 5.550734e-2f;
  y = y * f + 2.4022242e-1f;
  y = y * f + 6.9314698e-1f;
  y = y * f + 1.0f;
  return (Lanes)((Ints)y + ((Ints)rounded << 23));
}

// Sine and cosine of an angle up to a common sign, which cancels in cos², sin² and cos sin: multiples of π reduce the
// angle to [-π/2, π/2]. Angles beyond 10^4 lose digits, as floats themselves do.
PREDGSPLAT_INLINE void sine_cosine(Lanes angle, Lanes& sine, Lanes& cosine) {
  const Lanes turns = (smaller(larger(angle * 0.318309886f, -4e6f), 4e6f) + ROUNDER) - ROUNDER;
  // π as three numbers of few digits, whose products with whole numbers are exact.
  Lanes x = angle - turns * 3.140625f;
  x = x - turns * 9.67502593994140625e-4f;
  x = x - turns * 1.50995799097837543e-7f;
  const Lanes z = x * x;
  // Taylor series with six terms: the error at π/2 is 3e-9.
  Lanes s = broadcast(-2.50521084e-8f);
  s = s * z + 2.75573192e-6f;
  s = s * z - 1.98412698e-4f;
  s = s * z + 8.33333333e-3f;
  s = s * z - 1.66666667e-1f;
  sine = x + x * z * s;
  Lanes c = broadcast(2.08767570e-9f);
  c = c * z - 2.75573192e-7f;
  c = c * z + 2.48015873e-5f;
  c = c * z - 1.38888889e-3f;
  c = c * z + 4.16666667e-2f;
  c = c * z - 0.5f;
  cosine = 1.0f + z * c;
}

// While it exists, numbers below 2^-126 count as 0: they change no sum here, and each costs hundreds of cycles.
class FlushDenormals {
#if defined(__AVX__)
 public:
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned before_;
#endif
};

// Sums of neighbouring lanes: of a in the lower half, of b in the upper half.
PREDGSPLAT_INLINE Lanes add_neighbours(Lanes a, Lanes b) {
  Ints even, odd;
  for (int i = 0; i < LANES; ++i) even[i] = 2 * i, odd[i] = 2 * i + 1;
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
}

// The sums over the lanes of eight vectors, in a fixed order.
PREDGSPLAT_INLINE void sums_of_eight(const Lanes (&x)[8], float* sums) {
  Lanes half[4];
  for (int i = 0; i < 4; ++i) half[i] = add_neighbours(x[2 * i], x[2 * i + 1]);
  const Lanes low = add_neighbours(half[0], half[1]), high = add_neighbours(half[2], half[3]);
  if constexpr (LANES == 4) {
    store(sums, low);
    store(sums + 4, high);
  } else {
    Lanes all = add_neighbours(low, high);
    for (int parts = LANES / 8; parts > 1; parts /= 2) all = add_neighbours(all, all);
    std::memcpy(sums, &all, 8 * sizeof(float));
  }
}

PREDGSPLAT_INLINE float sum(Lanes x) {
  for (int parts = LANES; parts > 1; parts /= 2) x = add_neighbours(x, x);
  return x[0];
}

}  // namespace predgsplat
