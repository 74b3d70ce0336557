// The gradient of the image as the Gaussians of cpu_backward.cpp read it: with zeros outside the frame.
#pragma once

#include "cpu_shapes.h"

#include <memory>

namespace predgsplat::cpu {

// The gradient of one frame's image. origin: pixel (0, 0) of the first channel.
struct GradientImage {
  const float* origin;
  int64_t stride, plane;
};

// Gradient images with a border of zeros: a row above and below, a column before, and a vector and a column behind.
class Bordered {
 public:
  Bordered(const Geometry& geometry, int64_t images)
      : height_(geometry.height),
        width_(geometry.width),
        stride_(geometry.width + LANES + 2),
        plane_((geometry.height + 2) * stride_),
        pixels_(new float[images * plane_]) {}

  // Copies the rows [top, bottom) of one image, and clears the border beside them.
  void copy(const float* from, int64_t image, int64_t top, int64_t bottom) {
    float* row = pixels_.get() + image * plane_ + (top + 1) * stride_;
    if (top == 0) std::fill_n(row - stride_, stride_, 0.0f);
    for (int64_t i = top; i < bottom; ++i, row += stride_) {
      row[0] = 0.0f;
      std::copy_n(from + image * height_ * width_ + i * width_, width_, row + 1);
      std::fill_n(row + 1 + width_, LANES + 1, 0.0f);
    }
    if (bottom == height_) std::fill_n(row, stride_, 0.0f);
  }

  GradientImage from(int64_t image) const { return {pixels_.get() + image * plane_ + stride_ + 1, stride_, plane_}; }

 private:
  int64_t height_, width_, stride_, plane_;
  std::unique_ptr<float[]> pixels_;
};

// Of large frames no bordered copy is made: a Gaussian reads the gradient itself, and one that reaches beyond the frame
// reads a copy of the pixels around it, with zeros outside.
class Surroundings {
 public:
  // Whether most Gaussians stay far from the edges of a frame that is large enough for the copy to cost.
  static bool worthwhile(const Geometry& geometry) {
    constexpr int64_t PIXELS = 1 << 18;
    return static_cast<int64_t>(geometry.height) * geometry.width >= PIXELS &&
           4 * (2 * geometry.radius + 2 + LANES) <= std::min(geometry.height, geometry.width);
  }

  // What Gaussian g may read of a frame's image, which has no border: the image, or a copy of a part.
  GradientImage of(const Shape& g, const GradientImage& image, const Geometry& geometry, int64_t channels) {
    const Strips strips = lattice_strips(g);
    // Each lattice point reads two columns, and the columns of both may begin a vector of their own.
    const int64_t left = strips.column, right = left + (strips.count + 1) * LANES + 1;
    const int64_t top = g.y + g.top, bottom = g.y + g.bottom + 2;
    if (left >= 0 && right <= geometry.width && top >= 0 && bottom <= geometry.height) return image;
    const int64_t stride = right - left, plane = (bottom - top) * stride;
    pixels_.assign(channels * plane, 0.0f);
    const int64_t first = std::max<int64_t>(left, 0), last = std::min<int64_t>(right, geometry.width);
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = std::max<int64_t>(top, 0); i < std::min<int64_t>(bottom, geometry.height); ++i)
        std::copy_n(image.origin + c * image.plane + i * image.stride + first, last - first,
                    pixels_.data() + c * plane + (i - top) * stride + first - left);
    return {pixels_.data() - top * stride - left, stride, plane};
  }

 private:
  std::vector<float> pixels_;
};

}  // namespace predgsplat::cpu
