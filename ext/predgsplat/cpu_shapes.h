// Shared by both CPU kernels: Gaussians prepared a vector at a time, the column strips in which they are walked, and
// how a call is divided among threads.
//
// In a strip, row v of a Gaussian is 2^-(a u² + 2 b u v + c v²) = p(u) r(u)^v 2^-(c v²): each step to the next row
// multiplies the vector p by the vector r, and the last factor comes from a table. Rows are walked from the middle of
// the strip in both directions, which keeps rounding errors below 1e-6 of the peak. Where intermediate values would
// leave the range of a float (strong correlation of x and y: `steep`), every row is computed directly.
//
// Every pixel sums its Gaussians, and every Gaussian its pixels, in a fixed order for any number of threads.
#pragma once

#include "simd.h"
// gaussian.h needs the functions of simd.h declared before it.
#include "cpu_tasks.h"

#include <algorithm>
#include <vector>

namespace predgsplat::cpu {

// Largest power of two by which neighbouring rows of a Gaussian may differ; twice that exponent still fits a float.
constexpr float MAX_SLOPE = 60.0f;

// Smallest task that is worth waking a thread for, in strip rows. A strip row takes about 3 ns.
constexpr double TASK_ROWS = 10e3;

// One Gaussian in a frame.
struct Shape {
  int x, y;                      // whole pixel of the centre
  int left, right, top, bottom;  // first and last offset within reach and frame: of pixels, or of lattice points
  bool steep;                    // every row must be computed directly
  float fraction_x, fraction_y, a, b, c;
  float det;                   // a c - b²
  float ratio, inverse_ratio;  // 2^2b and 2^-2b
  float tip;                   // u at which the ellipse of reach extends farthest down
};

struct Parameters {
  Lanes mu_x, mu_y, s1, s2, theta;

  PREDGSPLAT_INLINE Ints all_finite() const {
    return finite(mu_x) & finite(mu_y) & finite(s1) & finite(s2) & finite(theta);
  }
};

// `first` counts through the Gaussians of all frames; lanes from `count` on are 0.
PREDGSPLAT_INLINE Parameters read_parameters(const Problem& problem, int64_t first, int count) {
  const float *coords = problem.coords + 2 * first, *scale = problem.scale + 2 * first;
  return {load_some<2>(coords, count), load_some<2>(coords + 1, count), load_some<2>(scale, count),
          load_some<2>(scale + 1, count), load_some<1>(problem.rotation + first, count)};
}

// First and last offsets from the whole pixel of the centre, within reach and frame.
struct Bounds {
  Lanes left, right, top, bottom;
};

PREDGSPLAT_INLINE Bounds bounds(const Gaussian<Lanes>& g, Lanes x, Lanes y, Lanes reach_x, Lanes reach_y,
                                const Geometry& geometry) {
  const float width = static_cast<float>(geometry.width), height = static_cast<float>(geometry.height);
  if (geometry.analytic)
    return {larger(-floor(reach_x - g.fraction_x), -x), smaller(floor(reach_x + g.fraction_x), width - 1 - x),
            larger(-floor(reach_y - g.fraction_y), -y), smaller(floor(reach_y + g.fraction_y), height - 1 - y)};
  // A lattice point one pixel before the frame still reaches the first pixel.
  return {larger(-floor(reach_x), -1 - x), smaller(floor(reach_x), width - 1 - x),
          larger(-floor(reach_y), -1 - y), smaller(floor(reach_y), height - 1 - y)};
}

// Up to LANES Gaussians of one frame, prepared together.
class Block {
 public:
  const int count;

  Block(const Problem& problem, int64_t first, int count);

  bool visible(int i) const { return visible_[i] != 0; }
  bool all_finite(int i) const { return finite_[i] != 0; }

  PREDGSPLAT_INLINE Shape operator[](int i) const {
    return {x_[i],          y_[i],          left_[i], right_[i], top_[i], bottom_[i], steep_[i] != 0,   fraction_x_[i],
            fraction_y_[i], a_[i],          b_[i],    c_[i],     det_[i], ratio_[i],  inverse_ratio_[i], tip_[i]};
  }

