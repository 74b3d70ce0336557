// The interface between ops.cpp and the kernels: plain pointers to contiguous float32.
#pragma once

#include <cstdint>

#include "gaussian.h"

namespace predgsplat {

// P frames of N Gaussians with C channels.
struct Problem {
  int64_t frames, gaussians, channels;
  Geometry geometry;
  const float* coords;      // [P, N, 2]
  const float* scale;       // [P, N, 2]
  const float* rotation;    // [P, N]
  const float* amplitudes;  // [P, N, C]
};

// One tensor per input, of the same shape. Every element is written.
struct InputGradients {
  float *coords, *scale, *rotation, *amplitudes;
};

namespace cpu {
void forward(const Problem& problem, float* image);  // [P, C, H, W], every element is written
void backward(const Problem& problem, const float* grad_image, const InputGradients& gradients);
}  // namespace cpu

// Both only launch and never wait for the device or read from it, so that a CUDA graph can capture them.
// They return a cudaError_t, 0 if the launch succeeded.
namespace cuda {
int forward(const Problem& problem, float* image, void* stream);
int backward(const Problem& problem, const float* grad_image, const InputGradients& gradients, void* stream);
}  // namespace cuda

// Runs body(task, context) for every task on torch's threads, in any order. The program that links the kernels defines
// both functions: ops.cpp in the library.
void parallel(int64_t tasks, void (*body)(int64_t task, void* context), void* context);
int threads();

}  // namespace predgsplat
