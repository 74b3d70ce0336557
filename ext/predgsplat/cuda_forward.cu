// The image on a GPU, gathered: a block owns a tile of one frame, 16x16 pixels or 8x8, and finds the Gaussians that reach it.
//
//  1. Threads test the boxes of chunks of Gaussians against the tile, then those of the Gaussians of the remaining
//     chunks. Ballots list what remains in its order: no sort.
//  2. The warps share the list. Each warp keeps sums for all pixels in registers: a lane has 8 rows of one column, or 2 in
//     the small tile. With 16 channels, two warps share a Gaussian: each draws one half of the tile, a lane 4 rows.
//     Which warp draws a Gaussian depends on its place in the tile's list alone, not on the chunks that were skipped.
//  3. The warps' sums are added in a fixed order, so that results are reproducible bit by bit.
#include <type_traits>

#include "cuda_prepared.cuh"

namespace predgsplat::cuda {
namespace {

constexpr int LARGE = 16, SMALL = 8;  // tiles
constexpr int MOST_IN_SMALL = 4;      // channels

// How the warps of a block divide a tile for C channels.
template <int C, int PIXELS>
struct Shape {
  static constexpr int CHANNELS = C;
  static constexpr int TILE = PIXELS;                 // along either axis
  static constexpr int SLICES = C > 8 ? 2 : 1;        // warps that share a Gaussian
  static constexpr int GROUPS = WARPS / SLICES;
  static constexpr int HEIGHT = TILE / SLICES;        // of a warp's part of the tile
  static constexpr int ROWS = HEIGHT * TILE / 32;     // per lane
  static constexpr int CAPACITY = C > 8 ? 384 : 512;  // Gaussians in shared memory, of 48 KB
};

// A Gaussian that reaches the tile, prepared for drawing.
template <int C>
struct alignas(16) Entry {
  float x, y, fraction_x, fraction_y;
  Squares squares;
  float amplitudes[C];
};

template <class Shape>
struct Shared {
  union {
    Entry<Shape::CHANNELS> entries[Shape::CAPACITY];
    float sums[Shape::GROUPS][Shape::TILE * Shape::TILE];
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
template <class Input>
__global__ void __launch_bounds__(THREADS)
    prepare_kernel(const __grid_constant__ ProblemOf<Input> problem, const PreparedFrames prepared) {
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
  float left, top, last;  // last: the number of pixels along either axis, less one

  // Whether what shows within a box may reach the tile. True for NaN, which must be drawn.
  __device__ __forceinline__ bool reached(const Box& box) const {
    return !(box.left > left + last) && !(box.right < left) && !(box.top > top + last) && !(box.bottom < top);
  }
};

// The Gaussians of one frame.
template <class Input>
struct Frame {
  const ProblemOf<Input>& problem;
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
template <class Shape, class Input>
__device__ __forceinline__ int list_chunks(const Frame<Input>& frame, int64_t first, const Tile& tile,
                                           Shared<Shape>& shared) {
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
template <class Shape, class Input>
__device__ __forceinline__ int list_entries(const Frame<Input>& frame, int first, int chunks, int channel, const Tile& tile,
                                            int filled, Shared<Shape>& shared) {
  constexpr int C = Shape::CHANNELS;
  const ProblemOf<Input>& problem = frame.problem;
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
      entry.amplitudes[c] = there ? load(problem.amplitudes, n * problem.channels + channel + c) : 0.0f;
    }
  }
  return filled + total;
}

// The pixels of one lane: column j, rows from i on. Draws Gaussians at the pixels themselves.
template <class Shape>
struct AtPixels {
  static constexpr int C = Shape::CHANNELS, ROWS = Shape::ROWS;
  float i, j;
  float sums[C][ROWS] = {};

  __device__ __forceinline__ AtPixels(float i, float j, const Tile&) : i(i), j(j) {}

  __device__ __forceinline__ void draw(const Entry<C>& entry, float) {
    const Column column(entry.squares, j - entry.x - entry.fraction_x, true);
    for (int k = 0; k < ROWS; ++k) {
      const float value = column.at(i - entry.y - entry.fraction_y + k);
      for (int c = 0; c < C; ++c) sums[c][k] = fmaf(entry.amplitudes[c], value, sums[c][k]);
    }
  }

  __device__ __forceinline__ void finish() {}
};

// The same for the lattice: pixel j blends the lattice columns at j and j - 1, and likewise the rows.
template <class Shape>
struct OnLattice {
  static constexpr int C = Shape::CHANNELS, ROWS = Shape::ROWS;
  float i, j;
  float sums[C][ROWS] = {};

  __device__ __forceinline__ OnLattice(float i, float j, const Tile&) : i(i), j(j) {}