 private:
  Ints x_, y_, left_, right_, top_, bottom_, visible_, steep_, finite_;
  Lanes fraction_x_, fraction_y_, a_, b_, c_, det_, ratio_, inverse_ratio_, tip_;
};

inline Block::Block(const Problem& problem, int64_t first, int count_) : count(count_) {
  const Geometry& geometry = problem.geometry;
  const Parameters p = read_parameters(problem, first, count);
  const Gaussian<Lanes> g = prepare(p.mu_x, p.mu_y, p.s1, p.s2, p.theta, geometry);
  finite_ = p.all_finite();
  const auto whole = [&](Lanes x) { return zero_unless(finite_, smaller(larger(x, -FAR), FAR)); };
  const Lanes x = whole(g.x), y = whole(g.y);
  const Lanes reach_x = smaller(g.reach_x, geometry.radius), reach_y = smaller(g.reach_y, geometry.radius);
  const Bounds within = bounds(g, x, y, reach_x, reach_y, geometry);
  visible_ = finite_ & (within.left <= within.right) & (within.top <= within.bottom);
  const auto integers = [&](Lanes v) { return __builtin_convertvector(zero_unless(visible_, v), Ints); };
  x_ = integers(x), y_ = integers(y);
  left_ = integers(within.left), right_ = integers(within.right);
  top_ = integers(within.top), bottom_ = integers(within.bottom);
  // Exponents along the walk stay within ±126 if the correlation of x and y is moderate: 1 - ρ² = det/(a c).
  steep_ = (g.det < 0.3f * (g.a * g.c)) | (2.0f * absolute(g.b) * (reach_x + 1.0f) > MAX_SLOPE);
  const Lanes slope = zero_unless(~steep_, 2.0f * g.b);
  fraction_x_ = g.fraction_x, fraction_y_ = g.fraction_y;
  a_ = g.a, b_ = g.b, c_ = g.c, det_ = g.det;
  ratio_ = exp2(slope), inverse_ratio_ = exp2(-slope);
  tip_ = -g.b * square_root(CUT / (g.a * g.det));
}

// Shares of a Gaussian's row v: own[v] of it falls on its own row of pixels and next[v] on the one below, since a
// centre between two rows contributes to both. Both contain the factor 2^-(c v²), except for steep Gaussians.
class RowShares {
 public:
  explicit RowShares(const Geometry& geometry)
      : capacity_(most_rows(geometry) + LANES), own_(capacity_), next_(capacity_) {}

  template <bool STEEP, bool ANALYTIC>
  PREDGSPLAT_INLINE void fill(const Shape& g, float fraction, float scale) {
    Lanes v = lane_numbers() + (static_cast<float>(g.top) - (ANALYTIC ? g.fraction_y : 0.0f));
    for (int i = 0; i <= g.bottom - g.top; i += LANES) {
      const Lanes value = STEEP ? broadcast(scale) : scale * exp2(-g.c * v * v);
      store(own_.data() + i, (1.0f - fraction) * value);
      store(next_.data() + i, fraction * value);
      v += static_cast<float>(LANES);
    }
    own = own_.data() - g.top;
    next = next_.data() - g.top;
  }

  // From precomputed factors of a vector of rows that begins with row `first`.
  PREDGSPLAT_INLINE void fill(Lanes factors, int first, float fraction, float scale) {
    store(own_.data(), (1.0f - fraction) * scale * factors);
    store(next_.data(), fraction * scale * factors);
    own = own_.data() - first;
    next = next_.data() - first;
  }

  const float *own = nullptr, *next = nullptr;

 private:
  static int most_rows(const Geometry& geometry) {
    const int all = geometry.height + 1;
    return geometry.radius < geometry.height ? std::min(2 * static_cast<int>(geometry.radius) + 1, all) : all;
  }

  size_t capacity_;
  std::vector<float> own_, next_;
};

// One column strip of a Gaussian, without the factors of its rows. On a lattice, moving the Gaussian right by a
// fraction of a pixel splits its value into the share `p` of its own column and the share `q` of the left neighbour.
template <bool STEEP, bool ANALYTIC>
struct Strip {
  const Shape& g;
  Lanes u;      // columns relative to the centre
  Ints inside;  // lanes within left and right
  Ints inside_q;

  // first: the first column, relative to the whole pixel of the centre.
  PREDGSPLAT_INLINE Strip(const Shape& shape, int first) : g(shape) {
    const Lanes column = lane_numbers() + static_cast<float>(first);
    const float left = static_cast<float>(g.left), right = static_cast<float>(g.right);
    inside = (column >= left) & (column <= right);
    inside_q = (column >= left + 1.0f) & (column <= right + 1.0f);
    u = ANALYTIC ? column - g.fraction_x : column;
  }

  // The value in row v at columns `at`, without the row's factor.
  PREDGSPLAT_INLINE Lanes value(Lanes at, float v) const {
    if constexpr (!STEEP) return exp2(-at * (g.a * at + 2.0f * g.b * v));
    const Lanes t = at + (g.b / g.a) * v;
    return exp2(-(g.a * t * t + (g.det / g.a) * (v * v)));
  }

  // Where v is 0 in row 0.
  PREDGSPLAT_INLINE float offset() const { return ANALYTIC ? g.fraction_y : 0.0f; }

  // The row from which the strip is walked: the middle row, or the centre's, whose moments then are exactly 0.
  PREDGSPLAT_INLINE int start(int top, int bottom) const {
    const bool central = std::abs(u[0] + 0.5f * (LANES - 1)) <= 0.5f * LANES;
    return central ? std::clamp(0, top, bottom) : (top + bottom) >> 1;
  }

