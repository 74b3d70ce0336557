// Tensors for the kernels, as ops.cpp takes and makes them: checked, contiguous, as pointers. Part of ops.cpp.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "kernels.h"

namespace predgsplat {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

namespace {

// torch's own macro for this has a different name in each version of torch.
inline void check(AOTITorchError code) { STD_TORCH_CHECK(code == AOTI_TORCH_SUCCESS, "predgsplat: torch reports error ", code); }

inline Tensor as_float(const Tensor& x) {
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, "predgsplat: expected float32 tensors");
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

inline Type type_of(ScalarType type) {
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16,
                  "predgsplat: expected float32, float16 or bfloat16");
  return type == ScalarType::Float ? Type::FLOAT32 : type == ScalarType::Half ? Type::FLOAT16 : Type::BFLOAT16;
}

inline Tensor as_numbers(const Tensor& x) {
  type_of(x.scalar_type());
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

// As the kernels of `render` read their inputs.
#ifdef PREDGSPLAT_CUDA
constexpr auto as_input = as_numbers;
#else
constexpr auto as_input = as_float;
#endif

inline const float* pointer(const Tensor& x) { return static_cast<const float*>(x.data_ptr()); }
inline float* output(Tensor& x) { return static_cast<float*>(x.data_ptr()); }
inline Numbers numbers(const Tensor& x) { return {x.data_ptr(), type_of(x.scalar_type())}; }
inline Results results(Tensor& x) { return {x.data_ptr(), type_of(x.scalar_type())}; }

// The four inputs, contiguous, as the Problem that the kernels solve. coords: [..., N, 2].
struct Inputs {
  Tensor coords, scale, rotation, amplitudes;
  Dimensions dimensions;

  Inputs(const Tensor& coords_, const Tensor& scale_, const Tensor& rotation_, const Tensor& amplitudes_,
         int64_t height, int64_t width, double kernel_size, bool analytic)
      : coords(as_input(coords_)),
        scale(as_input(scale_)),
        rotation(as_input(rotation_)),
        amplitudes(as_input(amplitudes_)) {
    const int64_t dims = amplitudes.dim();
    STD_TORCH_CHECK(dims >= 2 && coords.dim() == dims && scale.dim() == dims && rotation.dim() == dims - 1,
                    "predgsplat: expected coords and scale [..., N, 2], rotation [..., N], amplitudes [..., N, C]");
    for (const Tensor* x : {&scale, &rotation, &amplitudes})
      STD_TORCH_CHECK(x->get_device_index() == coords.get_device_index(),
                      "predgsplat: expected coords, scale, rotation and amplitudes on one device");
    int64_t frames = 1;
    for (int64_t i = 0; i < dims - 2; ++i) frames *= amplitudes.size(i);
    const int64_t gaussians = amplitudes.size(dims - 2), channels = amplitudes.size(dims - 1);
    STD_TORCH_CHECK(coords.numel() == 2 * frames * gaussians && scale.numel() == coords.numel() &&
                        rotation.numel() == frames * gaussians,
                    "predgsplat: coords, scale, rotation and amplitudes differ in their number of Gaussians");
    STD_TORCH_CHECK(height >= 1 && width >= 1 && height <= 1 << 20 && width <= 1 << 20 && kernel_size > 1,
                    "predgsplat: expected a frame of 1 to 2^20 pixels on each side, and a kernel_size above 1");
    dimensions = {frames, gaussians, channels,
                  make_geometry(static_cast<int>(height), static_cast<int>(width), kernel_size, analytic)};
  }

  bool single() const {
    for (const Tensor* x : {&coords, &scale, &rotation, &amplitudes})
      if (x->scalar_type() != ScalarType::Float) return false;
    return true;
  }

  // Only if they are `single`.
  Problem problem() const { return {dimensions, pointer(coords), pointer(scale), pointer(rotation), pointer(amplitudes)}; }

  ProblemOf<Numbers> problem_of_numbers() const {
    return {dimensions, numbers(coords), numbers(scale), numbers(rotation), numbers(amplitudes)};
  }
};

inline int32_t dtype_of(const Tensor& x) {
  int32_t dtype;
  check(aoti_torch_get_dtype(x.get(), &dtype));
  return dtype;
}

inline int32_t dtype_of(Type type) {
  return type == Type::FLOAT32   ? aoti_torch_dtype_float32()
         : type == Type::FLOAT16 ? aoti_torch_dtype_float16()
                                 : aoti_torch_dtype_bfloat16();
}

// Uninitialised, on the device of x. Through the C interface: the dispatcher takes four times as long, which shows in
// small frames.
inline Tensor strided_empty(const Tensor& x, const int64_t* shape, const int64_t* strides, int64_t dims, int32_t dtype) {
  int32_t device_type, device_index;
  check(aoti_torch_get_device_type(x.get(), &device_type));
  check(aoti_torch_get_device_index(x.get(), &device_index));
  AtenTensorHandle result;
  check(aoti_torch_empty_strided(dims, shape, strides, dtype, device_type, device_index, &result));
  return Tensor(result);
}

// The same, contiguous.
inline Tensor new_empty(const Tensor& x, const int64_t* shape, int64_t dims, int32_t dtype) {
  std::vector<int64_t> strides(dims, 1);
  for (int64_t i = dims - 1; i > 0; --i) strides[i - 1] = strides[i] * std::max<int64_t>(shape[i], 1);
  return strided_empty(x, shape, strides.data(), dims, dtype);
}

// The same, with the dtype of x.
inline Tensor new_empty(const Tensor& x, const int64_t* shape, int64_t dims) {
  return new_empty(x, shape, dims, dtype_of(x));
}

inline Tensor empty_beside(const Tensor& x) { return new_empty(x, x.sizes().data(), x.dim()); }

inline Tensor empty_image(const Inputs& inputs, Type type) {
  const auto sizes = inputs.amplitudes.sizes();
  std::vector<int64_t> shape(sizes.begin(), sizes.end() - 2);
  const Dimensions& p = inputs.dimensions;
  shape.insert(shape.end(), {p.channels, p.geometry.height, p.geometry.width});
  return new_empty(inputs.amplitudes, shape.data(), static_cast<int64_t>(shape.size()), dtype_of(type));
}

}  // namespace
}  // namespace predgsplat
