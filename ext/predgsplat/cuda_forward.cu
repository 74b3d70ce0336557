// The image on a GPU, gathered: a block owns a tile of 16x16 pixels of one frame and finds the Gaussians that reach it.
//
//  1. Threads test the boxes of chunks of Gaussians against the tile, then those of the Gaussians of the remaining
//     chunks. Ballots list what remains in its order: no sort.
//  2. The warps share the list. Each warp keeps sums for all 256 pixels in registers: a lane has 8 rows of one column.
//     With 16 channels, two warps share a Gaussian: each draws one half of the tile, and a lane has 4 rows.
//     Which warp draws a Gaussian depends on its place in the tile's list alone, not on the chunks that were skipped.
//  3. The warps' sums are added in a fixed order, so that results are reproducible bit by bit.
#include <type_traits>

#include "cuda_prepared.cuh"

namespace predgsplat::cuda {
namespace {

constexpr int TILE = 16;

// How the warps of a block divide a tile for C channels.
template <int C>
struct Shape {
  static constexpr int SLICES = C > 8 ? 2 : 1;  // warps that share a Gaussian
  static constexpr int GROUPS = WARPS / SLICES;
  static constexpr int HEIGHT = TILE / SLICES;      // of a warp's part of the tile
  static constexpr int ROWS = HEIGHT * TILE / 32;   // per lane
  static constexpr int CAPACITY = C > 8 ? 384 : 512;  // Gaussians in shared memory, of 48 KB
};

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
    Entry<C> entries[Shape<C>::CAPACITY];
    float sums[Shape<C>::GROUPS][TILE * TILE];
  };
  int chunks[THREADS];
  int kept[WARPS];
};

__device__ __forceinline__ Box unite_over_warp(Box box) {
  for (int distance = 16; distance > 0; distance /= 2)
    box = unite(box, {__shfl_xor_sync(ALL_LANES, box.left, distance), __shfl_xor_sync(ALL_LANES, box.right, distance),
                      __shfl_xor_sync(ALL_LANES, box.top, distance), __shfl_xor_sync(ALL_LANES, box.bottom, distance)});
  return box;
}

// One thread per Gaussian; a chunk begins anew with each frame.
__global__ void __launch_bounds__(THREADS) prepare_kernel(const Problem problem, const PreparedFrames prepared) {
  __shared__ Box boxes[WARPS];
  const int64_t chunks = chunks_of(problem);
  const int64_t chunk = static_cast<int64_t>(blockIdx.x) * CHUNKS_PER_BLOCK + threadIdx.x / CHUNK;
  const int64_t frame = chunk / chunks, number = chunk % chunks * CHUNK + threadIdx.x % CHUNK;
  Box box = nowhere();
  if (frame < problem.frames && number < problem.gaussians) {
    const int64_t n = frame * problem.gaussians + number;
    const Prepared g = prepare_one(problem, n);
    prepared.gaussians[n] = g;
    box = box_of(g);
  }
  box = unite_over_warp(box);
  if (threadIdx.x % 32 == 0) boxes[threadIdx.x / 32] = box;
  __syncthreads();
  if (threadIdx.x % CHUNK || frame >= problem.frames) return;
  for (int w = 1; w < CHUNK / 32; ++w) box = unite(box, boxes[threadIdx.x / 32 + w]);
  prepared.boxes[chunk] = box;
}

struct Tile {
  float left, top;

  // Whether what shows within a box may reach the tile. True for NaN, which must be drawn.
  __device__ __forceinline__ bool reached(const Box& box) const {
    return !(box.left > left + (TILE - 1)) && !(box.right < left) && !(box.top > top + (TILE - 1)) && !(box.bottom < top);
  }
};

// The Gaussians of one frame.
struct Frame {
  const Problem& problem;
  const PreparedFrames& prepared;
  int64_t frame;

  __device__ __forceinline__ bool may_reach(int64_t chunk, const Tile& tile) const {
    return !prepared.boxes || tile.reached(prepared.boxes[frame * chunks_of(problem) + chunk]);
  }

