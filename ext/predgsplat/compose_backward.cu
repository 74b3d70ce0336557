// The gradients of the composited image on a GPU, without atomics.
//
//  1. A tile takes its listed Gaussians back to front; dividing by 1 - α restores the transmittance before each of them.
//     Warps add over their pixels by shuffles, a thread adds the warps' sums, in a fixed order, and writes them to scratch
//     memory: [frames, tiles, N, COMPOSE_MOMENTS + C], of which only what a Gaussian reaches is written.
//  2. A thread per Gaussian adds the sums of the tiles that it reaches and turns them into gradients.
//
// Both run part by part, for as many frames, or of one frame as many Gaussians, as the scratch memory holds; in the second
// case the pixels' transmittance and sums are carried from part to part.
#include <algorithm>
#include <type_traits>

#include "compose.cuh"

namespace predgsplat::cuda {
namespace {

constexpr int GROUP = 32;  // Gaussians between two additions over the warps

// What is computed at once: Gaussians of frames from `frame` on.
struct Part {
  int64_t frame, frames;
  int64_t first, last;
  int tiles_x, tiles;
};

// Where the sums of a tile's Gaussian are.
__device__ __forceinline__ int64_t sums_at(const Composition& problem, const Part& part, int64_t frame, int64_t tile,
                                           int64_t number) {
  const int64_t slot = (frame * part.tiles + tile) * (part.last - part.first) + number - part.first;
  return slot * (COMPOSE_MOMENTS + problem.channels);
}

// The gradient of the image at the pixel of a thread: of C channels from `channel` on, and of the weight.
template <int C>
struct PixelGradient {
  const float* at;
  int64_t plane;
  float channels[C], weight;

  __device__ __forceinline__ PixelGradient(const Composition& problem, const float* grad_image, const Place& place,
                                           int64_t channel)
      : at(grad_image + place.frame * (problem.channels + 1) * static_cast<int64_t>(problem.height) * problem.width +
           place.pixel),
        plane(static_cast<int64_t>(problem.height) * problem.width) {
    for (int c = 0; c < C; ++c)
      channels[c] = place.inside && channel + c < problem.channels ? at[(channel + c) * plane] : 0.0f;
    weight = place.inside ? at[problem.channels * plane] : 0.0f;
  }

