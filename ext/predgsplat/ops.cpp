// Registers the kernels with torch through its stable ABI: compiles in a second, and one build serves torch 2.10 and
// later. torch sees only the schema; pdr_cli/splat/native.py adds the autograd formula and the shapes.
//
// Compiled twice: for the CPU library, with the schema and the CPU kernels, and with PREDGSPLAT_CUDA for a library that
// adds the CUDA kernels.
#define TORCH_TARGET_VERSION (((0ULL + 2) << 56) | ((0ULL + 10) << 48))

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "tensors.h"

#ifdef PREDGSPLAT_CUDA
#include <torch/csrc/stable/accelerator.h>
#endif

namespace predgsplat {

#ifndef PREDGSPLAT_CUDA

void parallel(int64_t tasks, void (*body)(int64_t, void*), void* context) {
  torch::stable::parallel_for(0, tasks, 1, [=](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) body(task, context);
  });
}

int threads() { return static_cast<int>(torch::stable::get_num_threads()); }

extern "C" __attribute__((visibility("default"))) const CpuKernels predgsplat_kernels = {cpu::forward, cpu::backward};

#endif

namespace {

// The four inputs of `compose`, contiguous, and the Composition that the kernels solve. centre: [..., N, 2].
struct ComposeInputs {
  Tensor centre, conic, opacity, features;
  Composition problem;

  ComposeInputs(const Tensor& centre_, const Tensor& conic_, const Tensor& opacity_, const Tensor& features_,
                int64_t height, int64_t width)
      : centre(as_float(centre_)), conic(as_float(conic_)), opacity(as_float(opacity_)), features(as_float(features_)) {
    const int64_t dims = features.dim();
    STD_TORCH_CHECK(dims >= 2 && centre.dim() == dims && conic.dim() == dims && opacity.dim() == dims - 1,
                    "predgsplat: expected centre [..., N, 2], conic [..., N, 3], opacity [..., N], features [..., N, C]");
    for (const Tensor* x : {&conic, &opacity, &features})
      STD_TORCH_CHECK(x->get_device_index() == centre.get_device_index(),
                      "predgsplat: expected centre, conic, opacity and features on one device");
    int64_t frames = 1;
    for (int64_t i = 0; i < dims - 2; ++i) frames *= features.size(i);
    const int64_t gaussians = features.size(dims - 2), total = frames * gaussians;
    STD_TORCH_CHECK(centre.numel() == 2 * total && conic.numel() == 3 * total && opacity.numel() == total,
                    "predgsplat: centre, conic, opacity and features differ in their number of Gaussians");
    STD_TORCH_CHECK(gaussians < MOST_GAUSSIANS, "predgsplat: expected fewer than 2^24 Gaussians per frame");
    STD_TORCH_CHECK(height >= 1 && width >= 1 && height <= 1 << 20 && width <= 1 << 20,
                    "predgsplat: expected a frame of 1 to 2^20 pixels on each side");
    problem = {frames,
               gaussians,
               features.size(dims - 1),
               static_cast<int>(height),
               static_cast<int>(width),
               pointer(centre),
               pointer(conic),
               pointer(opacity),
               pointer(features)};
  }

