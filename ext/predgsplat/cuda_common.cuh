// Shared by the CUDA kernels: the functions that gaussian.h requires, a Gaussian's parameters, its exponent.
// tests/splat/cuda_on_cpu.h compiles the kernels as plain C++, so they use only the CUDA features that it implements.
#pragma once

namespace predgsplat {

// Unlike fmaxf it returns NaN for an x of NaN, so that a scale of NaN is not clamped to a small scale.
__device__ __forceinline__ float larger(float x, float y) { return x < y ? y : x; }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ void sine_cosine(float x, float& sin, float& cos) { sincosf(x, &sin, &cos); }
__device__ __forceinline__ float multiply_then_add(float x, float y, float z) { return __fadd_rn(__fmul_rn(x, y), z); }
__device__ __forceinline__ bool at_least(float x, float y) { return x >= y; }
__device__ __forceinline__ float zero_unless(bool condition, float x) { return condition ? x : 0.0f; }

}  // namespace predgsplat

#include "cuda_numbers.cuh"

namespace predgsplat {

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int64_t MAX_BLOCKS_X = 0x7fffffff, MAX_BLOCKS_Y = 0xffff;

// 2^x with a relative error of at most 2^-22; 0 where the result would be denormal.
__device__ __forceinline__ float exp2_approximately(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

__device__ __forceinline__ float lerp_to(float from, float to, float weight) {
  return fmaf(weight, to - from, from);
}

struct Parameters {
  float mu_x, mu_y, s1, s2, theta;
};

// n counts through the Gaussians of all frames. A pair takes two loads, because it may not be aligned to 8 bytes.
template <class Input>
__device__ __forceinline__ Parameters read_parameters(const ProblemOf<Input>& problem, int64_t n) {
  return {load(problem.coords, 2 * n), load(problem.coords, 2 * n + 1), load(problem.scale, 2 * n),
          load(problem.scale, 2 * n + 1), load(problem.rotation, n)};
}

// 0, or NaN if a parameter is not finite; added to a result to mark it.
__device__ __forceinline__ float zero_if_finite(const Parameters& p) {
  return 0.0f * p.mu_x + 0.0f * p.mu_y + 0.0f * p.s1 + 0.0f * p.s2 + 0.0f * p.theta;
}

__device__ __forceinline__ Gaussian<float> prepare(const Parameters& p, const Geometry& geometry) {
  return prepare(p.mu_x, p.mu_y, p.s1, p.s2, p.theta, geometry);
}

// The exponent a u² + 2 b u v + c v² as (root v + slope u)² + rest u²: two fused operations per row of a column, and no
// cancellation of large terms for a long, thin, oblique Gaussian.
struct Squares {
  float root, slope, rest;
};

__device__ __forceinline__ Squares complete_square(const Gaussian<float>& g) {
  const float root = sqrtf(g.c);
  return {root, g.b / root, g.det / g.c};
}

// One column of a Gaussian, u pixels from its centre: 0 unless visible, and NaN counts as visible.
struct Column {
  float root, slope_u, minus_rest_uu;

  __device__ __forceinline__ Column(const Squares& q, float u, bool visible)
      : root(q.root), slope_u(q.slope * u), minus_rest_uu(visible ? -q.rest * u * u : -INFINITY) {}

  __device__ __forceinline__ float at(float v) const { return at_root(fmaf(root, v, slope_u)); }

  // At w from the ridge, where the column is largest; root v + slope u equals root w.
  __device__ __forceinline__ float from_ridge(float w) const { return at_root(root * w); }

  __device__ __forceinline__ float at_root(float t) const { return exp2_approximately(fmaf(-t, t, minus_rest_uu)); }
};

// The number of threads before this one that keep their Gaussian; total: the number of all that do.
__device__ __forceinline__ int place_in_order(bool keep, int (&kept)[WARPS], int& total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned ballot = __ballot_sync(ALL_LANES, keep);
  if (lane == 0) kept[warp] = __popc(ballot);
  __syncthreads();
  int place = __popc(ballot & ((1u << lane) - 1));
  total = 0;
  for (int w = 0; w < WARPS; ++w) {
    if (w < warp) place += kept[w];
    total += kept[w];
  }
  __syncthreads();  // before the next call writes kept
  return place;
}

__device__ __forceinline__ float sum_over_warp(float x) {
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
  return x;
}

// Calls f(C) with the number of channels per block, 1 to 4, as a constant. More channels are processed in chunks.
template <class F>
int with_channels(int64_t channels, const F& f) {
  switch (channels) {
    case 0:
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    default: return f(std::integral_constant<int, 4>());
  }
}

// The same for the kernels of `render`, which process up to 16 channels at once.
template <class F>
int with_up_to_16_channels(int64_t channels, const F& f) {
  if (channels <= 4) return with_channels(channels, f);
  return channels <= 8 ? f(std::integral_constant<int, 8>()) : f(std::integral_constant<int, 16>());
}

template <class... Wanted, class... Given>
int launch(void (*kernel)(Wanted...), int64_t blocks_x, int64_t blocks_y, void* stream, Given... arguments) {
  if (blocks_x > MAX_BLOCKS_X || blocks_y > MAX_BLOCKS_Y) return cudaErrorInvalidConfiguration;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks_x), static_cast<unsigned>(blocks_y));
  config.blockDim = dim3(THREADS);
  config.stream = static_cast<cudaStream_t>(stream);
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace predgsplat
