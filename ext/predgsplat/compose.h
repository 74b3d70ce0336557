// The mathematics of one projected Gaussian, for CPU and GPU: from its conic to what is evaluated at the pixels, and from
// sums over the pixels to the gradients of its parameters. pdr_cli/splat/compose_reference.py specifies it.
//
// F is float on a GPU and a vector of floats on a CPU, with one Gaussian per lane. Each side defines its own larger,
// square_root, difference_of_products and log2_at_least. No sum here has a product as a term, which a compiler might
// fuse in one kernel and not in another: all of them agree on the box of a Gaussian.
#pragma once

#include "gaussian.h"

namespace predgsplat {

constexpr float MIN_ALPHA = 1.0f / 255.0f;  // less counts as nothing
constexpr float MAX_ALPHA = 0.99f;
// A pixel that lets less through takes no further Gaussian. Those would change nothing in float32, and the transmittance,
// which the backward pass restores by division, would underflow.
constexpr float OPAQUE = 0x1p-40f;
constexpr float SMALLEST = 1e-30f;  // of a conic's diagonal, in divisions

// At (dx, dy) pixels from the centre, α is opacity · 2^-((root (dy + slope dx))² + rest dx²): no cancellation of large
// terms for a long, thin, oblique Gaussian.
template <class F>
struct Footprint {
  F root, slope, rest;
  F reach_x, reach_y;  // α is below MIN_ALPHA beyond this |dx| or |dy|
};

// conic: the inverse [a b; b c] of the covariance.
template <class F>
PREDGSPLAT_BOTH Footprint<F> footprint(F a, F b, F c, F opacity) {
  const float unit = 0.5f * LOG2_E;  // from q to an exponent of 2
  const F det = larger(difference_of_products(a, c, b, b), 0.0f);
  a = larger(a, SMALLEST);
  c = larger(c, SMALLEST);
  Footprint<F> f;
  f.root = square_root(unit * c);
  f.slope = b / c;
  f.rest = unit * (det / c);
  // The exponent that brings the opacity down to MIN_ALPHA, and a little more to allow for rounding.
  const F level = larger(log2_at_least(opacity / MIN_ALPHA) + 0.01f, 0.0f) / unit;
  f.reach_x = square_root(level * c / det);
  f.reach_y = square_root(level * a / det);
  return f;
}

// Sums over the pixels of v = α dL/dα, as α is before its limits, times 1, dx, dy, dx², dx dy and dy².
constexpr int COMPOSE_MOMENTS = 6;

struct ComposeGradients {
  float x, y, a, b, c, opacity;
};

PREDGSPLAT_BOTH ComposeGradients compose_adjoint(const float* m, float a, float b, float c, float opacity) {
  const float s = m[0], sx = m[1], sy = m[2], sxx = m[3], sxy = m[4], syy = m[5];
  // α is zero below MIN_ALPHA, so a Gaussian with sums has an opacity.
  return {a * sx + b * sy, b * sx + c * sy, -0.5f * sxx, -sxy, -0.5f * syy, s == 0.0f ? 0.0f : s / opacity};
}

}  // namespace predgsplat