  PREDGSPLAT_INLINE Lanes unmoved(Lanes value) const { return zero_unless(inside, value); }
  PREDGSPLAT_INLINE Lanes unmoved(float v) const { return unmoved(value(u, v)); }

  PREDGSPLAT_INLINE Lanes p(Lanes value) const {
    return ANALYTIC ? unmoved(value) : (1.0f - g.fraction_x) * unmoved(value);
  }

  PREDGSPLAT_INLINE Lanes q(Lanes value) const { return g.fraction_x * zero_unless(inside_q, value); }
  PREDGSPLAT_INLINE Lanes p(float v) const { return p(value(u, v)); }
  PREDGSPLAT_INLINE Lanes q(float v) const { return q(value(u - 1.0f, v)); }

  // The ratios of p to the row above and to the row below. Clamped, because columns outside the Gaussian are 0 and
  // 0 times infinity is NaN.
  PREDGSPLAT_INLINE Lanes slope() const { return larger(smaller((2.0f * g.b) * u, MAX_SLOPE), -MAX_SLOPE); }
  PREDGSPLAT_INLINE Lanes ratio_down() const { return exp2(-slope()); }
  PREDGSPLAT_INLINE Lanes ratio_up() const { return exp2(slope()); }
};

// The rows [top, bottom] of a strip, and the one from which they are walked.
struct Span {
  int start, top, bottom;
};

// Visits the other rows in both directions at once: two chains of dependent products instead of one.
template <class Down, class Up>
PREDGSPLAT_INLINE void walk_both_ways(const Span& span, const Down& down, const Up& up) {
  const int start = span.start, both = std::min(start - span.top, span.bottom - start);
  for (int k = 1; k <= both; ++k) {
    down(start + k);
    up(start - k);
  }
  for (int v = start + both + 1; v <= span.bottom; ++v) down(v);
  for (int v = start - both - 1; v >= span.top; --v) up(v);
}

// The strips of a Gaussian: as many as its columns need, shifted left where they would end beyond `end`.
struct Strips {
  int column, count;

  Strips(int first, int last, int end) : count((last - first + LANES) / LANES) {
    column = std::min(first, end - count * LANES);
  }
};

inline Strips lattice_strips(const Shape& g) { return {g.x + g.left, g.x + g.right, INT32_MAX}; }

// First and last rows in which the Gaussians of a block reach each of their strips. All are computed before the first
// strip is walked: a loop whose length is known early costs no wait where it ends.
class StripRows {
 public:
  struct Rows {
    int top, bottom;
  };

  explicit StripRows(const Geometry& geometry)
      : per_gaussian_(2 * HALF * (1 + most_columns(geometry) / (HALF * LANES))),
        rows_(most_columns(geometry) > LANES ? LANES * per_gaussian_ : 0) {}

  // strips_of(g): the strips of a Gaussian. DRAWN: of pixels, which lattice points to the left of them reach too.
  template <bool ANALYTIC, bool DRAWN, class StripsOf>
  PREDGSPLAT_INLINE void fill(const Block& block, const StripsOf& strips_of) {
    if (rows_.empty()) return;  // one strip is enough for every Gaussian
    for (int i = 0; i < block.count; ++i)
      if (block.visible(i)) {
        const Shape g = block[i];
        fill<ANALYTIC, DRAWN>(i, g, strips_of(g));
      }
  }

  template <bool ANALYTIC, bool DRAWN>
  PREDGSPLAT_INLINE void fill(int gaussian, const Shape& g, const Strips& strips) {
    if (strips.count == 1) return;
    for (int first = 0; first < strips.count; first += HALF)
      store_rows<ANALYTIC, DRAWN>(g, strips, first, &rows_[gaussian * per_gaussian_ + 2 * first]);
  }

  PREDGSPLAT_INLINE Rows at(int gaussian, int strip) const {
    const int32_t* half = &rows_[gaussian * per_gaussian_ + 2 * (strip / HALF * HALF) + strip % HALF];
    return {-half[HALF], half[0]};
  }

 private:
  static constexpr int HALF = LANES / 2;

  static int most_columns(const Geometry& geometry) {
    const int all = geometry.width + LANES;
    return geometry.radius < geometry.width ? std::min(2 * static_cast<int>(geometry.radius) + 2, all) : all;
  }