  // n counts through the Gaussians of all frames.
  __device__ __forceinline__ Prepared gaussian(int64_t n) const {
    return prepared.gaussians ? prepared.gaussians[n] : prepare_one(problem, n);
  }
};

// Lists the chunks that may reach the tile, of THREADS chunks from `first`; returns their number.
template <int C>
__device__ __forceinline__ int list_chunks(const Frame& frame, int64_t first, const Tile& tile, Shared<C>& shared) {
  const int64_t chunk = first + threadIdx.x;
  const bool keep = chunk < chunks_of(frame.problem) && frame.may_reach(chunk, tile);
  int total;
  const int place = place_in_order(keep, shared.kept, total);
  if (keep) shared.chunks[place] = static_cast<int>(chunk);
  __syncthreads();
  return total;
}

// Adds the Gaussians that reach the tile, of CHUNKS_PER_BLOCK listed chunks from `first`, to the entries in shared
// memory, of which there are `filled`; returns how many there are then.
template <int C>
__device__ __forceinline__ int list_entries(const Frame& frame, int first, int chunks, int channel, const Tile& tile,
                                            int filled, Shared<C>& shared) {
  const Problem& problem = frame.problem;
  const int slot = first + threadIdx.x / CHUNK;
  const int64_t number = slot < chunks ? static_cast<int64_t>(shared.chunks[slot]) * CHUNK + threadIdx.x % CHUNK
                                       : problem.gaussians;
  const int64_t n = frame.frame * problem.gaussians + number;
  bool keep = false;
  Prepared g;
  if (number < problem.gaussians) {
    g = frame.gaussian(n);
    keep = tile.reached(box_of(g));
  }
  int total;
  const int place = place_in_order(keep, shared.kept, total);  // its barriers keep entries that are being drawn
  if (keep) {
    Entry<C>& entry = shared.entries[filled + place];
    entry.x = floorf(g.x);
    entry.y = floorf(g.y);
    entry.fraction_x = g.x - entry.x;
    entry.fraction_y = g.y - entry.y;
    entry.squares = g.squares;
    for (int c = 0; c < C; ++c) {
      const bool there = channel + c < problem.channels;
      entry.amplitudes[c] = there ? problem.amplitudes[n * problem.channels + channel + c] : 0.0f;
    }
  }
  return filled + total;
}

// Adds a Gaussian to the pixels of one lane: column j, rows from i on.
template <bool ANALYTIC, int C, int ROWS>
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
template <class Shape, int ROWS>
__device__ __forceinline__ void add_and_store(float (&shared)[Shape::GROUPS][TILE * TILE], const float (&sums)[ROWS],
                                              const Geometry& geometry, int left, int top, float* plane) {
  constexpr int PART = TILE * Shape::HEIGHT;  // pixels of a warp
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();  // all threads have finished reading the shared memory
  float* const mine = shared[warp / Shape::SLICES] + warp % Shape::SLICES * PART;
  for (int k = 0; k < ROWS; ++k) mine[32 * k + lane] = sums[k];
  __syncthreads();
  float total = 0.0f;
  for (int group = 0; group < Shape::GROUPS; ++group) total += shared[group][threadIdx.x];
  const int slice = threadIdx.x / PART, k = threadIdx.x % PART / 32;
  const int i = top + slice * Shape::HEIGHT + lane / TILE * ROWS + k, j = left + lane % TILE;
  if (i < geometry.height && j < geometry.width) plane[static_cast<int64_t>(i) * geometry.width + j] = total;
}

// The kernel's blocks: tiles of all frames along x, blocks of C channels along y.
struct Grid {
  int tiles_x, tiles;  // of a frame
};