  // dL/dw of a Gaussian, where the C channels are the first ones.
  __device__ __forceinline__ float by(const Composition& problem, const Place& place, const Entry<C>& entry) const {
    float sum = weight;
    for (int c = 0; c < C; ++c) sum = fmaf(entry.features[c], channels[c], sum);
    if (problem.channels > C && place.inside) {
      const float* features = problem.features + (place.frame * problem.gaussians + entry.number) * problem.channels;
      for (int64_t c = C; c < problem.channels; ++c) sum = fmaf(features[c], at[c * plane], sum);
    }
    return sum;
  }
};

// Between two Gaussians of a pixel, back to front.
struct Pixel {
  float passed, behind;  // behind: Σ of w dL/dw over the Gaussians behind
  int taken;             // 0 outside the frame, where `passed` is 1
};

// One Gaussian at one pixel. values: what is summed over pixels, the moments and w times the channels' gradients.
template <int C>
__device__ __forceinline__ void step_back(const Composition& problem, const Place& place, const Entry<C>& entry,
                                          float alpha, const PixelGradient<C>& grad, bool moments, Pixel& pixel,
                                          float (&values)[COMPOSE_MOMENTS + C]) {
  const float limited = fminf(alpha, MAX_ALPHA), inverse = 1.0f / (1.0f - limited);
  const float before = pixel.passed * inverse, weight = limited * before;
  pixel.passed = before;
  for (int c = 0; c < C; ++c) values[COMPOSE_MOMENTS + c] = weight * grad.channels[c];
  if (!moments) return;
  const float grad_weight = grad.by(problem, place, entry);
  const float v = alpha > MAX_ALPHA ? 0.0f : alpha * fmaf(grad_weight, before, -pixel.behind * inverse);
  pixel.behind = fmaf(grad_weight, weight, pixel.behind);
  const float dx = static_cast<float>(place.j) - entry.x, dy = static_cast<float>(place.i) - entry.y;
  values[0] = v;
  values[1] = v * dx;
  values[2] = v * dy;
  values[3] = v * dx * dx;
  values[4] = v * dx * dy;
  values[5] = v * dy * dy;
}

// blockIdx.y counts blocks of C channels; the first of them sums the moments as well. carry: [frames, blocks of channels,
// 2, H, W], or nullptr where a part has all Gaussians of its frames.
template <int C>
__global__ void __launch_bounds__(THREADS, 2)  // 128 registers each
    compose_backward_kernel(const Composition problem, const float* __restrict__ state,
                            const float* __restrict__ grad_image, const Part part, float* sums, float* carry) {
  constexpr int VALUES = COMPOSE_MOMENTS + C;
  __shared__ Listing<C> listing;
  __shared__ float by_warp[GROUP][WARPS][VALUES];
  Place place(problem, part.tiles_x, part.tiles);
  const int64_t frame = place.frame, plane = static_cast<int64_t>(problem.height) * problem.width;
  place.frame += part.frame;
  const int64_t channel = static_cast<int64_t>(blockIdx.y) * C;
  const bool moments = blockIdx.y == 0;
  const float i = static_cast<float>(place.i), j = static_cast<float>(place.j);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const PixelGradient<C> grad(problem, grad_image, place, channel);
  float* const carried = carry ? carry + (frame * channel_blocks(problem) + blockIdx.y) * 2 * plane + place.pixel : nullptr;

  Pixel pixel = {1.0f, 0.0f, 0};
  if (place.inside) {
    const float* const kept = state + 2 * place.frame * plane + place.pixel;
    const bool begin = part.last == problem.gaussians;
    pixel = {begin ? kept[0] : carried[0], begin ? 0.0f : carried[plane], static_cast<int>(kept[plane])};
  }
  float bad = 0.0f;
  for (int64_t chunks = (part.last - part.first + THREADS - 1) / THREADS; chunks > 0; --chunks) {
    const int64_t first = part.first + (chunks - 1) * THREADS;
    const int entries = list<C>(problem, place, first, part.last, channel, listing, bad);
    for (int end = entries; end > 0; end -= GROUP) {
      const int group = min(GROUP, end);
      for (int k = 0; k < group; ++k) {
        const Entry<C>& entry = listing.entries[end - 1 - k];
        float values[VALUES] = {};
        const float alpha = entry.number < pixel.taken ? entry.alpha(i, j) : 0.0f;
        const bool any = __ballot_sync(ALL_LANES, alpha > 0.0f) != 0;
        if (any) {
          step_back<C>(problem, place, entry, alpha, grad, moments, pixel, values);
#pragma unroll
          for (float& x : values) x = sum_over_warp(x);
        }
        if (lane == 0)
          for (int v = 0; v < VALUES; ++v) by_warp[k][warp][v] = values[v];
      }
      __syncthreads();
      for (int item = threadIdx.x; item < group * VALUES; item += THREADS) {
        const int k = item / VALUES, v = item % VALUES;
        const int64_t index = v < COMPOSE_MOMENTS ? v : v + channel;
        if (!moments && v < COMPOSE_MOMENTS) continue;
        if (v >= COMPOSE_MOMENTS && index >= COMPOSE_MOMENTS + problem.channels) continue;
        float total = 0.0f;
        for (int w = 0; w < WARPS; ++w) total += by_warp[k][w][v];
        sums[sums_at(problem, part, frame, place.tile, listing.entries[end - 1 - k].number) + index] = total;
      }
      __syncthreads();
    }
  }
  if (carried && place.inside) {
    carried[0] = pixel.passed;
    carried[plane] = pixel.behind;
  }
}

// One thread per Gaussian of the part; blockIdx.y counts frames.
__global__ void __launch_bounds__(THREADS)
    compose_reduce_backward_kernel(const Composition problem, const Part part, const float* __restrict__ sums,
                                   const CompositionGradients gradients) {
  const int64_t number = part.first + static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (number >= part.last) return;
  const int64_t n = (part.frame + blockIdx.y) * problem.gaussians + number;
  const Splat g(problem, n);
  const Tiles tiles(problem, g, footprint(g.a, g.b, g.c, g.opacity));
  const float bad = g.zero_if_finite();
  const auto total = [&](int64_t index) {
    float sum = 0.0f;
    for (int row = tiles.rows.first; row <= tiles.rows.last; ++row)
      for (int column = tiles.columns.first; column <= tiles.columns.last; ++column)
        sum += sums[sums_at(problem, part, blockIdx.y, row * part.tiles_x + column, number) + index];
    return sum;
  };
  float moments[COMPOSE_MOMENTS];
  for (int k = 0; k < COMPOSE_MOMENTS; ++k) moments[k] = total(k);
  const ComposeGradients d = compose_adjoint(moments, g.a, g.b, g.c, g.opacity);
  gradients.centre[2 * n] = d.x + bad;
  gradients.centre[2 * n + 1] = d.y + bad;
  gradients.conic[3 * n] = d.a + bad;
  gradients.conic[3 * n + 1] = d.b + bad;
  gradients.conic[3 * n + 2] = d.c + bad;
  gradients.opacity[n] = d.opacity + bad;
  for (int64_t c = 0; c < problem.channels; ++c)
    gradients.features[n * problem.channels + c] = total(COMPOSE_MOMENTS + c) + bad;
}

// How the work is divided: frames per part, or Gaussians of a single frame.
struct Plan {
  int64_t frames, gaussians;
  int64_t carry;  // floats
  int64_t sums;   // floats

