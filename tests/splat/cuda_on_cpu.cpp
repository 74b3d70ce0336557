// Renders one problem with the CUDA kernels on a CPU: numbers come in on standard input and go out on standard output.
#include <cstdio>

#include "cuda_common.cuh"

using namespace predgsplat;

struct Header {
  int64_t frames, gaussians, channels, height, width, analytic, seed;
  double kernel_size;
};

// Of exactly the size that is asked for, so that the address sanitizer sees what lies beyond.
struct Array {
  std::vector<float> x;

  explicit Array(int64_t size) : x(size, NAN) {}
  Array& read() {
    if (fread(x.data(), sizeof(float), x.size(), stdin) != x.size()) exit(2);
    return *this;
  }
  void write() const { fwrite(x.data(), sizeof(float), x.size(), stdout); }
};

int main() {
  Header h;
  if (fread(&h, sizeof(h), 1, stdin) != 1) return 2;
  cuda_on_cpu::device.seed = h.seed;
  const int64_t n = h.frames * h.gaussians;
  Array coords(2 * n), scale(2 * n), rotation(n), amplitudes(n * h.channels);
  Array grad_image(h.frames * h.channels * h.height * h.width), image(grad_image.x.size());
  for (Array* array : {&coords, &scale, &rotation, &amplitudes, &grad_image}) array->read();
  const Problem problem = {h.frames,
                           h.gaussians,
                           h.channels,
                           make_geometry(h.height, h.width, h.kernel_size, h.analytic),
                           coords.x.data(),
                           scale.x.data(),
                           rotation.x.data(),
                           amplitudes.x.data()};
  if (cuda::forward(problem, image.x.data(), nullptr) != cudaSuccess) return 1;
  Array d_coords(2 * n), d_scale(2 * n), d_rotation(n), d_amplitudes(n * h.channels);
  const InputGradients gradients = {d_coords.x.data(), d_scale.x.data(), d_rotation.x.data(), d_amplitudes.x.data()};
  if (cuda::backward(problem, grad_image.x.data(), gradients, nullptr) != cudaSuccess) return 1;
  for (const Array* array : {&image, &d_coords, &d_scale, &d_rotation, &d_amplitudes}) array->write();
  return 0;
}
