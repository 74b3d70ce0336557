// Numbers in memory, for the CUDA kernels of `render`, which compute in float32 alone: arrays of floats, or `Numbers` and
// `Results`, whose types differ from call to call. Each kernel is compiled for both, instead of for every combination of types.
#pragma once

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

#include "kernels.h"

namespace predgsplat {

__device__ __forceinline__ float from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

__device__ __forceinline__ uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(x));
  return bits;
}

__device__ __forceinline__ float from_float16(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ __forceinline__ uint16_t to_float16(float x) { return __half_as_ushort(__float2half_rn(x)); }

// bfloat16 is the upper half of a float32. GPUs before compute capability 8.0 have no instructions for it.
__device__ __forceinline__ float from_bfloat16(uint16_t bits) { return from_bits(static_cast<uint32_t>(bits) << 16); }

__device__ __forceinline__ uint16_t to_bfloat16(float x) {
  const uint32_t bits = bits_of(x);
  if (isnan(x)) return static_cast<uint16_t>(bits >> 16 | 0x40);  // quiet; rounding could carry into the sign
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);  // to nearest, ties to even
}

__device__ __forceinline__ float load(const float* x, int64_t i) { return x[i]; }

__device__ __forceinline__ float load(const Numbers& x, int64_t i) {
  if (x.type == Type::FLOAT32) return static_cast<const float*>(x.data)[i];
  const uint16_t bits = static_cast<const uint16_t*>(x.data)[i];
  return x.type == Type::FLOAT16 ? from_float16(bits) : from_bfloat16(bits);
}

// The array from element i on.
__device__ __forceinline__ float* from(float* x, int64_t i) { return x + i; }

__device__ __forceinline__ Results from(const Results& x, int64_t i) {
  return {static_cast<char*>(x.data) + i * (x.type == Type::FLOAT32 ? 4 : 2), x.type};
}

__device__ __forceinline__ void store(float* x, int64_t i, float value) { x[i] = value; }

__device__ __forceinline__ void store(const Results& x, int64_t i, float value) {
  if (x.type == Type::FLOAT32)
    static_cast<float*>(x.data)[i] = value;
  else
    static_cast<uint16_t*>(x.data)[i] = x.type == Type::FLOAT16 ? to_float16(value) : to_bfloat16(value);
}

}  // namespace predgsplat