  Plan(const Composition& problem, int64_t floats) {
    const int64_t per_gaussian = tiles_of(problem).all * (COMPOSE_MOMENTS + problem.channels);
    const int64_t per_frame = per_gaussian * problem.gaussians;
    frames = std::min({floats / per_frame, problem.frames, MAX_BLOCKS_Y});
    gaussians = problem.gaussians;
    carry = 0;
    if (frames == 0) {
      frames = 1;
      carry = channel_blocks(problem) * 2 * problem.height * problem.width;
      gaussians = std::min(std::max<int64_t>((floats - carry) / per_gaussian / THREADS, 1) * THREADS, gaussians);
    }
    sums = frames * gaussians * per_gaussian;
  }
};

bool nothing(const Composition& problem) { return problem.frames == 0 || problem.gaussians == 0; }

// Launches both kernels for a part.
int launch_part(const Composition& problem, const float* state, const float* grad_image,
                const CompositionGradients& gradients, const Part& part, float* sums, float* carry, void* stream) {
  const int error = with_channels(problem.channels, [&](auto constant) {
    constexpr int C = decltype(constant)::value;
    return launch(compose_backward_kernel<C>, part.frames * part.tiles, channel_blocks(problem), stream, problem, state,
                  grad_image, part, sums, carry);
  });
  if (error) return error;
  const int64_t blocks = (part.last - part.first + THREADS - 1) / THREADS;
  return launch(compose_reduce_backward_kernel, blocks, part.frames, stream, problem, part, sums, gradients);
}

}  // namespace

int64_t compose_scratch(const Composition& problem, int64_t most) {
  if (nothing(problem)) return 0;
  const Plan plan(problem, most);
  return plan.carry + plan.sums;
}

int compose_backward(const Composition& problem, const float* state, const float* grad_image,
                     const CompositionGradients& gradients, float* scratch, int64_t scratch_floats, void* stream) {
  if (nothing(problem)) return cudaSuccess;
  const Plan plan(problem, scratch_floats);
  const TileCount tiles = tiles_of(problem);
  if (tiles.all > MAX_BLOCKS_X) return cudaErrorInvalidConfiguration;
  for (int64_t frame = 0; frame < problem.frames; frame += plan.frames)
    for (int64_t last = problem.gaussians; last > 0; last -= plan.gaussians) {
      const Part part = {frame,
                         std::min(plan.frames, problem.frames - frame),
                         std::max<int64_t>(last - plan.gaussians, 0),
                         last,
                         static_cast<int>(tiles.x),
                         static_cast<int>(tiles.all)};
      const int error = launch_part(problem, state, grad_image, gradients, part, scratch + plan.carry,
                                    plan.carry ? scratch : nullptr, stream);
      if (error) return error;
    }
  return cudaSuccess;
}

}  // namespace predgsplat::cuda
