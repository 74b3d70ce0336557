// The gradients on a GPU, gathered: a warp owns one Gaussian, or a share of its rows, and walks the pixels it reaches.
//
//  1. One thread per Gaussian of the block prepares it.
//  2. The warps take the Gaussians in turn. Lanes are columns of the lattice; where a Gaussian has fewer columns, the
//     remaining lanes take other rows of it. Sums stay in registers and are added by shuffles.
//  3. One thread per Gaussian turns the sums into gradients and writes them: no atomics, and a fixed order.
#include <type_traits>

#include "cuda_common.cuh"

namespace predgsplat::cuda {
namespace {

constexpr int MOST_PER_BLOCK = 64;  // Gaussians
constexpr int SHARE_BITS = 2;       // 4 warps per Gaussian where the Gaussians are too few to occupy a GPU
constexpr int MOMENTS = 5;          // suu, suw, sww, then sx and sy, or su and sw in the analytic mode

// A Gaussian, prepared for the warps.
template <int C>
struct alignas(16) Entry {
  int64_t plane;  // offset of the first of the channels in the gradient image
  int x, y;
  int first_u, last_u, first_v, last_v;  // within reach and frame; empty if last < first
  float fraction_x, fraction_y;
  Squares squares;
  float ridge;  // b/c: at u the Gaussian is largest at v = -ridge u
  float amplitudes[C];
};

template <int C>
struct Sums {
  float moments[MOMENTS], amplitudes[C];
};

// The rows that a lane walks, and its neighbouring lanes. After `width` lanes the columns repeat, in other rows.
struct Lane {
  int width, column, row, rows;
  int left, right;

  __device__ __forceinline__ Lane(int columns, int rows_in_all, int share, int share_bits) {
    const int lane = threadIdx.x % 32, bits = columns <= 8 ? 3 : columns <= 16 ? 4 : 5;
    width = 1 << bits;
    column = lane & (width - 1);
    const int band_bits = 5 - bits + share_bits, band = (share << (5 - bits)) + (lane >> bits);
    rows = (rows_in_all + (1 << band_bits) - 1) >> band_bits;
    row = band * rows;
    left = lane - column + ((column - 1) & (width - 1));
    right = lane - column + ((column + 1) & (width - 1));
  }
};

// The gradient of an image, from the first of the channels that are processed together.
struct Image {
  const float* grad;
  int64_t plane;  // H W
  int height, width;
  int channels;  // number of channels from there on
};

// A walk down the gradient image.
struct Walk {
  const float* at;
  int width;

  __device__ __forceinline__ Walk(const Image& image, int i, int j)
      : at(image.grad + (static_cast<int64_t>(i) * image.width + j)), width(image.width) {}

  __device__ __forceinline__ void next_row() { at += width; }
};

// The channels of the gradient image at one pixel, and their sum weighted by the amplitudes. With a single channel the
// amplitude is left out here and scales all sums at the end.
template <int C>
struct Pixel {
  float channels[C];

  __device__ __forceinline__ Pixel(const Image& image, const Walk& walk, bool inside) {
    for (int c = 0; c < C; ++c) channels[c] = inside && c < image.channels ? walk.at[c * image.plane] : 0.0f;
  }

  __device__ __forceinline__ float weighted(const Entry<C>& entry) const {
    if constexpr (C == 1) return channels[0];
    float sum = 0.0f;
    for (int c = 0; c < C; ++c) sum = fmaf(entry.amplitudes[c], channels[c], sum);
    return sum;
  }
};

// Sums over the rows of one column: the gradient times the value, times 1, w and w².
struct ColumnMoments {
  float s0 = 0.0f, sw = 0.0f, sww = 0.0f;

  __device__ __forceinline__ void add(float weight, float w) {
    const float weight_w = weight * w;
    s0 += weight;
    sw += weight_w;
    sww = fmaf(weight_w, w, sww);
  }