  // Planes of the frame, for the leading dimensions of the inputs.
  Tensor empty_planes(int64_t planes) const {
    const auto sizes = features.sizes();
    std::vector<int64_t> shape(sizes.begin(), sizes.end() - 2);
    shape.insert(shape.end(), {planes, problem.height, problem.width});
    return new_empty(features, shape.data(), static_cast<int64_t>(shape.size()));
  }
};

using Two = std::tuple<Tensor, Tensor>;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Four empty_gradients(const ComposeInputs& inputs) {
  return {empty_beside(inputs.centre), empty_beside(inputs.conic), empty_beside(inputs.opacity),
          empty_beside(inputs.features)};
}

CompositionGradients composition_pointers(Four& four) {
  return {output(std::get<0>(four)), output(std::get<1>(four)), output(std::get<2>(four)), output(std::get<3>(four))};
}

Four empty_gradients(const Inputs& inputs) {
  return {empty_beside(inputs.coords), empty_beside(inputs.scale), empty_beside(inputs.rotation),
          empty_beside(inputs.amplitudes)};
}

InputGradients pointers(Four& four) {
  return {output(std::get<0>(four)), output(std::get<1>(four)), output(std::get<2>(four)), output(std::get<3>(four))};
}

// The type of the image: float32, unless another one is asked for.
Type image_type(const std::optional<ScalarType>& dtype) { return dtype ? type_of(*dtype) : Type::FLOAT32; }

#ifndef PREDGSPLAT_CUDA

Tensor render_cpu(const Tensor& coords, const Tensor& scale, const Tensor& rotation, const Tensor& amplitudes,
                  int64_t height, int64_t width, double kernel_size, bool analytic, std::optional<ScalarType> dtype) {
  STD_TORCH_CHECK(image_type(dtype) == Type::FLOAT32, "predgsplat: renders in float32 on a CPU");
  const Inputs inputs(coords, scale, rotation, amplitudes, height, width, kernel_size, analytic);
  Tensor image = empty_image(inputs, Type::FLOAT32);
  cpu::forward(inputs.problem(), output(image));
  return image;
}

Four render_backward_cpu(const Tensor& grad_image, const Tensor& coords, const Tensor& scale, const Tensor& rotation,
                         const Tensor& amplitudes, double kernel_size, bool analytic) {
  const int64_t dims = grad_image.dim();
  const Inputs inputs(coords, scale, rotation, amplitudes, grad_image.size(dims - 2), grad_image.size(dims - 1),
                      kernel_size, analytic);
  const Tensor grad = as_float(grad_image);  // the gradient of a sum, for instance, is an expanded tensor
  Four gradients = empty_gradients(inputs);
  cpu::backward(inputs.problem(), pointer(grad), pointers(gradients));
  return gradients;
}

Two compose_cpu(const Tensor& centre, const Tensor& conic, const Tensor& opacity, const Tensor& features, int64_t height,
                int64_t width) {
  const ComposeInputs inputs(centre, conic, opacity, features, height, width);
  Two result = {inputs.empty_planes(inputs.problem.channels + 1), inputs.empty_planes(2)};
  cpu::compose(inputs.problem, output(std::get<0>(result)), output(std::get<1>(result)));
  return result;
}

Four compose_backward_cpu(const Tensor& grad_image, const Tensor& state, const Tensor& centre, const Tensor& conic,
                          const Tensor& opacity, const Tensor& features) {
  const int64_t dims = grad_image.dim();
  const ComposeInputs inputs(centre, conic, opacity, features, grad_image.size(dims - 2), grad_image.size(dims - 1));
  const Tensor grad = as_float(grad_image), kept = as_float(state);
  Four gradients = empty_gradients(inputs);
  cpu::compose_backward(inputs.problem, pointer(kept), pointer(grad), composition_pointers(gradients));
  return gradients;
}

// A tensor [B, C, H, W] for the kernels of `depthwise`.
Frames frames(const Tensor& x) {
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(x.dim() == 4 && (type == ScalarType::Float || type == ScalarType::BFloat16),
                  "predgsplat: expected frames [B, C, H, W] in float32 or bfloat16");
  return {x.data_ptr(), type == ScalarType::BFloat16, {x.stride(0), x.stride(1), x.stride(2), x.stride(3)}};
}

Depthwise depthwise_problem(const Tensor& x, int64_t rows, int64_t columns, int64_t padding_rows,
                            int64_t padding_columns, int64_t dilation) {
  STD_TORCH_CHECK(x.dim() == 4, "predgsplat: expected frames [B, C, H, W]");
  STD_TORCH_CHECK(rows >= 1 && columns >= 1 && dilation >= 1, "predgsplat: expected a kernel and a dilation of at least 1");
  const int64_t reach_rows = dilation * (rows - 1), reach_columns = dilation * (columns - 1);
  STD_TORCH_CHECK(padding_rows >= 0 && padding_rows <= reach_rows && padding_columns >= 0 && padding_columns <= reach_columns,
                  "predgsplat: expected a padding from 0 to the reach of the kernel, (size - 1) x dilation");
  const int64_t height = x.size(2) + 2 * padding_rows - reach_rows, width = x.size(3) + 2 * padding_columns - reach_columns;
  STD_TORCH_CHECK(height >= 1 && width >= 1, "predgsplat: the kernel is larger than the padded frame");
  return {x.size(0), x.size(1), x.size(2), x.size(3), rows, columns, padding_rows, padding_columns, dilation, height, width};
}

// For conv2d's result, in channels-last layout.
Tensor empty_channels_last(const Tensor& x, const Depthwise& p) {
  const int64_t shape[] = {p.batch, p.channels, p.out_height, p.out_width};
  const int64_t pixels = p.out_height * p.out_width;
  const int64_t strides[] = {pixels * p.channels, 1, p.out_width * p.channels, p.channels};
  return strided_empty(x, shape, strides, 4, dtype_of(x));
}

Tensor depthwise_cpu(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t padding_rows,
                     int64_t padding_columns, int64_t dilation) {
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(1) == 1 && x.dim() == 4 && weight.size(0) == x.size(1) &&
                      (!bias || (bias->dim() == 1 && bias->size(0) == weight.size(0))),
                  "predgsplat: expected weight [C, 1, rows, columns] and bias [C] for frames [B, C, H, W]");
  const Depthwise problem =
      depthwise_problem(x, weight.size(2), weight.size(3), padding_rows, padding_columns, dilation);
  const Tensor kernel = as_float(weight);
  const std::optional<Tensor> offset = bias ? std::optional(as_float(*bias)) : std::nullopt;
  const Frames in = frames(x);
  Tensor out = empty_channels_last(x, problem);
  cpu::depthwise(problem, in, pointer(kernel), offset ? pointer(*offset) : nullptr, out.data_ptr(),
                 in.bfloat16);
  return out;
}

