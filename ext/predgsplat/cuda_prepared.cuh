// Gaussians ready to be drawn, and boxes by which a tile skips those that cannot reach it.
//
// Where many tiles would prepare the same Gaussians, a kernel prepares each of them once, in 32 bytes, with the box of
// every CHUNK consecutive ones. The box is the union of what a tile tests for each Gaussian, in the same numbers:
// skipping a chunk leaves out only what that test would have left out, so images are equal bit by bit.
#pragma once

#include "cuda_common.cuh"

namespace predgsplat::cuda {
namespace {

constexpr int CHUNK = 128;  // consecutive Gaussians that share a box
constexpr int CHUNKS_PER_BLOCK = THREADS / CHUNK;

struct alignas(16) Prepared {
  float x, y;  // centre in pixels; NaN if a parameter is not finite
  Squares squares;
  float reach_x, reach_y;  // within the lattice
};
static_assert(sizeof(Prepared) == 32);

// Where Gaussians can show, in pixels. NaN, which every tile must draw, if a parameter is not finite.
struct alignas(16) Box {
  float left, right, top, bottom;
};

// The lattice is moved right and down by a fraction of a pixel, so there it reaches one pixel further.
__device__ __forceinline__ Box box_of(const Prepared& g) {
  const float x = floorf(g.x), y = floorf(g.y);
  return {x - g.reach_x, x + 1.0f + g.reach_x, y - g.reach_y, y + 1.0f + g.reach_y};
}

__device__ __forceinline__ Box nowhere() { return {INFINITY, -INFINITY, INFINITY, -INFINITY}; }

// NaN if either is.
__device__ __forceinline__ float lesser(float x, float y) { return x < y || isnan(x) ? x : y; }
__device__ __forceinline__ float greater(float x, float y) { return x > y || isnan(x) ? x : y; }

__device__ __forceinline__ Box unite(const Box& a, const Box& b) {
  return {lesser(a.left, b.left), greater(a.right, b.right), lesser(a.top, b.top), greater(a.bottom, b.bottom)};
}

// Prepared Gaussians [P, N], and the boxes of their chunks [P, chunks]; null where tiles prepare what they draw.
struct PreparedFrames {
  Prepared* gaussians;
  Box* boxes;
};

PREDGSPLAT_BOTH int64_t chunks_of(const Dimensions& problem) { return (problem.gaussians + CHUNK - 1) / CHUNK; }

inline int64_t prepared_floats(const Dimensions& problem) {
  const int64_t gaussians = problem.frames * problem.gaussians, chunks = problem.frames * chunks_of(problem);
  return (gaussians * sizeof(Prepared) + chunks * sizeof(Box)) / sizeof(float);
}

inline PreparedFrames prepared_in(float* scratch, const Dimensions& problem) {
  if (!scratch) return {};
  Prepared* const gaussians = reinterpret_cast<Prepared*>(scratch);
  return {gaussians, reinterpret_cast<Box*>(gaussians + problem.frames * problem.gaussians)};
}

// n counts through the Gaussians of all frames. Not inlined: the compiler fuses operations anew in each place, and both
// kernels must prepare the same numbers. For that, they take the problem as a __grid_constant__, which has an address.
template <class Input>
__device__ __noinline__ Prepared prepare_one(const ProblemOf<Input>& problem, int64_t n) {
  const Geometry& geometry = problem.geometry;
  const Parameters p = read_parameters(problem, n);
  const Gaussian<float> g = prepare(p, geometry);
  const float bad = zero_if_finite(p);
  return {multiply_then_add(p.mu_x, geometry.half_width, geometry.half_width) + bad,
          multiply_then_add(p.mu_y, geometry.half_height, geometry.half_height) + bad,
          complete_square(g),
          fminf(geometry.radius, g.reach_x),
          fminf(geometry.radius, g.reach_y)};
}

}  // namespace
}  // namespace predgsplat::cuda