  __device__ __forceinline__ void draw(const Entry<C>& entry, float radius) {
    const float u = j - entry.x, v = i - entry.y;
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

  __device__ __forceinline__ void finish() {}
};

// The same with half the exponentials, for twice the sums: a lane evaluates its own lattice column and keeps apart what
// this adds to the next pixel, which is the next lane's, until all Gaussians are drawn. The column before the tile lies
// with the lanes by rows: lane l has the lattice row of the pixels at l - 1.
template <class Shape>
struct SpreadOverLattice {
  static constexpr int C = Shape::CHANNELS, ROWS = Shape::ROWS, TILE = Shape::TILE;
  static_assert(Shape::SLICES == 1);
  float i, j, edge_i, edge_j;
  float sums[C][ROWS] = {}, of_next[C][ROWS] = {};
  float edge[C] = {}, edge_of_next[C] = {};  // at the first pixel of the lattice row, and of the row below

  __device__ __forceinline__ SpreadOverLattice(float i, float j, const Tile& tile)
      : i(i), j(j), edge_i(tile.top - 1.0f + static_cast<float>(threadIdx.x % 32)), edge_j(tile.left - 1.0f) {}

  __device__ __forceinline__ void draw(const Entry<C>& entry, float radius) {
    const float u = j - entry.x, v = i - entry.y, x = entry.fraction_x, y = entry.fraction_y;
    const Column column(entry.squares, u, !(fabsf(u) > radius));
    const auto row = [&](float v) {
      const float value = column.at(v);
      return fabsf(v) > radius ? 0.0f : value;
    };
    float mine[C], next[C];
    for (int c = 0; c < C; ++c) {
      next[c] = entry.amplitudes[c] * x;
      mine[c] = entry.amplitudes[c] * (1.0f - x);
    }
    float above = row(v - 1.0f);
    for (int k = 0; k < ROWS; ++k) {
      const float below = row(v + k);
      const float value = lerp_to(below, above, y);
      for (int c = 0; c < C; ++c) {
        sums[c][k] = fmaf(mine[c], value, sums[c][k]);
        of_next[c][k] = fmaf(next[c], value, of_next[c][k]);
      }
      above = below;
    }
    const float edge_u = edge_j - entry.x, edge_v = edge_i - entry.y;
    const Column before(entry.squares, edge_u, !(fabsf(edge_u) > radius || fabsf(edge_v) > radius));
    const float value = before.at(edge_v);
    for (int c = 0; c < C; ++c) {
      edge[c] = fmaf(next[c], value * (1.0f - y), edge[c]);
      edge_of_next[c] = fmaf(next[c], value * y, edge_of_next[c]);
    }
  }

  // Adds what the columns before have left for this one.
  __device__ __forceinline__ void finish() {
    const int lane = threadIdx.x % 32, column = lane % TILE, first_row = lane / TILE * ROWS;
    for (int c = 0; c < C; ++c) {
      // In lane l, what the column before the tile adds to the first pixel of row l.
      const float from_edge = __shfl_sync(ALL_LANES, edge[c], (lane + 1) % 32) + edge_of_next[c];
      for (int k = 0; k < ROWS; ++k) {
        const float first = __shfl_sync(ALL_LANES, from_edge, first_row + k);
        const float other = __shfl_sync(ALL_LANES, of_next[c][k], (lane + 31) % 32);
        sums[c][k] += column == 0 ? first : other;
      }
    }
  }
};

// For more than one channel, the additional sums of spreading take more registers and instructions than it saves.
template <class Shape, bool ANALYTIC>
using Pixels = std::conditional_t<ANALYTIC, AtPixels<Shape>,
                                  std::conditional_t<Shape::CHANNELS == 1, SpreadOverLattice<Shape>, OnLattice<Shape>>>;

// Adds the warps' sums of one channel and writes the tile. plane: where the channel begins in the image.
template <class Shape, int ROWS, class Image>
__device__ __forceinline__ void add_and_store(float (&shared)[Shape::GROUPS][Shape::TILE * Shape::TILE],
                                              const float (&sums)[ROWS], const Geometry& geometry, int left, int top,
                                              const Image& image, int64_t plane) {
  constexpr int TILE = Shape::TILE, PART = TILE * Shape::HEIGHT;  // pixels of a warp
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();  // all threads have finished reading the shared memory
  float* const mine = shared[warp / Shape::SLICES] + warp % Shape::SLICES * PART;
  for (int k = 0; k < ROWS; ++k) mine[32 * k + lane] = sums[k];
  __syncthreads();
  if (threadIdx.x >= TILE * TILE) return;
  float total = 0.0f;
  for (int group = 0; group < Shape::GROUPS; ++group) total += shared[group][threadIdx.x];
  const int slice = threadIdx.x / PART, k = threadIdx.x % PART / 32;
  const int i = top + slice * Shape::HEIGHT + lane / TILE * ROWS + k, j = left + lane % TILE;
  if (i < geometry.height && j < geometry.width) store(image, plane + static_cast<int64_t>(i) * geometry.width + j, total);
}

// The kernel's blocks: tiles of all frames along x, blocks of C channels along y.
struct Grid {
  int tiles_x, tiles;  // of a frame
};

template <int C, bool ANALYTIC, int TILE, class Input, class Image>
__global__ void __launch_bounds__(THREADS, C < 3 ? 4 : C == 3 ? 3 : 2)
    forward_kernel(const __grid_constant__ ProblemOf<Input> problem, const PreparedFrames prepared, const Image image,
                   const Grid grid) {
  using Shape = Shape<C, TILE>;
  __shared__ Shared<Shape> shared;
  const Geometry& geometry = problem.geometry;
  const Frame<Input> frame = {problem, prepared, blockIdx.x / grid.tiles};
  const int index = blockIdx.x % grid.tiles, left = index % grid.tiles_x * TILE, top = index / grid.tiles_x * TILE;
  const int channel = blockIdx.y * C, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Tile tile = {static_cast<float>(left), static_cast<float>(top), TILE - 1.0f};
  const int group = warp / Shape::SLICES, below = warp % Shape::SLICES * Shape::HEIGHT + lane / TILE * Shape::ROWS;

  Pixels<Shape, ANALYTIC> pixels(static_cast<float>(top + below), static_cast<float>(left + lane % TILE), tile);
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
        pixels.draw(shared.entries[k], geometry.radius);
      drawn += filled;
      filled = 0;
    } while (c < chunks);
  }
  pixels.finish();