Two depthwise_weights_cpu(const Tensor& grad, const Tensor& x, const Tensor& weight, int64_t padding_rows,
                          int64_t padding_columns, int64_t dilation) {
  STD_TORCH_CHECK(weight.dim() == 4 && weight.scalar_type() == ScalarType::Float,
                  "predgsplat: expected weight [C, 1, rows, columns] in float32");
  const Depthwise problem =
      depthwise_problem(x, weight.size(2), weight.size(3), padding_rows, padding_columns, dilation);
  const Frames in = frames(x), out = frames(grad);
  STD_TORCH_CHECK(grad.size(0) == problem.batch && grad.size(1) == problem.channels && weight.size(0) == problem.channels &&
                      grad.size(2) == problem.out_height && grad.size(3) == problem.out_width,
                  "predgsplat: expected the gradient of the convolution's output");
  Two result = {empty_beside(weight), new_empty(weight, &problem.channels, 1)};
  cpu::depthwise_weights(problem, out, in, output(std::get<0>(result)), output(std::get<1>(result)));
  return result;
}

std::tuple<Tensor, Tensor, Tensor> similarity_cpu(const Tensor& x, const Tensor& y, const std::optional<Tensor>& weight,
                                                  const Tensor& span, const Tensor& window, bool gradient) {
  STD_TORCH_CHECK(x.dim() == 3 && y.dim() == 3 && span.dim() == 1 && window.dim() == 1 && x.numel() == y.numel() &&
                      (!weight || weight->numel() == x.numel()) && span.size(0) >= 1 && x.size(0) % span.size(0) == 0,
                  "predgsplat: expected frames [planes, H, W], as many weights, and a span of channels that divide the planes");
  STD_TORCH_CHECK(window.size(0) >= 1 && window.size(0) <= x.size(1) && window.size(0) <= x.size(2),
                  "predgsplat: expected a window within the frame");
  const Tensor found = as_float(x), truth = as_float(y), spans = as_float(span), means = as_float(window);
  const std::optional<Tensor> weights = weight ? std::optional(as_float(*weight)) : std::nullopt;
  const Similarity problem = {x.size(0),
                              span.size(0),
                              x.size(1),
                              x.size(2),
                              pointer(found),
                              pointer(truth),
                              weights ? pointer(*weights) : nullptr,
                              pointer(spans),
                              pointer(means),
                              static_cast<int>(window.size(0))};
  const int64_t none[] = {0, problem.height, problem.width};
  std::tuple<Tensor, Tensor, Tensor> result = {new_empty(found, &problem.planes, 1), new_empty(found, &problem.planes, 1),
                                               gradient ? empty_beside(found) : new_empty(found, none, 3)};
  cpu::similarity(problem, output(std::get<0>(result)), output(std::get<1>(result)),
                  gradient ? output(std::get<2>(result)) : nullptr);
  return result;
}

