// `compose_on_cpu forward|backward`: one call of compose's CUDA kernels, with its arrays on standard input and output.
#include <cstring>

#include "arrays.h"
#include "cuda_common.cuh"

using namespace predgsplat;

struct Header {
  int64_t frames, gaussians, channels, height, width, seed;
  int64_t most;  // floats of scratch memory
};

int main(int, char** arguments) {
  const bool backward = strcmp(arguments[1], "backward") == 0;
  Header h;
  if (fread(&h, sizeof(h), 1, stdin) != 1) return 2;
  cuda_on_cpu::device.seed = h.seed;
  const int64_t n = h.frames * h.gaussians, pixels = h.frames * h.height * h.width;
  Array centre(2 * n), conic(3 * n), opacity(n), features(n * h.channels);
  Array state(2 * pixels), image((h.channels + 1) * pixels);
  for (Array* array : {&centre, &conic, &opacity, &features}) array->read();
  const Composition problem = {h.frames,
                               h.gaussians,
                               h.channels,
                               static_cast<int>(h.height),
                               static_cast<int>(h.width),
                               centre.x.data(),
                               conic.x.data(),
                               opacity.x.data(),
                               features.x.data()};
  if (!backward) {
    if (cuda::compose(problem, image.x.data(), state.x.data(), nullptr) != cudaSuccess) return 1;
    image.write();
    state.write();
    return 0;
  }
  state.read();
  image.read();
  Array d_centre(2 * n), d_conic(3 * n), d_opacity(n), d_features(n * h.channels);
  Array scratch(cuda::compose_scratch(problem, h.most));
  const CompositionGradients gradients = {d_centre.x.data(), d_conic.x.data(), d_opacity.x.data(), d_features.x.data()};
  const int64_t floats = static_cast<int64_t>(scratch.x.size());
  if (cuda::compose_backward(problem, state.x.data(), image.x.data(), gradients, scratch.x.data(), floats, nullptr) !=
      cudaSuccess)
    return 1;
  for (const Array* array : {&d_centre, &d_conic, &d_opacity, &d_features}) array->write();
  return 0;
}