  // The last rows of HALF strips, and in the upper lanes the last rows upwards, which are the first ones.
  template <bool ANALYTIC, bool DRAWN>
  static PREDGSPLAT_INLINE void store_rows(const Shape& g, const Strips& strips, int first, int32_t* rows) {
    const Ints upwards = lane_numbers() >= static_cast<float>(HALF);
    const auto signed_by = [&](float x) { return upwards ? broadcast(-x) : broadcast(x); };
    const Lanes strip = lane_numbers() - zero_unless(upwards, broadcast(HALF)) + static_cast<float>(first);
    const float before = ANALYTIC ? g.fraction_x : DRAWN ? 1.0f : 0.0f;
    const float width = !ANALYTIC && DRAWN ? LANES : LANES - 1;
    const Lanes left = strip * static_cast<float>(LANES) + (static_cast<float>(strips.column - g.x) - before);
    // The u of these columns at which the ellipse reaches farthest.
    const Lanes u = larger(smaller(signed_by(g.tip), left + width), left);
    const Lanes root = square_root(larger(CUT * g.c - g.det * u * u, 0.0f));
    const Lanes last = (root - signed_by(g.b) * u) / g.c + signed_by(ANALYTIC ? g.fraction_y : 0.0f);
    const Lanes end = upwards ? broadcast(-static_cast<float>(g.top)) : broadcast(static_cast<float>(g.bottom));
    const Ints result = __builtin_convertvector(smaller(floor(last), end), Ints);
    std::memcpy(rows, &result, sizeof result);
  }

  int per_gaussian_;
  std::vector<int32_t> rows_;
};

// A lattice of up to 15 points fits into one strip of 16 lanes and needs 2^-(a u²) and 2^-(c v²) at eight distances
// each: one vector holds both, and lanes are picked from it. All lattices of a block are prepared together, because
// the exponentials of several can overlap in the processor's pipeline.
struct SmallLattice {
  static constexpr int RADIUS = 7;
  static constexpr bool POSSIBLE = LANES == 2 * (RADIUS + 1);

  Lanes powers;  // at distances 0 to 7, along x and then along y
  Lanes ratio_down, ratio_up;
  bool usable = false;

  PREDGSPLAT_INLINE void prepare(const Shape& g, const Strips& strips) {
    usable = strips.count == 1 && !g.steep && g.left >= -RADIUS && g.right <= RADIUS && g.top >= -RADIUS &&
             g.bottom <= RADIUS && g.top <= 0 && g.bottom >= 0;
    const Lanes lane = lane_numbers();
    const Ints along_y = lane > static_cast<float>(RADIUS);
    const Lanes distance = lane - zero_unless(along_y, broadcast(RADIUS + 1));
    powers = exp2(-(along_y ? broadcast(g.c) : broadcast(g.a)) * (distance * distance));
    const Strip<false, false> strip(g, strips.column - g.x);
    ratio_down = strip.ratio_down(), ratio_up = strip.ratio_up();
  }

  // 2^-(a u²) for whole |u| <= 7; undefined for other u.
  PREDGSPLAT_INLINE Lanes along_x(Lanes u) const { return pick(powers, absolute(u)); }

  // 2^-(c v²) for v = -7, -6, ..., 7; the last lane is not used.
  PREDGSPLAT_INLINE Lanes rows() const {
    return pick(powers, absolute(lane_numbers() - static_cast<float>(RADIUS)) + static_cast<float>(RADIUS + 1));
  }
};

// The small lattices of a block; nullptr for a Gaussian without one.
template <bool ANALYTIC>
class SmallLattices {
 public:
  template <class StripsOf>
  PREDGSPLAT_INLINE SmallLattices(const Block& block, const Geometry& geometry, const StripsOf& strips_of) {
    if (ANALYTIC || !SmallLattice::POSSIBLE || geometry.radius > SmallLattice::RADIUS) return;
    for (int i = 0; i < block.count; ++i) {
      const Shape g = block[i];
      lattices_[i].prepare(g, strips_of(g));
    }
  }

  const SmallLattice* operator[](int i) const { return lattices_[i].usable ? &lattices_[i] : nullptr; }

 private:
  SmallLattice lattices_[LANES];
};

// Tasks per frame: one, unless frames are fewer than threads and large enough to divide.
inline int64_t tasks_per_frame(const Problem& problem) {
  const Geometry& geometry = problem.geometry;
  const double width = std::min(2.0 * geometry.radius + 2, 1.0 * geometry.width);
  const double height = std::min(2.0 * geometry.radius + 2, 1.0 * geometry.height);
  // On average half of a window is out of reach, and preparing a Gaussian costs as much as eight rows.
  const double strips = std::max(1.0, width / LANES);
  const double rows = problem.gaussians * (8 + 0.5 * height * strips * (1 + problem.channels / 4));
  const int64_t worthwhile = static_cast<int64_t>(rows / TASK_ROWS);
  const int64_t wanted = (threads() + problem.frames - 1) / problem.frames;
  return std::clamp<int64_t>(std::min(worthwhile, wanted), 1, geometry.height);
}

}  // namespace predgsplat::cpu
