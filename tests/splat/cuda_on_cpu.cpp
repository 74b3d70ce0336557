// `cuda_on_cpu forward|backward`: one call of the CUDA kernels, with its arrays on standard input and output.
#include "arrays.h"
#include "cuda_common.cuh"

using namespace predgsplat;

struct Header {
  int64_t frames, gaussians, channels, height, width, analytic, seed;
  double kernel_size;
};

int main(int, char** arguments) {
  const bool backward = strcmp(arguments[1], "backward") == 0;
  Header h;
  if (fread(&h, sizeof(h), 1, stdin) != 1) return 2;
  cuda_on_cpu::device.seed = h.seed;
  const int64_t n = h.frames * h.gaussians;
  Array coords(2 * n), scale(2 * n), rotation(n), amplitudes(n * h.channels);
  Array image(h.frames * h.channels * h.height * h.width);
  for (Array* array : {&coords, &scale, &rotation, &amplitudes}) array->read();
  const Problem problem = {h.frames,
                           h.gaussians,
                           h.channels,
                           make_geometry(h.height, h.width, h.kernel_size, h.analytic),
                           coords.x.data(),
                           scale.x.data(),
                           rotation.x.data(),
                           amplitudes.x.data()};
  if (!backward) {
    if (cuda::forward(problem, image.x.data(), nullptr) != cudaSuccess) return 1;
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