  __device__ __forceinline__ void add_to(float (&moments)[MOMENTS], float u) const {
    moments[0] = fmaf(u * u, s0, moments[0]);
    moments[1] = fmaf(u, sw, moments[1]);
    moments[2] += sww;
  }
};

// One strip of lattice columns. The weights that move the lattice to the image also interpolate the gradient at it.
template <int C>
__device__ __forceinline__ void walk_lattice(const Entry<C>& entry, const Image& image, const Lane& lane, int u,
                                             Sums<C>& sums) {
  const int j = entry.x + u;
  // The last lane of a strip only provides its pixel to the lane before it.
  const Column column(entry.squares, u, lane.column < lane.width - 1 && u <= entry.last_u);
  const bool inside = j >= 0 && j < image.width;
  const int first = entry.first_v + lane.row, rows = min(lane.rows, entry.last_v + 1 - first);
  int i = entry.y + first;
  Walk walk(image, i, j);
  const float ridge = entry.ridge * u;
  float v = static_cast<float>(first);
  ColumnMoments moments;
  float value_above = 0.0f, w_above = 0.0f, spread_above = 0.0f, moved_above = 0.0f, step_above = 0.0f;
  // Each iteration completes the lattice row above, which needs this row of pixels, and begins the row at v.
#pragma unroll 2
  for (int k = 0; k <= lane.rows; ++k) {
    const Pixel<C> pixel(image, walk, inside && static_cast<unsigned>(i) < static_cast<unsigned>(image.height));
    const float grad = pixel.weighted(entry);
    const float step = __shfl_sync(ALL_LANES, grad, lane.right) - grad;
    const float moved = fmaf(entry.fraction_x, step, grad);
    const float weight = value_above * lerp_to(moved_above, moved, entry.fraction_y);
    moments.add(weight, w_above);
    sums.moments[3] = fmaf(value_above, lerp_to(step_above, step, entry.fraction_y), sums.moments[3]);
    sums.moments[4] = fmaf(value_above, moved - moved_above, sums.moments[4]);

    const float w = v + ridge, value = k < rows ? column.from_ridge(w) : 0.0f;
    if constexpr (C > 1) {
      // For the amplitudes the value is moved to the pixels instead, once for all channels.
      const float spread = lerp_to(value, __shfl_sync(ALL_LANES, value, lane.left), entry.fraction_x);
      const float drawn = lerp_to(spread, spread_above, entry.fraction_y);
      for (int c = 0; c < C; ++c) sums.amplitudes[c] = fmaf(drawn, pixel.channels[c], sums.amplitudes[c]);
      spread_above = spread;
    }
    value_above = value;
    w_above = w;
    moved_above = moved;
    step_above = step;
    walk.next_row();
    v += 1.0f;
    ++i;
  }
  if constexpr (C == 1) sums.amplitudes[0] += moments.s0;
  moments.add_to(sums.moments, u);
}

// One strip of pixel columns; the Gaussian is evaluated at the pixels themselves.
template <int C>
__device__ __forceinline__ void walk_pixels(const Entry<C>& entry, const Image& image, const Lane& lane, int whole_u,
                                            Sums<C>& sums) {
  const bool inside = whole_u <= entry.last_u;
  const float u = static_cast<float>(whole_u) - entry.fraction_x;
  const Column column(entry.squares, u, inside);
  const int first = entry.first_v + lane.row, rows = min(lane.rows, entry.last_v + 1 - first);
  Walk walk(image, entry.y + first, entry.x + whole_u);
  const float ridge = entry.ridge * u;
  ColumnMoments moments;
  for (int k = 0; k < rows; ++k) {
    const Pixel<C> pixel(image, walk, inside);
    const float w = static_cast<float>(first + k) - entry.fraction_y + ridge, value = column.from_ridge(w);
    moments.add(value * pixel.weighted(entry), w);
    if constexpr (C > 1)
      for (int c = 0; c < C; ++c) sums.amplitudes[c] = fmaf(value, pixel.channels[c], sums.amplitudes[c]);
    walk.next_row();
  }
  if constexpr (C == 1) sums.amplitudes[0] += moments.s0;
  moments.add_to(sums.moments, u);
  sums.moments[3] = fmaf(u, moments.s0, sums.moments[3]);
  sums.moments[4] += moments.sw;
}

// One warp: the share of a Gaussian's rows, in strips of columns, summed over the lanes.
template <int C, bool ANALYTIC>
__device__ __forceinline__ Sums<C> walk(const Entry<C>& entry, const Image& image, int share, int share_bits) {
  Sums<C> sums = {};
  const int columns = entry.last_u - entry.first_u + 1 + (ANALYTIC ? 0 : 1);
  const Lane lane(columns, entry.last_v - entry.first_v + 1, share, share_bits);
  const int strip = ANALYTIC ? lane.width : lane.width - 1;
  for (int u = entry.first_u; u <= entry.last_u; u += strip) {
    if constexpr (ANALYTIC)
      walk_pixels(entry, image, lane, u + lane.column, sums);
    else
      walk_lattice(entry, image, lane, u + lane.column, sums);
  }
#pragma unroll
  for (float& x : sums.moments) x = sum_over_warp(x);
#pragma unroll
  for (float& x : sums.amplitudes) x = sum_over_warp(x);
  return sums;
}

struct Range {
  int first, last;
};

// The offsets along one axis within reach of a Gaussian: of lattice points that draw into the frame, or of its pixels.
template <bool ANALYTIC>
__device__ __forceinline__ Range visible(float whole, float reach, int pixels) {
  const float first = fmaxf(-floorf(reach), (ANALYTIC ? 0.0f : -1.0f) - whole);
  const float last = fminf(floorf(reach) + (ANALYTIC ? 1.0f : 0.0f), static_cast<float>(pixels - 1) - whole);
  if (!(first <= last)) return {0, -1};  // NaN, or too far outside to fit an integer
  return {static_cast<int>(first), static_cast<int>(last)};
}

template <int C, bool ANALYTIC>
__device__ __forceinline__ void prepare_entry(const Parameters& p, const Geometry& geometry, Entry<C>& entry) {
  const Gaussian<float> g = prepare(p, geometry);
  Range u = visible<ANALYTIC>(g.x, fminf(geometry.radius, g.reach_x), geometry.width);
  Range v = visible<ANALYTIC>(g.y, fminf(geometry.radius, g.reach_y), geometry.height);
  const bool nothing = u.last < u.first || v.last < v.first || isnan(zero_if_finite(p));
  if (nothing) u = v = {0, -1};
  entry.x = nothing ? 0 : static_cast<int>(g.x);
  entry.y = nothing ? 0 : static_cast<int>(g.y);
  entry.first_u = u.first;
  entry.last_u = u.last;
  entry.first_v = v.first;
  entry.last_v = v.last;
  entry.fraction_x = g.fraction_x;
  entry.fraction_y = g.fraction_y;
  entry.squares = complete_square(g);
  entry.ridge = g.b / g.c;
}

// Writes the gradients of the parameters; all are NaN if one parameter is not finite.
template <bool ANALYTIC, class Output>
__device__ __forceinline__ void write_gradients(const float (&sums)[MOMENTS], const Parameters& p, const Geometry& geometry,
                                                int64_t n, const InputGradientsOf<Output>& gradients) {
  Moments<float> m = {};
  m.suu = sums[0];
  m.suw = sums[1];
  m.sww = sums[2];
  (ANALYTIC ? m.su : m.sx) = sums[3];
  (ANALYTIC ? m.sw : m.sy) = sums[4];
  const Gradients<float> d = adjoint(m, p.s1, p.s2, p.theta, geometry);
  const float bad = zero_if_finite(p);
  store(gradients.coords, 2 * n, d.mu_x + bad);
  store(gradients.coords, 2 * n + 1, d.mu_y + bad);
  store(gradients.scale, 2 * n, d.s1 + bad);
  store(gradients.scale, 2 * n + 1, d.s2 + bad);
  store(gradients.rotation, n, d.theta + bad);
}

// Adds the sums of a Gaussian's shares for C channels: writes the gradients of the amplitudes, adds to the moments.
template <int C, class Output>
__device__ __forceinline__ void add_shares(const Sums<C>* shares, int count, float amplitude, float bad, int channels_left,
                                           const Output& amplitudes, float (&moments)[MOMENTS]) {
  Sums<C> all = {};
#pragma unroll 1
  for (int share = 0; share < count; ++share) {
    for (int k = 0; k < MOMENTS; ++k) all.moments[k] += shares[share].moments[k];
    for (int c = 0; c < C; ++c) all.amplitudes[c] += shares[share].amplitudes[c];
  }
  const float scale = C == 1 ? amplitude : 1.0f;
  for (int k = 0; k < MOMENTS; ++k) moments[k] = fmaf(scale, all.moments[k], moments[k]);
  for (int c = 0; c < C; ++c)
    if (c < channels_left) store(amplitudes, c, all.amplitudes[c] + bad);
}

// Gaussians are counted through all frames. 2^share_bits warps share each Gaussian.
template <int C, bool ANALYTIC, class Input, class Output>
__global__ void __launch_bounds__(THREADS, C < 3 ? 3 : C <= 8 ? 2 : 1)  // 80 registers each, 128, or 255
    backward_kernel(const ProblemOf<Input> problem, const float* __restrict__ grad_image,
                    const InputGradientsOf<Output> gradients, int per_block, int share_bits) {
  __shared__ Entry<C> entries[MOST_PER_BLOCK];
  __shared__ Sums<C> sums[MOST_PER_BLOCK];  // per Gaussian and share
  __shared__ float moments[MOST_PER_BLOCK][MOMENTS];
  const Geometry& geometry = problem.geometry;
  const int64_t plane = static_cast<int64_t>(geometry.height) * geometry.width;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * per_block, n = first + threadIdx.x;
  const int64_t left = problem.frames * problem.gaussians - first;
  const int count = left < per_block ? static_cast<int>(left) : per_block, t = threadIdx.x;

  if (t < count) {
    prepare_entry<C, ANALYTIC>(read_parameters(problem, n), geometry, entries[t]);
    entries[t].plane = n / problem.gaussians * problem.channels * plane;
    for (int k = 0; k < MOMENTS; ++k) moments[t][k] = 0.0f;
  }
  for (int64_t channel = 0; channel < problem.channels; channel += C) {
    const int channels_left = problem.channels - channel < C ? static_cast<int>(problem.channels - channel) : C;
    const int64_t index = n * problem.channels + channel;
    if (t < count)
      for (int c = 0; c < C; ++c) entries[t].amplitudes[c] = c < channels_left ? load(problem.amplitudes, index + c) : 0.0f;
    __syncthreads();
    for (int item = t / 32; item < count << share_bits; item += WARPS) {
      const int share = item & ((1 << share_bits) - 1);
      const Entry<C> entry = entries[item >> share_bits];
      const Image image = {grad_image + entry.plane, plane, geometry.height, geometry.width, channels_left};
      const Sums<C> found = walk<C, ANALYTIC>(entry, image, share, share_bits);
      if (t % 32 == 0) sums[item] = found;
    }
    __syncthreads();
    if (t < count) {
      add_shares(&sums[t << share_bits], 1 << share_bits, entries[t].amplitudes[0],
                 zero_if_finite(read_parameters(problem, n)), channels_left, from(gradients.amplitudes, index), moments[t]);
      entries[t].plane += C * plane;
    }
  }
  if (t < count) write_gradients<ANALYTIC>(moments[t], read_parameters(problem, n), geometry, n, gradients);
}

template <class Input, class Output>
int gather(const ProblemOf<Input>& problem, const float* grad_image, const InputGradientsOf<Output>& gradients, void* stream) {
  const int64_t total = problem.frames * problem.gaussians;
  if (total == 0) return cudaSuccess;
  // 1024 blocks fill the GPU; beyond that, preparing more Gaussians per block is faster.
  const int64_t eights = total / (8 * 1024);
  const int share_bits = eights > 0 ? 0 : SHARE_BITS;
  const int per_block = eights == 0 ? WARPS >> SHARE_BITS : eights < 8 ? static_cast<int>(8 * eights) : MOST_PER_BLOCK;
  return with_up_to_16_channels(problem.channels, [&](auto constant) {
    constexpr int C = decltype(constant)::value;
    const auto kernel = problem.geometry.analytic ? backward_kernel<C, true, Input, Output>
                                                  : backward_kernel<C, false, Input, Output>;
    return launch(kernel, (total + per_block - 1) / per_block, 1, stream, problem, grad_image, gradients, per_block,
                  share_bits);
  });
}

}  // namespace

int backward(const Problem& problem, const float* grad_image, const InputGradients& gradients, void* stream) {
  return gather(problem, grad_image, gradients, stream);
}

int backward(const ProblemOf<Numbers>& problem, const float* grad_image, const InputGradientsOf<Results>& gradients,
             void* stream) {
  return gather(problem, grad_image, gradients, stream);
}

}  // namespace predgsplat::cuda