// Frames [B, C, H, W] whose channels lie side by side, without gaps.
bool in_channels_last(const Tensor& x) {
  const int64_t C = x.size(1), H = x.size(2), W = x.size(3);
  return !x.is_contiguous() && x.stride(1) == 1 && x.stride(3) == C && x.stride(2) == W * C && x.stride(0) == H * W * C;
}

// The same numbers in one of the layouts that the kernels of `norm_silu` read.
Tensor dense(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 4 && x.scalar_type() == ScalarType::Float, "predgsplat: expected frames [B, C, H, W] in float32");
  return in_channels_last(x) ? x : as_float(x);
}

Tensor empty_as(const Tensor& x) { return strided_empty(x, x.sizes().data(), x.strides().data(), x.dim(), dtype_of(x)); }

// The numbers of `grad` in the layout of x.
Tensor laid_out_as(const Tensor& x, const Tensor& grad) {
  STD_TORCH_CHECK(grad.scalar_type() == ScalarType::Float && grad.dim() == 4 &&
                      std::equal(x.sizes().begin(), x.sizes().end(), grad.sizes().begin()),
                  "predgsplat: expected the gradient of the output");
  if (std::equal(x.strides().begin(), x.strides().end(), grad.strides().begin())) return grad;
  Tensor result = empty_as(x);
  torch::stable::copy_(result, grad);
  return result;
}

Normalization normalization(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t groups, double eps) {
  STD_TORCH_CHECK(groups >= 1 && x.size(1) % groups == 0, "predgsplat: expected groups that divide the channels");
  STD_TORCH_CHECK(weight.dim() == 1 && bias.dim() == 1 && weight.size(0) == x.size(1) && bias.size(0) == x.size(1),
                  "predgsplat: expected weight and bias [C]");
  return {x.size(0), x.size(1), x.size(2) * x.size(3), groups, in_channels_last(x), eps, pointer(weight), pointer(bias)};
}

std::tuple<Tensor, Tensor, Tensor> norm_silu_cpu(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t groups,
                                                 double eps) {
  const Tensor in = dense(x), scale = as_float(weight), shift = as_float(bias);
  const Normalization problem = normalization(in, scale, shift, groups, eps);
  const int64_t shape[] = {problem.batch, groups};
  std::tuple<Tensor, Tensor, Tensor> result = {empty_as(in), new_empty(in, shape, 2), new_empty(in, shape, 2)};
  cpu::norm_silu(problem, pointer(in), output(std::get<0>(result)), output(std::get<1>(result)),
                 output(std::get<2>(result)));
  return result;
}

