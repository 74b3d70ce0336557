// The mathematics of one Gaussian, for CPU and GPU: from its parameters to the coefficients that are drawn, and from
// sums over the pixels to the gradients of its parameters. docs/renderer.md derives it; pdr_cli/splat/reference.py
// specifies it.
//
// F is float on a GPU and a vector of floats on a CPU, with one Gaussian per lane. Each side defines its own floor,
// larger, square_root, sine_cosine and multiply_then_add. The last must not fuse, so that all backends compute the same
// floor.
#pragma once

#ifdef __CUDACC__
#define PREDGSPLAT_BOTH __host__ __device__ __forceinline__
#else
#define PREDGSPLAT_BOTH inline
#endif

namespace predgsplat {

constexpr float MIN_SCALE = 1e-3f;
constexpr float MAX_SCALE = 1e6f;  // flat across any frame; its square still fits a float
constexpr float EXTENT = 10.0f;  // the lattice spans [-5, 5] kernel units
constexpr float CUT = 24.0f;     // exp(-q/2) below 2^-24 does not change a float32 sum whose peak is 1
constexpr float LOG2_E = 1.4426950408889634f;
// Coordinates are clamped to it: beyond every frame, and still convertible to an integer.
constexpr float FAR = 1e6f;

// The frame and the lattice, which all Gaussians of a call share.
struct Geometry {
  int height, width;  // of the frame, in pixels
  float half_height, half_width;  // (H-1)/2, (W-1)/2: pixels per unit of coords
  float step;    // kernel units per pixel, 10/(K-1)
  float radius;  // (K-1)/2 in pixels; FAR in the analytic mode, which has no lattice
  bool analytic;
};

inline Geometry make_geometry(int height, int width, double kernel_size, bool analytic) {
  return {height,
          width,
          0.5f * (height - 1),
          0.5f * (width - 1),
          static_cast<float>(EXTENT / (kernel_size - 1)),
          analytic ? FAR : static_cast<float>((static_cast<int>(kernel_size) - 1) / 2),
          analytic};
}

// One Gaussian in pixels. At an offset of (u, v) pixels from its centre it is 2^-(a u² + 2 b u v + c v²).
template <class F>
struct Gaussian {
  F x, y;                     // whole pixel of the centre
  F fraction_x, fraction_y;   // its fraction of a pixel, in [0, 1)
  F a, b, c;
  F reach_x, reach_y;  // the Gaussian is less than 2^-CUT beyond this |u| or |v|
  F det;               // a c - b², computed without cancellation
};

// The rotated axes, used by prepare and adjoint.
template <class F>
struct Axes {
  F cos, sin;
  F s1, s2;      // clamped
  F inv1, inv2;  // 1/s²
};

template <class F>
PREDGSPLAT_BOTH Axes<F> axes(F s1, F s2, F theta) {
  Axes<F> r;
  sine_cosine(theta, r.sin, r.cos);
  r.s1 = -larger(-larger(s1, MIN_SCALE), -MAX_SCALE);
  r.s2 = -larger(-larger(s2, MIN_SCALE), -MAX_SCALE);
  r.inv1 = 1.0f / (r.s1 * r.s1);
  r.inv2 = 1.0f / (r.s2 * r.s2);
  return r;
}

template <class F>
PREDGSPLAT_BOTH Gaussian<F> prepare(F mu_x, F mu_y, F s1, F s2, F theta, const Geometry& geometry) {
  Gaussian<F> g;
  const F x = multiply_then_add(mu_x, geometry.half_width, geometry.half_width);
  const F y = multiply_then_add(mu_y, geometry.half_height, geometry.half_height);
  g.x = floor(x);
  g.y = floor(y);
  g.fraction_x = x - g.x;
  g.fraction_y = y - g.y;
  const Axes<F> r = axes(s1, s2, theta);
  const F cc = r.cos * r.cos, ss = r.sin * r.sin;
  const float unit = 0.5f * LOG2_E * geometry.step * geometry.step;  // from q in kernel units to log2 in pixels
  g.a = unit * (cc * r.inv1 + ss * r.inv2);
  g.b = unit * (r.cos * r.sin * (r.inv1 - r.inv2));
  g.c = unit * (ss * r.inv1 + cc * r.inv2);
  g.det = (unit * r.inv1) * (unit * r.inv2);
  // Σ is the inverse of [a b; b c], and the ellipse a u² + 2 b u v + c v² = CUT reaches sqrt(CUT Σ_xx) along x.
  const float range = CUT / unit;
  const F s11 = r.s1 * r.s1, s22 = r.s2 * r.s2;
  g.reach_x = square_root(range * (cc * s11 + ss * s22));
  g.reach_y = square_root(range * (ss * s11 + cc * s22));
  return g;
}

// Sums over the lattice points or pixels of one Gaussian, weighted by its value. G is the gradient of the image, for
// several channels their sum weighted by the amplitudes, interpolated at the lattice points.
//
// w is v relative to the ridge v = -(b/c) u, where the Gaussian is largest for that u. Sums over v itself would be
// large for a long, thin Gaussian, and their difference, which determines the gradient of its width, would be lost.
template <class F>
struct Moments {
  F s0, su, sw, suu, suw, sww;  // of G, times 1, u, w, u², u w, w²
  F sx, sy;                     // of the derivative of G by the shift; the analytic mode uses su and sw instead
};

// Adds one column, given its sums over v of G, (v - v0) G and (v - v0)² G.
template <class F>
PREDGSPLAT_BOTH void add_column(Moments<F>& m, F u, F ridge_slope, F v0, F s0, F sv, F svv) {
  const F ridge = ridge_slope * u - v0;
  const F sw = sv - ridge * s0;
  m.s0 += s0;
  m.su += u * s0;
  m.sw += sw;
  m.suu += u * u * s0;
  m.suw += u * sw;
  m.sww += svv - ridge * sv - ridge * sw;
}

template <class F>
struct Gradients {
  F mu_x, mu_y, s1, s2, theta;
};

template <class F>
PREDGSPLAT_BOTH Gradients<F> adjoint(const Moments<F>& m, F s1, F s2, F theta, const Geometry& geometry) {
  const Axes<F> r = axes(s1, s2, theta);
  const float hh = geometry.step * geometry.step;
  const F difference = r.inv1 - r.inv2;
  const F cc = r.cos * r.cos, ss = r.sin * r.sin;
  const F yy = ss * r.inv1 + cc * r.inv2;  // the yy entry of Σ^-1
  Gradients<F> d;
  if (geometry.analytic) {
    // The derivative of exp(-q/2) by the centre is Σ^-1 (u, v) exp(-q/2), and v = w - (xy/yy) u.
    d.mu_x = geometry.half_width * hh * (r.inv1 * r.inv2 / yy * m.su + r.cos * r.sin * difference * m.sw);
    d.mu_y = geometry.half_height * hh * yy * m.sw;
  } else {
    d.mu_x = geometry.half_width * m.sx;
    d.mu_y = geometry.half_height * m.sy;
  }
  // q = along² / s1² + across² / s2², with along = cos u + sin v = along_u u + sin w, and likewise for across.
  const F along_u = r.cos * r.inv2 / yy, across_u = -r.sin * r.inv1 / yy;
  d.s1 = hh * (r.inv1 / r.s1) * (along_u * along_u * m.suu + 2.0f * along_u * r.sin * m.suw + ss * m.sww);
  d.s2 = hh * (r.inv2 / r.s2) * (across_u * across_u * m.suu + 2.0f * across_u * r.cos * m.suw + cc * m.sww);
  const F product = along_u * across_u * m.suu + (along_u * r.cos + across_u * r.sin) * m.suw + r.cos * r.sin * m.sww;
  d.theta = -hh * difference * product;
  d.s1 = zero_unless(at_least(s1, MIN_SCALE), d.s1);
  d.s2 = zero_unless(at_least(s2, MIN_SCALE), d.s2);
  return d;
}

}  // namespace predgsplat
