// The composited image on a GPU: the threads of a tile take its listed Gaussians front to back.
#include <type_traits>

#include "compose.cuh"

namespace predgsplat::cuda {
namespace {

// blockIdx.y counts blocks of C channels; the first of them writes the weight and the state as well.
template <int C>
__global__ void __launch_bounds__(THREADS)
    compose_forward_kernel(const Composition problem, float* image, float* state, int tiles_x, int tiles) {
  __shared__ Listing<C> listing;
  const Place place(problem, tiles_x, tiles);
  const int64_t channel = static_cast<int64_t>(blockIdx.y) * C;
  const float i = static_cast<float>(place.i), j = static_cast<float>(place.j);
  const int all = static_cast<int>(problem.gaussians);

  float sums[C] = {}, total = 0.0f, passed = 1.0f, bad = 0.0f;
  int taken = all;
  for (int64_t first = 0; first < problem.gaussians; first += THREADS) {
    const int entries = list<C>(problem, place, first, problem.gaussians, channel, listing, bad);
    for (int k = 0; k < entries; ++k) {
      const Entry<C>& entry = listing.entries[k];
      const float alpha = passed < OPAQUE ? 0.0f : fminf(entry.alpha(i, j), MAX_ALPHA);
      const float weight = alpha * passed;
      for (int c = 0; c < C; ++c) sums[c] = fmaf(entry.features[c], weight, sums[c]);
      total += weight;
      passed *= 1.0f - alpha;
      if (passed < OPAQUE && taken == all) taken = entry.number + 1;
    }
  }
  int lost;  // threads that have read a Gaussian that is not finite, which makes the frame NaN
  place_in_order(isnan(bad), listing.kept, lost);
  if (!place.inside) return;
  const float mark = lost ? NAN : 0.0f;
  const int64_t plane = static_cast<int64_t>(problem.height) * problem.width, planes = problem.channels + 1;
  float* const pixel = image + place.frame * planes * plane + place.pixel;
  for (int c = 0; c < C && channel + c < problem.channels; ++c) pixel[(channel + c) * plane] = sums[c] + mark;
  if (blockIdx.y > 0) return;
  pixel[problem.channels * plane] = total + mark;
  state[2 * place.frame * plane + place.pixel] = passed;
  state[(2 * place.frame + 1) * plane + place.pixel] = static_cast<float>(taken);
}

}  // namespace

int compose(const Composition& problem, float* image, float* state, void* stream) {
  const TileCount tiles = tiles_of(problem);
  if (problem.frames == 0) return cudaSuccess;
  if (tiles.all > MAX_BLOCKS_X) return static_cast<int>(cudaErrorInvalidConfiguration);
  return with_channels(problem.channels, [&](auto constant) {
    constexpr int C = decltype(constant)::value;
    return launch(compose_forward_kernel<C>, problem.frames * tiles.all, channel_blocks(problem), stream, problem, image,
                  state, static_cast<int>(tiles.x), static_cast<int>(tiles.all));
  });
}

}  // namespace predgsplat::cuda