std::tuple<Tensor, Tensor, Tensor> norm_silu_backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                                          const Tensor& bias, const Tensor& mean, const Tensor& inverse) {
  const Tensor in = dense(x), scale = as_float(weight), shift = as_float(bias), means = as_float(mean);
  const Tensor inverses = as_float(inverse);
  STD_TORCH_CHECK(means.dim() == 2 && means.size(0) == in.size(0) && inverses.numel() == means.numel(),
                  "predgsplat: expected mean and inverse [B, groups]");
  const Normalization problem = normalization(in, scale, shift, means.size(1), 0);
  const Tensor given = laid_out_as(in, grad);
  std::tuple<Tensor, Tensor, Tensor> result = {empty_as(in), empty_beside(scale), empty_beside(shift)};
  cpu::norm_silu_backward(problem, pointer(given), pointer(in), pointer(means), pointer(inverses),
                          output(std::get<0>(result)), output(std::get<1>(result)), output(std::get<2>(result)));
  return result;
}

#else

constexpr int64_t SCRATCH_FLOATS = (256 << 20) / sizeof(float);

InputGradientsOf<Results> results_of(Four& four) {
  return {results(std::get<0>(four)), results(std::get<1>(four)), results(std::get<2>(four)), results(std::get<3>(four))};
}

// Selects the device of a tensor while it exists; `stream` is torch's current stream there.
struct OnDevice {
  torch::stable::accelerator::DeviceGuard guard;
  void* stream = nullptr;

  explicit OnDevice(const Tensor& x) : guard(x.get_device_index()) {
    check(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  }
};

Tensor render_cuda(const Tensor& coords, const Tensor& scale, const Tensor& rotation, const Tensor& amplitudes,
                   int64_t height, int64_t width, double kernel_size, bool analytic, std::optional<ScalarType> dtype) {
  const OnDevice device(coords);
  const Inputs inputs(coords, scale, rotation, amplitudes, height, width, kernel_size, analytic);
  const Type type = image_type(dtype);
  Tensor image = empty_image(inputs, type);
  const cuda::ForwardPlan plan = cuda::forward_plan(inputs.dimensions);
  const int64_t floats = cuda::forward_scratch(inputs.dimensions, plan);
  std::optional<Tensor> scratch;
  if (floats > 0) scratch = new_empty(inputs.coords, &floats, 1, dtype_of(Type::FLOAT32));
  float* const memory = scratch ? output(*scratch) : nullptr;
  const int error = inputs.single() && type == Type::FLOAT32
                        ? cuda::forward(inputs.problem(), plan, output(image), memory, device.stream)
                        : cuda::forward(inputs.problem_of_numbers(), plan, results(image), memory, device.stream);
  STD_TORCH_CHECK(error == 0, "predgsplat: CUDA error ", error, " when launching the forward kernel");
  return image;
}

Four render_backward_cuda(const Tensor& grad_image, const Tensor& coords, const Tensor& scale, const Tensor& rotation,
                          const Tensor& amplitudes, double kernel_size, bool analytic) {
  const OnDevice device(coords);
  const int64_t dims = grad_image.dim();
  const Inputs inputs(coords, scale, rotation, amplitudes, grad_image.size(dims - 2), grad_image.size(dims - 1),
                      kernel_size, analytic);
  const Tensor grad = as_float(grad_image);
  Four gradients = empty_gradients(inputs);
  const int error =
      inputs.single()
          ? cuda::backward(inputs.problem(), pointer(grad), pointers(gradients), device.stream)
          : cuda::backward(inputs.problem_of_numbers(), pointer(grad), results_of(gradients), device.stream);
  STD_TORCH_CHECK(error == 0, "predgsplat: CUDA error ", error, " when launching the backward kernel");
  return gradients;
}

Two compose_cuda(const Tensor& centre, const Tensor& conic, const Tensor& opacity, const Tensor& features,
                 int64_t height, int64_t width) {
  const OnDevice device(centre);
  const ComposeInputs inputs(centre, conic, opacity, features, height, width);
  Two result = {inputs.empty_planes(inputs.problem.channels + 1), inputs.empty_planes(2)};
  const int error =
      cuda::compose(inputs.problem, output(std::get<0>(result)), output(std::get<1>(result)), device.stream);
  STD_TORCH_CHECK(error == 0, "predgsplat: CUDA error ", error, " when launching the kernel of compose");
  return result;
}

Four compose_backward_cuda(const Tensor& grad_image, const Tensor& state, const Tensor& centre, const Tensor& conic,
                           const Tensor& opacity, const Tensor& features) {
  const OnDevice device(centre);
  const int64_t dims = grad_image.dim();
  const ComposeInputs inputs(centre, conic, opacity, features, grad_image.size(dims - 2), grad_image.size(dims - 1));
  const Tensor grad = as_float(grad_image), kept = as_float(state);
  Four gradients = empty_gradients(inputs);
  const int64_t floats = cuda::compose_scratch(inputs.problem, SCRATCH_FLOATS);
  Tensor scratch = new_empty(inputs.features, &floats, 1);
  const int error = cuda::compose_backward(inputs.problem, pointer(kept), pointer(grad),
                                           composition_pointers(gradients), output(scratch), floats, device.stream);
  STD_TORCH_CHECK(error == 0, "predgsplat: CUDA error ", error, " when launching the kernels of compose_backward");
  return gradients;
}

#endif

}  // namespace
}  // namespace predgsplat

