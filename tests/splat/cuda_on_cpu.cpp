// `cuda_on_cpu forward|backward`: one call of the CUDA kernels, with its arrays on standard input and output. `plan` prints
// how the forward pass would divide its work.
#include <sanitizer/asan_interface.h>

#include "arrays.h"
#include "cuda_prepared.cuh"

using namespace predgsplat;

struct Header {
  int64_t frames, gaussians, channels, height, width, analytic, seed;
  double kernel_size;
  int64_t once;    // whether Gaussians are prepared once; -1: as the plan says
  int64_t tile;    // pixels along either axis; -1: as the plan says
  int64_t unread;  // a chunk of the first frame that no tile may read once it is prepared; -1: none
};

// From the second launch on, which draws, the sanitizer ends the program at a read of these Gaussians.
void forbid_chunk(float* scratch, int64_t chunk) {
  cuda_on_cpu::device.before_launch = [=, launches = 0]() mutable {
    auto* const first = reinterpret_cast<cuda::Prepared*>(scratch) + chunk * cuda::CHUNK;
    if (launches++ == 1) ASAN_POISON_MEMORY_REGION(first, cuda::CHUNK * sizeof(*first));
  };
}

int main(int, char** arguments) {
  const bool backward = strcmp(arguments[1], "backward") == 0;
  Header h;
  if (fread(&h, sizeof(h), 1, stdin) != 1) return 2;
  cuda_on_cpu::device.seed = h.seed;
  const Geometry geometry = make_geometry(h.height, h.width, h.kernel_size, h.analytic);
  const cuda::ForwardPlan rule = cuda::forward_plan({h.frames, h.gaussians, h.channels, geometry, {}, {}, {}, {}});
  if (strcmp(arguments[1], "plan") == 0) return printf("%d %d\n", rule.tile, rule.prepares_once) < 0;
  const int64_t n = h.frames * h.gaussians;
  Array coords(2 * n), scale(2 * n), rotation(n), amplitudes(n * h.channels);
  Array image(h.frames * h.channels * h.height * h.width);
  for (Array* array : {&coords, &scale, &rotation, &amplitudes}) array->read();
  const Problem problem = {h.frames,
                           h.gaussians,
                           h.channels,
                           geometry,
                           coords.x.data(),
                           scale.x.data(),
                           rotation.x.data(),
                           amplitudes.x.data()};
  if (!backward) {
    const cuda::ForwardPlan plan = {h.tile > 0 ? static_cast<int>(h.tile) : rule.tile,
                                    h.once >= 0 ? h.once == 1 : rule.prepares_once};
    Array scratch(cuda::forward_scratch(problem, plan));
    if (h.unread >= 0) forbid_chunk(scratch.x.data(), h.unread);
    if (cuda::forward(problem, plan, image.x.data(), scratch.x.data(), nullptr) != cudaSuccess) return 1;
    image.write();
    return 0;
  }
  image.read();
  Array d_coords(2 * n), d_scale(2 * n), d_rotation(n), d_amplitudes(n * h.channels);
  const InputGradients gradients = {d_coords.x.data(), d_scale.x.data(), d_rotation.x.data(), d_amplitudes.x.data()};
  if (cuda::backward(problem, image.x.data(), gradients, nullptr) != cudaSuccess) return 1;
  for (const Array* array : {&d_coords, &d_scale, &d_rotation, &d_amplitudes}) array->write();
  return 0;
}
