// The interface between ops.cpp and the kernels: plain pointers, to contiguous float32 unless they are `Frames`, `Numbers` or
// `Results`.
#pragma once

#include <cstdint>

#include "gaussian.h"

namespace predgsplat {

// P frames of N Gaussians with C channels.
struct Dimensions {
  int64_t frames, gaussians, channels;
  Geometry geometry;
};

template <class Array>
struct ProblemOf : Dimensions {
  Array coords;      // [P, N, 2]
  Array scale;       // [P, N, 2]
  Array rotation;    // [P, N]
  Array amplitudes;  // [P, N, C]
};
using Problem = ProblemOf<const float*>;

// One tensor per input, of the same shape. Every element is written.
template <class Array>
struct InputGradientsOf {
  Array coords, scale, rotation, amplitudes;
};
using InputGradients = InputGradientsOf<float*>;

// Arrays of a type that is known when the program runs, which CUDA kernels read and write in float32.
enum class Type { FLOAT32, FLOAT16, BFLOAT16 };

struct Numbers {
  const void* data;
  Type type;
};

struct Results {
  void* data;
  Type type;
};

// P frames of N projected Gaussians, sorted front to back, with C features.
struct Composition {
  int64_t frames, gaussians, channels;
  int height, width;
  const float* centre;    // [P, N, 2], pixels
  const float* conic;     // [P, N, 3]
  const float* opacity;   // [P, N]
  const float* features;  // [P, N, C]
};

// One tensor per input, of the same shape. Every element is written.
struct CompositionGradients {
  float *centre, *conic, *opacity, *features;
};

// Frames [B, C, H, W] of any strides, in numbers: float32, or bfloat16.
struct Frames {
  const void* data;
  bool bfloat16;
  int64_t strides[4];
};

// A convolution of each channel by itself with stride 1: B frames of C channels and H x W pixels.
struct Depthwise {
  int64_t batch, channels, height, width;
  int64_t rows, columns;  // of the kernel
  int64_t padding_rows, padding_columns, dilation;
  int64_t out_height, out_width;
};

// Planes of frames [planes, H, W], whose channels follow each other, and a window of `size` x `size`.
struct Similarity {
  int64_t planes, channels, height, width;
  const float *x, *y;    // forecast and truth
  const float* weight;   // of each pixel, or null
  const float* span;     // [channels]
  const float* window;   // [size], sum 1
  int size;
};

// GroupNorm and SiLU of B frames of C channels and `pixels` pixels, contiguous: [B, C, pixels], or [B, pixels, C].
struct Normalization {
  int64_t batch, channels, pixels, groups;  // groups of neighbouring channels, which divide them
  bool channels_last;
  double eps;
  const float *weight, *bias;  // [C]
};

// The state that the forward pass leaves for the backward pass, [P, 2, H, W]: what passes all Gaussians of a pixel, and
// how many of them it took before it was opaque, which fits a float exactly.
constexpr int64_t MOST_GAUSSIANS = 1 << 24;

namespace cpu {
void forward(const Problem& problem, float* image);  // [P, C, H, W], every element is written
void backward(const Problem& problem, const float* grad_image, const InputGradients& gradients);
void compose(const Composition& problem, float* image, float* state);  // [P, C+1, H, W]
void compose_backward(const Composition& problem, const float* state, const float* grad_image,
                      const CompositionGradients& gradients);
// weight: [C, rows, columns]; bias: [C] or null; out: channels-last [B, H', W', C], in bfloat16 or float32.
void depthwise(const Depthwise& problem, const Frames& x, const float* weight, const float* bias, void* out, bool bfloat16);
// The gradients of weight and bias; grad: that of `out`, x: the input.
void depthwise_weights(const Depthwise& problem, const Frames& grad, const Frames& x, float* grad_weight, float* grad_bias);
// Sums over the windows of a plane: of similarity times weight, and of weights, [planes]; grad: of the first by x, or null.
void similarity(const Similarity& problem, float* sums, float* totals, float* grad);
// silu(group_norm(x)); mean, inverse: of each group and of its standard deviation, [B, groups].
void norm_silu(const Normalization& problem, const float* x, float* out, float* mean, float* inverse);
// Every gradient by every input, from that of `out`.
void norm_silu_backward(const Normalization& problem, const float* grad, const float* x, const float* mean,
                        const float* inverse, float* grad_x, float* grad_weight, float* grad_bias);
}  // namespace cpu

// The entry points of the CPU library for autograd_node.cpp: its symbol `predgsplat_kernels`.
struct CpuKernels {
  void (*forward)(const Problem& problem, float* image);
  void (*backward)(const Problem& problem, const float* grad_image, const InputGradients& gradients);
};

// They only launch and never wait for the device or read from it, so that a CUDA graph can capture them.
// They return a cudaError_t, 0 if the launch succeeded.
namespace cuda {
// How the forward pass divides its work. The image is the same, bit by bit, whether or not it prepares Gaussians once.
struct ForwardPlan {
  int tile;            // pixels along either axis of a block's part of the frame: 16, or 8 (at most 4 channels)
  bool prepares_once;  // each Gaussian in a kernel of its own, instead of in every tile
};
ForwardPlan forward_plan(const Dimensions& problem);
int64_t forward_scratch(const Dimensions& problem, const ForwardPlan& plan);  // floats of scratch memory
int forward(const Problem& problem, const ForwardPlan& plan, float* image, float* scratch, void* stream);
int backward(const Problem& problem, const float* grad_image, const InputGradients& gradients, void* stream);
// The same for tensors of any types. What they read becomes float32 first; what they write is rounded once.
int forward(const ProblemOf<Numbers>& problem, const ForwardPlan& plan, const Results& image, float* scratch, void* stream);
int backward(const ProblemOf<Numbers>& problem, const float* grad_image, const InputGradientsOf<Results>& gradients,
             void* stream);
int compose(const Composition& problem, float* image, float* state, void* stream);
// The floats of scratch memory for the backward pass, at most `most` unless the least that it needs is more. It divides
// its work to fit what it gets.
int64_t compose_scratch(const Composition& problem, int64_t most);
int compose_backward(const Composition& problem, const float* state, const float* grad_image,
                     const CompositionGradients& gradients, float* scratch, int64_t scratch_floats, void* stream);
}  // namespace cuda

// Runs body(task, context) for every task on torch's threads, in any order. The program that links the kernels defines
// both functions: ops.cpp in the library.
void parallel(int64_t tasks, void (*body)(int64_t task, void* context), void* context);
int threads();

}  // namespace predgsplat