  const int64_t plane = static_cast<int64_t>(geometry.height) * geometry.width;
  const int64_t first_plane = (frame.frame * problem.channels + channel) * plane;
  for (int c = 0; c < C && channel + c < problem.channels; ++c)
    add_and_store<Shape>(shared.sums, pixels.sums[c], geometry, left, top, image, first_plane + c * plane);
}

int64_t tiles_along(int pixels, int tile) { return (pixels + tile - 1) / tile; }

int64_t tiles_of(const Geometry& geometry, int tile) {
  return tiles_along(geometry.width, tile) * tiles_along(geometry.height, tile);
}

template <int C, int TILE, class Input, class Image>
int draw_frames(const ProblemOf<Input>& problem, const PreparedFrames& prepared, const Image& image, void* stream) {
  const auto kernel = problem.geometry.analytic ? forward_kernel<C, true, TILE, Input, Image>
                                                : forward_kernel<C, false, TILE, Input, Image>;
  const int64_t tiles = tiles_of(problem.geometry, TILE);
  if (tiles > MAX_BLOCKS_X) return cudaErrorInvalidConfiguration;
  const Grid grid = {static_cast<int>(tiles_along(problem.geometry.width, TILE)), static_cast<int>(tiles)};
  return launch(kernel, problem.frames * tiles, (problem.channels + C - 1) / C, stream, problem, prepared, image, grid);
}

template <class Input>
int prepare_frames(const ProblemOf<Input>& problem, const PreparedFrames& prepared, void* stream) {
  const int64_t chunks = problem.frames * chunks_of(problem);
  if (chunks == 0 || !prepared.gaussians) return cudaSuccess;
  return launch(prepare_kernel<Input>, (chunks + CHUNKS_PER_BLOCK - 1) / CHUNKS_PER_BLOCK, 1, stream, problem, prepared);
}

template <class Input, class Image>
int draw(const ProblemOf<Input>& problem, const ForwardPlan& plan, const Image& image, float* scratch, void* stream) {
  if (problem.frames == 0 || problem.channels == 0) return cudaSuccess;
  const PreparedFrames prepared = prepared_in(plan.prepares_once ? scratch : nullptr, problem);
  if (const int error = prepare_frames(problem, prepared, stream)) return error;
  return with_up_to_16_channels(problem.channels, [&](auto constant) {
    constexpr int C = decltype(constant)::value;
    if constexpr (C <= MOST_IN_SMALL)
      if (plan.tile == SMALL) return draw_frames<C, SMALL>(problem, prepared, image, stream);
    return draw_frames<C, LARGE>(problem, prepared, image, stream);
  });
}

}  // namespace

ForwardPlan forward_plan(const Dimensions& problem) {
  // So few blocks leave half of the multiprocessors of a large GPU idle; of small tiles there are four times as many.
  constexpr int64_t few_tiles = 64;
  // Preparing a Gaussian takes some 130 instructions of a thread, 4 of a warp: so many take as long as a launch.
  constexpr int64_t preparations = 1 << 20;
  const int64_t large = problem.frames * tiles_of(problem.geometry, LARGE);
  const int tile = large <= few_tiles && problem.channels <= MOST_IN_SMALL ? SMALL : LARGE;
  const int64_t tiles = problem.frames * tiles_of(problem.geometry, tile);
  return {tile, problem.gaussians > 0 && tiles > preparations / problem.gaussians};
}

int64_t forward_scratch(const Dimensions& problem, const ForwardPlan& plan) {
  return plan.prepares_once ? prepared_floats(problem) : 0;
}

int forward(const Problem& problem, const ForwardPlan& plan, float* image, float* scratch, void* stream) {
  return draw(problem, plan, image, scratch, stream);
}

int forward(const ProblemOf<Numbers>& problem, const ForwardPlan& plan, const Results& image, float* scratch, void* stream) {
  return draw(problem, plan, image, scratch, stream);
}

}  // namespace predgsplat::cuda