#ifndef PREDGSPLAT_CUDA

STABLE_TORCH_LIBRARY(predgsplat, m) {
  m.def(
      "render(Tensor coords, Tensor scale, Tensor rotation, Tensor amplitudes, "
      "SymInt height, SymInt width, float kernel_size, bool analytic, ScalarType? dtype=None) -> Tensor");
  m.def(
      "render_backward(Tensor grad_image, Tensor coords, Tensor scale, Tensor rotation, Tensor amplitudes, "
      "float kernel_size, bool analytic) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "compose(Tensor centre, Tensor conic, Tensor opacity, Tensor features, SymInt height, SymInt width) "
      "-> (Tensor, Tensor)");
  m.def(
      "compose_backward(Tensor grad_image, Tensor state, Tensor centre, Tensor conic, Tensor opacity, Tensor features) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "depthwise(Tensor x, Tensor weight, Tensor? bias, int padding_rows, int padding_columns, int dilation) -> Tensor");
  m.def(
      "depthwise_weights(Tensor grad, Tensor x, Tensor weight, int padding_rows, int padding_columns, int dilation) "
      "-> (Tensor, Tensor)");
  m.def(
      "similarity(Tensor x, Tensor y, Tensor? weight, Tensor span, Tensor window, bool gradient) "
      "-> (Tensor, Tensor, Tensor)");
  m.def("norm_silu(Tensor x, Tensor weight, Tensor bias, int groups, float eps) -> (Tensor, Tensor, Tensor)");
  m.def(
      "norm_silu_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor inverse) "
      "-> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(predgsplat, CPU, m) {
  m.impl("render", TORCH_BOX(&predgsplat::render_cpu));
  m.impl("render_backward", TORCH_BOX(&predgsplat::render_backward_cpu));
  m.impl("compose", TORCH_BOX(&predgsplat::compose_cpu));
  m.impl("compose_backward", TORCH_BOX(&predgsplat::compose_backward_cpu));
  m.impl("depthwise", TORCH_BOX(&predgsplat::depthwise_cpu));
  m.impl("depthwise_weights", TORCH_BOX(&predgsplat::depthwise_weights_cpu));
  m.impl("similarity", TORCH_BOX(&predgsplat::similarity_cpu));
  m.impl("norm_silu", TORCH_BOX(&predgsplat::norm_silu_cpu));
  m.impl("norm_silu_backward", TORCH_BOX(&predgsplat::norm_silu_backward_cpu));
}

#else

STABLE_TORCH_LIBRARY_IMPL(predgsplat, CUDA, m) {
  m.impl("render", TORCH_BOX(&predgsplat::render_cuda));
  m.impl("render_backward", TORCH_BOX(&predgsplat::render_backward_cuda));
  m.impl("compose", TORCH_BOX(&predgsplat::compose_cuda));
  m.impl("compose_backward", TORCH_BOX(&predgsplat::compose_backward_cuda));
}

#endif