template <int C, bool ANALYTIC>
__global__ void __launch_bounds__(THREADS, C < 3 ? 4 : C == 3 ? 3 : 2)
    forward_kernel(const Problem problem, const PreparedFrames prepared, float* image, const Grid grid) {
  using Shape = Shape<C>;
  __shared__ Shared<C> shared;
  const Geometry& geometry = problem.geometry;
  const Frame frame = {problem, prepared, blockIdx.x / grid.tiles};
  const int index = blockIdx.x % grid.tiles, left = index % grid.tiles_x * TILE, top = index / grid.tiles_x * TILE;
  const int channel = blockIdx.y * C, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Tile tile = {static_cast<float>(left), static_cast<float>(top)};
  const int group = warp / Shape::SLICES, below = warp % Shape::SLICES * Shape::HEIGHT + lane / TILE * Shape::ROWS;
  const float i = static_cast<float>(top + below), j = static_cast<float>(left + lane % TILE);

  float sums[C][Shape::ROWS] = {};
  int filled = 0, drawn = 0;  // entries in shared memory, and those before them
  const int64_t all_chunks = chunks_of(problem);
  for (int64_t first = 0; first < all_chunks; first += THREADS) {
    const int chunks = list_chunks(frame, first, tile, shared);
    int c = 0;
    do {
      filled = list_entries(frame, c, chunks, channel, tile, filled, shared);
      c += CHUNKS_PER_BLOCK;
      const bool last = c >= chunks && first + THREADS >= all_chunks;
      if (filled <= Shape::CAPACITY - THREADS && !last) continue;
      __syncthreads();
      for (int k = (group - drawn) & (Shape::GROUPS - 1); k < filled; k += Shape::GROUPS)
        draw<ANALYTIC>(shared.entries[k], i, j, geometry.radius, sums);
      drawn += filled;
      filled = 0;
    } while (c < chunks);
  }

  const int64_t plane = static_cast<int64_t>(geometry.height) * geometry.width;
  float* frame_image = image + (frame.frame * problem.channels + channel) * plane;
  for (int c = 0; c < C && channel + c < problem.channels; ++c)
    add_and_store<Shape>(shared.sums, sums[c], geometry, left, top, frame_image + c * plane);
}

int64_t tiles_along(int pixels) { return (pixels + TILE - 1) / TILE; }

int prepare_frames(const Problem& problem, const PreparedFrames& prepared, void* stream) {
  const int64_t chunks = problem.frames * chunks_of(problem);
  if (chunks == 0 || !prepared.gaussians) return cudaSuccess;
  return launch(prepare_kernel, (chunks + CHUNKS_PER_BLOCK - 1) / CHUNKS_PER_BLOCK, 1, stream, problem, prepared);
}

}  // namespace

ForwardPlan forward_plan(const Problem& problem) {
  const int64_t tiles = tiles_along(problem.geometry.width) * tiles_along(problem.geometry.height);
  // Preparing a Gaussian takes some 130 instructions of a thread, 4 of a warp: so many take as long as a launch.
  constexpr int64_t preparations = 1 << 20;
  return {problem.gaussians > 0 && tiles * problem.frames > preparations / problem.gaussians};
}

int64_t forward_scratch(const Problem& problem, const ForwardPlan& plan) {
  return plan.prepares_once ? prepared_floats(problem) : 0;
}

int forward(const Problem& problem, const ForwardPlan& plan, float* image, float* scratch, void* stream) {
  const int64_t tiles_x = tiles_along(problem.geometry.width), tiles = tiles_x * tiles_along(problem.geometry.height);
  if (problem.frames == 0 || problem.channels == 0) return cudaSuccess;
  if (tiles > MAX_BLOCKS_X) return cudaErrorInvalidConfiguration;
  const PreparedFrames prepared = prepared_in(plan.prepares_once ? scratch : nullptr, problem);
  if (const int error = prepare_frames(problem, prepared, stream)) return error;
  return with_up_to_16_channels(problem.channels, [&](auto constant) {
    constexpr int C = decltype(constant)::value;
    const auto kernel = problem.geometry.analytic ? forward_kernel<C, true> : forward_kernel<C, false>;
    const Grid grid = {static_cast<int>(tiles_x), static_cast<int>(tiles)};
    return launch(kernel, problem.frames * tiles, (problem.channels + C - 1) / C, stream, problem, prepared, image, grid);
  });
}

}  // namespace predgsplat::cuda
