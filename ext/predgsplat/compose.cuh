// Shared by the CUDA kernels of compose: a block owns a tile of 16x16 pixels, a thread each pixel. The block goes through
// the Gaussians of its frame 256 at a time and lists those that reach its tile in shared memory, in their order: no sort,
// no binning kernel, no host synchronisation.
#pragma once

#include "cuda_common.cuh"

namespace predgsplat {

// a b - c d, without cancellation: the fused operations see what the rounded product c d has lost.
__device__ __forceinline__ float difference_of_products(float a, float b, float c, float d) {
  const float product = __fmul_rn(c, d);
  return __fadd_rn(fmaf(a, b, -product), fmaf(-c, d, product));
}

// May be less than log2 x by its last digit, which the margin of `footprint` covers.
__device__ __forceinline__ float log2_at_least(float x) { return log2f(x); }

}  // namespace predgsplat

#include "compose.h"

namespace predgsplat::cuda {
namespace {

constexpr int TILE = 16;
static_assert(TILE * TILE == THREADS);

struct Range {
  int first, last;
};

// The tiles, along one axis, with pixels at most `reach` from a centre; none if last < first.
__device__ __forceinline__ Range tiles_in_reach(float centre, float reach, int pixels) {
  const float first = fmaxf(ceilf(centre - reach), 0.0f), last = fminf(floorf(centre + reach), pixels - 1.0f);
  if (!(first <= last)) return {0, -1};
  return {static_cast<int>(first) / TILE, static_cast<int>(last) / TILE};
}

// A Gaussian of one frame, as read. n counts through the Gaussians of all frames.
struct Splat {
  float x, y, a, b, c, opacity;

  __device__ __forceinline__ Splat(const Composition& problem, int64_t n)
      : x(problem.centre[2 * n]),
        y(problem.centre[2 * n + 1]),
        a(problem.conic[3 * n]),
        b(problem.conic[3 * n + 1]),
        c(problem.conic[3 * n + 2]),
        opacity(problem.opacity[n]) {}

  // 0, or NaN if a number is not finite.
  __device__ __forceinline__ float zero_if_finite() const {
    return 0.0f * x + 0.0f * y + 0.0f * a + 0.0f * b + 0.0f * c + 0.0f * opacity;
  }
};

// Where it shows: the tiles of its box. The forward and both kernels of the backward pass must agree on them.
struct Tiles {
  Range columns, rows;

  __device__ __forceinline__ Tiles(const Composition& problem, const Splat& g, const Footprint<float>& f)
      : columns(tiles_in_reach(g.x, f.reach_x, problem.width)), rows(tiles_in_reach(g.y, f.reach_y, problem.height)) {
    if (!(g.opacity >= MIN_ALPHA) || isnan(g.zero_if_finite())) columns = rows = {0, -1};
  }

  __device__ __forceinline__ bool contain(int column, int row) const {
    return columns.first <= column && column <= columns.last && rows.first <= row && row <= rows.last;
  }
};

// A Gaussian that reaches the tile.
template <int C>
struct Entry {
  float x, y, root, slope, rest, opacity;
  int number;  // in its frame
  float features[C];

  // Before it is limited to MAX_ALPHA, and 0 below MIN_ALPHA. Every operation is named, so that it is the same number in
  // all kernels: they must agree on which Gaussians a pixel takes.
  __device__ __forceinline__ float alpha(float i, float j) const {
    const float dx = j - x, dy = i - y;
    const float t = __fmul_rn(root, fmaf(slope, dx, dy));
    const float along = __fmul_rn(__fmul_rn(rest, dx), dx);
    const float value = __fmul_rn(opacity, exp2_approximately(fmaf(-t, t, -along)));
    return value >= MIN_ALPHA ? value : 0.0f;
  }
};

template <int C>
struct Listing {
  Entry<C> entries[THREADS];
  int kept[WARPS];
};

// The tile of a block, and the pixel of this thread.
struct Place {
  int64_t frame;
  int tile, column, row;  // the tile's number in the frame, its column and row
  int i, j;
  bool inside;
  int64_t pixel;  // in a plane; only if inside

  __device__ __forceinline__ Place(const Composition& problem, int tiles_x, int tiles)
      : frame(blockIdx.x / tiles),
        tile(blockIdx.x % tiles),
        column(tile % tiles_x),
        row(tile / tiles_x),
        i(row * TILE + threadIdx.x / TILE),
        j(column * TILE + threadIdx.x % TILE),
        inside(i < problem.height && j < problem.width),
        pixel(static_cast<int64_t>(i) * problem.width + j) {}
};

// Lists those of the Gaussians [first, last) of a frame that reach the tile, at most THREADS, with C features from
// `channel` on; returns their number. `bad` becomes NaN if the thread has read one that is not finite.
template <int C>
__device__ __forceinline__ int list(const Composition& problem, const Place& place, int64_t first, int64_t last,
                                    int64_t channel, Listing<C>& listing, float& bad) {
  const int64_t number = first + threadIdx.x, n = place.frame * problem.gaussians + number;
  bool keep = false;
  Entry<C> entry;
  if (number < last) {
    const Splat g(problem, n);
    const Footprint<float> f = footprint(g.a, g.b, g.c, g.opacity);
    bad += g.zero_if_finite();
    keep = Tiles(problem, g, f).contain(place.column, place.row);
    entry = {g.x, g.y, f.root, f.slope, f.rest, g.opacity, static_cast<int>(number), {}};
    if (keep)
      for (int c = 0; c < C; ++c) {
        const bool there = channel + c < problem.channels;
        entry.features[c] = there ? problem.features[n * problem.channels + channel + c] : 0.0f;
      }
  }
  int total;
  const int at = place_in_order(keep, listing.kept, total);  // its barriers keep entries that are in use
  if (keep) listing.entries[at] = entry;
  __syncthreads();
  return total;
}

struct TileCount {
  int64_t x, all;
};

inline TileCount tiles_of(const Composition& problem) {
  const int64_t x = (problem.width + TILE - 1) / TILE;
  return {x, x * ((problem.height + TILE - 1) / TILE)};
}

// Blocks of channels: a kernel processes up to four at a time.
PREDGSPLAT_BOTH int64_t channel_blocks(const Composition& problem) {
  return problem.channels > 4 ? (problem.channels + 3) / 4 : 1;
}

}  // namespace
}  // namespace predgsplat::cuda
