// `cuda_on_cpu forward|backward`: one call of the CUDA kernels, with its arrays on standard input and output. `plan` prints
// how the forward pass would divide its work; `convert` writes floats in another type and reads them again.
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
  int64_t types[5];  // of the four inputs, which their gradients have too, and of the image; -1: the kernels for floats
  int64_t offset;    // of typed arrays: numbers from the begin of their memory
};

// Like Array, of a type that is named.
struct TypedArray {
  Type type;
  size_t begin;
  std::vector<unsigned char> bytes;

  TypedArray(const Header& h, int number, int64_t size) : type(static_cast<Type>(h.types[number])) {
    const size_t width = type == Type::FLOAT32 ? 4 : 2;
    begin = h.offset * width;
    bytes.resize(begin + size * width, 0xff);  // NaN in every type
  }
  TypedArray& read() {
    const size_t size = bytes.size() - begin;
    if (size && fread(bytes.data() + begin, 1, size, stdin) != size) exit(2);
    return *this;
  }
  void write() const {
    if (bytes.size() > begin) fwrite(bytes.data() + begin, 1, bytes.size() - begin, stdout);
  }
  operator Numbers() const { return {bytes.data() + begin, type}; }
  operator Results() { return {bytes.data() + begin, type}; }
};

int convert(const Header& h) {
  Array floats(h.gaussians);
  floats.read();
  TypedArray typed(h, 0, h.gaussians);
  for (int64_t i = 0; i < h.gaussians; ++i) store(Results(typed), i, floats.x[i]);
  typed.write();
  for (int64_t i = 0; i < h.gaussians; ++i) floats.x[i] = load(Numbers(typed), i);
  floats.write();
  return 0;
}

// One call of the kernels that read and write other types.
int run_typed(const Header& h, const Dimensions& dimensions, const cuda::ForwardPlan& plan, bool backward) {
  const int64_t n = h.frames * h.gaussians, sizes[] = {2 * n, 2 * n, n, n * h.channels};
  const int64_t pixels = h.frames * h.channels * h.height * h.width;
  std::vector<TypedArray> inputs, gradients;
  for (int k = 0; k < 4; ++k) inputs.push_back(TypedArray(h, k, sizes[k]).read()), gradients.emplace_back(h, k, sizes[k]);
  const ProblemOf<Numbers> problem = {dimensions, inputs[0], inputs[1], inputs[2], inputs[3]};
  if (backward) {
    Array grad(pixels);
    grad.read();
    const InputGradientsOf<Results> results = {gradients[0], gradients[1], gradients[2], gradients[3]};
    if (cuda::backward(problem, grad.x.data(), results, nullptr) != cudaSuccess) return 1;
    for (const TypedArray& gradient : gradients) gradient.write();
    return 0;
  }
  Array scratch(cuda::forward_scratch(dimensions, plan));
  TypedArray image(h, 4, pixels);
  if (cuda::forward(problem, plan, Results(image), scratch.x.data(), nullptr) != cudaSuccess) return 1;
  image.write();
  return 0;
}

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
  const Dimensions dimensions = {h.frames, h.gaussians, h.channels, geometry};
  const cuda::ForwardPlan rule = cuda::forward_plan(dimensions);
  const cuda::ForwardPlan plan = {h.tile > 0 ? static_cast<int>(h.tile) : rule.tile,
                                  h.once >= 0 ? h.once == 1 : rule.prepares_once};
  if (strcmp(arguments[1], "convert") == 0) return convert(h);
  if (strcmp(arguments[1], "plan") == 0) return printf("%d %d\n", rule.tile, rule.prepares_once) < 0;
  if (h.types[0] >= 0) return run_typed(h, dimensions, plan, backward);
  const int64_t n = h.frames * h.gaussians;
  Array coords(2 * n), scale(2 * n), rotation(n), amplitudes(n * h.channels);
  Array image(h.frames * h.channels * h.height * h.width);
  for (Array* array : {&coords, &scale, &rotation, &amplitudes}) array->read();
  const Problem problem = {dimensions, coords.x.data(), scale.x.data(), rotation.x.data(), amplitudes.x.data()};
  if (!backward) {
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
