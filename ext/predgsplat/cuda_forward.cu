// The image on a GPU, gathered: a block owns a tile of 16x16 pixels of one frame and finds the Gaussians that reach it.
//
//  1. Each thread tests the circle of one Gaussian against the tile, then, if it may reach the tile, the exact box.
//     Ballots list the remaining Gaussians in their order: no sort, no buffer, no second kernel.
//  2. The warps share the list. Each warp keeps sums for all 256 pixels in registers: a lane has 8 rows of one column.
//  3. The warps' sums are added in a fixed order, so that results are reproducible bit by bit.
#include <type_traits>

#include "cuda_common.cuh"

namespace predgsplat::cuda {
namespace {

constexpr int TILE = 16;
constexpr int ROWS = 8;     // per lane
constexpr int BATCH = 512;  // Gaussians between two rounds of drawing

// A Gaussian that reaches the tile, prepared for drawing.
template <int C>
struct alignas(16) Entry {
  float x, y, fraction_x, fraction_y;
  Squares squares;
  float amplitudes[C];
};

template <int C>
struct Shared {
  union {
    Entry<C> entries[BATCH];
    float sums[WARPS][THREADS];
  };
  int candidates[BATCH];
  int kept[WARPS];
};

struct Tile {
  float left, top;

  // Whether a Gaussian whose centre has this whole pixel may reach the tile. True for NaN, which must be drawn.
  __device__ __forceinline__ bool reached(float x, float y, float reach_x, float reach_y) const {
    return !(x - reach_x > left + (TILE - 1)) && !(x + 1.0f + reach_x < left) &&
           !(y - reach_y > top + (TILE - 1)) && !(y + 1.0f + reach_y < top);
  }
};

// Lists the Gaussians [first, last) whose circle may reach the tile; returns their number.
__device__ __forceinline__ int find_candidates(const Problem& problem, int64_t frame, int64_t first, int64_t last,
                                               const Tile& tile, int (&candidates)[BATCH], int (&kept)[WARPS]) {
  const Geometry& geometry = problem.geometry;
  const float reach_of_one = sqrtf(2.0f * CUT / LOG2_E) / geometry.step;  // reach in pixels at a scale of 1
  int found = 0;
  for (int64_t chunk = first; chunk < last; chunk += THREADS) {
    const int64_t n = chunk + threadIdx.x;
    bool keep = false;
    if (n < last) {
      const Parameters p = read_parameters(problem, frame * problem.gaussians + n);
      const float bad = zero_if_finite(p);
      const float x = multiply_then_add(p.mu_x, geometry.half_width, geometry.half_width);
      const float y = multiply_then_add(p.mu_y, geometry.half_height, geometry.half_height);
      const float scale = larger(larger(p.s1, p.s2), MIN_SCALE);
      // One pixel more than the circle, to allow for rounding.
      const float reach = fminf(geometry.radius, reach_of_one * scale + 1.0f) + bad;
      keep = tile.reached(floorf(x), floorf(y), reach, reach);
    }
    int total;
    const int place = place_in_order(keep, kept, total);
    if (keep) candidates[found + place] = static_cast<int>(n - first);
    found += total;
  }
  __syncthreads();
  return found;
}

// Prepares the candidates and lists those whose exact box reaches the tile; returns their number.
template <int C>
__device__ __forceinline__ int prepare_entries(const Problem& problem, int64_t first, int channel, const Tile& tile,
                                               int found, Shared<C>& shared) {
  int entries = 0;
  for (int chunk = 0; chunk < found; chunk += THREADS) {
    const int k = chunk + threadIdx.x;
    bool keep = false;
    Entry<C> entry;
    if (k < found) {
      const int64_t n = first + shared.candidates[k];
      const Parameters p = read_parameters(problem, n);
      const Gaussian<float> g = prepare(p, problem.geometry);
      const float bad = zero_if_finite(p), radius = problem.geometry.radius;
      entry.x = g.x + bad;
      entry.y = g.y + bad;
      entry.fraction_x = g.fraction_x;
      entry.fraction_y = g.fraction_y;
      entry.squares = complete_square(g);
      keep = tile.reached(entry.x, entry.y, fminf(radius, g.reach_x), fminf(radius, g.reach_y));
      for (int c = 0; c < C; ++c) {
        const bool there = channel + c < problem.channels;
        entry.amplitudes[c] = there ? problem.amplitudes[n * problem.channels + channel + c] : 0.0f;
      }
    }
    int total;
    const int place = place_in_order(keep, shared.kept, total);
    if (keep) shared.entries[entries + place] = entry;
    entries += total;
  }
  __syncthreads();
  return entries;
}

// Adds a Gaussian to the pixels of one lane: column j, rows i to i + 7.
template <int C, bool ANALYTIC>
__device__ __forceinline__ void draw(const Entry<C>& entry, float i, float j, float radius, float (&sums)[C][ROWS]) {
  const float u = j - entry.x, v = i - entry.y;
  if constexpr (ANALYTIC) {
    const Column column(entry.squares, u - entry.fraction_x, true);
    for (int k = 0; k < ROWS; ++k) {
      const float value = column.at(v - entry.fraction_y + k);
      for (int c = 0; c < C; ++c) sums[c][k] = fmaf(entry.amplitudes[c], value, sums[c][k]);
    }
  } else {
    // Pixel j blends the lattice columns at j and j - 1, and likewise the rows.
    const Column here(entry.squares, u, !(fabsf(u) > radius));
    const Column left(entry.squares, u - 1.0f, !(fabsf(u - 1.0f) > radius));
    const auto row = [&](float v) {
      const float value = lerp_to(here.at(v), left.at(v), entry.fraction_x);
      return fabsf(v) > radius ? 0.0f : value;
    };
    float above = row(v - 1.0f);
    for (int k = 0; k < ROWS; ++k) {
      const float below = row(v + k);
      const float value = lerp_to(below, above, entry.fraction_y);
      for (int c = 0; c < C; ++c) sums[c][k] = fmaf(entry.amplitudes[c], value, sums[c][k]);
      above = below;
    }
  }
}

// Adds the warps' sums of one channel and writes the tile.
__device__ __forceinline__ void add_and_store(float (&shared)[WARPS][THREADS], const float (&sums)[ROWS],
                                              const Geometry& geometry, int left, int top, float* plane) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();  // all threads have finished reading the shared memory
  for (int k = 0; k < ROWS; ++k) shared[warp][32 * k + lane] = sums[k];
  __syncthreads();
  float total = 0.0f;
  for (int w = 0; w < WARPS; ++w) total += shared[w][threadIdx.x];
  const int i = top + lane / TILE * ROWS + warp, j = left + lane % TILE;
  if (i < geometry.height && j < geometry.width) plane[static_cast<int64_t>(i) * geometry.width + j] = total;
}

template <int C, bool ANALYTIC>
__global__ void __launch_bounds__(THREADS, C < 3 ? 4 : 6 - C) forward_kernel(const Problem problem, float* image, int tiles_x, int tiles) {
  __shared__ Shared<C> shared;
  const Geometry& geometry = problem.geometry;
  const int64_t frame = blockIdx.x / tiles;
  const int index = blockIdx.x % tiles, left = index % tiles_x * TILE, top = index / tiles_x * TILE;
  const int channel = blockIdx.y * C, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Tile tile = {static_cast<float>(left), static_cast<float>(top)};
  const float i = static_cast<float>(top + lane / TILE * ROWS), j = static_cast<float>(left + lane % TILE);

  float sums[C][ROWS] = {};
  for (int64_t first = 0; first < problem.gaussians; first += BATCH) {
    const int64_t last = first + BATCH < problem.gaussians ? first + BATCH : problem.gaussians;
    const int found = find_candidates(problem, frame, first, last, tile, shared.candidates, shared.kept);
    const int entries = prepare_entries(problem, frame * problem.gaussians + first, channel, tile, found, shared);
    // The barriers in find_candidates keep the next batch from overwriting entries that are still in use.
    for (int k = warp; k < entries; k += WARPS) draw<C, ANALYTIC>(shared.entries[k], i, j, geometry.radius, sums);
  }

  const int64_t plane = static_cast<int64_t>(geometry.height) * geometry.width;
  float* frame_image = image + (frame * problem.channels + channel) * plane;
  for (int c = 0; c < C && channel + c < problem.channels; ++c)
    add_and_store(shared.sums, sums[c], geometry, left, top, frame_image + c * plane);
}

}  // namespace

int forward(const Problem& problem, float* image, void* stream) {
  const int64_t tiles_x = (problem.geometry.width + TILE - 1) / TILE;
  const int64_t tiles = tiles_x * ((problem.geometry.height + TILE - 1) / TILE);
  if (problem.frames == 0 || problem.channels == 0) return cudaSuccess;
  return with_channels(problem.channels, [&](auto constant) {
    constexpr int C = decltype(constant)::value;
    const auto kernel = problem.geometry.analytic ? forward_kernel<C, true> : forward_kernel<C, false>;
    const int64_t chunks = (problem.channels + C - 1) / C;
    if (tiles > MAX_BLOCKS_X) return static_cast<int>(cudaErrorInvalidConfiguration);
    return launch(kernel, problem.frames * tiles, chunks, stream, problem, image, static_cast<int>(tiles_x),
                  static_cast<int>(tiles));
  });
}

}  // namespace predgsplat::cuda
