// The renderer on a CPU: Gaussians are drawn one after the other, a column strip of one vector at a time.
//
// In a strip, a Gaussian's row v is 2^-(a u² + 2 b u v + c v²) = p(u) r(u)^v 2^-(c v²): from one row to the next the
// vector p is multiplied by the vector r, and the last factor comes from a table. Rows are walked from the middle of
// the strip both ways, so that rounding errors stay below 1e-6 of the peak. Where intermediate values would leave the range
// of a float (strong correlation of x and y: `steep`), each row is computed afresh.
//
// Every pixel sums its Gaussians in their order and every Gaussian its pixels in theirs, whatever the threads do.
#include "simd.h"
// gaussian.h needs the functions of simd.h declared before it.
#include "kernels.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <type_traits>
#include <vector>

namespace predgsplat::cpu {
namespace {

// Largest power of two by which one row of a Gaussian may differ from the next; twice that is still a float.
constexpr float MAX_SLOPE = 60.0f;

// A task of less than this is not worth waking a thread for. A strip row takes about 3 ns.
constexpr double TASK_ROWS = 10e3;

// One Gaussian in a frame.
struct Shape {
  int x, y;                      // whole pixel of the centre
  int left, right, top, bottom;  // first and last offset in pixels, within reach and frame; lattice points of a lattice
  bool steep;                    // rows must be computed one by one
  float fraction_x, fraction_y, a, b, c;
  float det;                    // a c - b²
  float ratio, inverse_ratio;   // 2^2b and 2^-2b
  float tip;                    // u at which the ellipse of reach extends farthest down
};

// LANES Gaussians of one frame, prepared all at once.
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

// `count` values from `from`, then zeros: the last vector of an array must not be read beyond its end.
template <int STRIDE>
Lanes load_some(const float* from, int count) {
  if (count == LANES) return STRIDE == 1 ? load(from) : load_strided(from);
  Lanes x{};
  for (int i = 0; i < count; ++i) x[i] = from[STRIDE * i];
  return x;
}

Block::Block(const Problem& problem, int64_t first, int count_) : count(count_) {
  const Geometry& geometry = problem.geometry;
  const float *coords = problem.coords + 2 * first, *scale = problem.scale + 2 * first;
  const Lanes mu_x = load_some<2>(coords, count), mu_y = load_some<2>(coords + 1, count);
  const Lanes s1 = load_some<2>(scale, count), s2 = load_some<2>(scale + 1, count);
  const Lanes theta = load_some<1>(problem.rotation + first, count);
  const Gaussian<Lanes> g = prepare(mu_x, mu_y, s1, s2, theta, geometry);
  const Ints is_finite = finite(mu_x) & finite(mu_y) & finite(s1) & finite(s2) & finite(theta);

  const auto whole = [&](Lanes x) { return zero_unless(is_finite, smaller(larger(x, -FAR), FAR)); };
  const Lanes x = whole(g.x), y = whole(g.y);
  const Lanes reach_x = smaller(g.reach_x, geometry.radius), reach_y = smaller(g.reach_y, geometry.radius);
  const float width = static_cast<float>(geometry.width), height = static_cast<float>(geometry.height);
  Lanes left, right, top, bottom;
  if (geometry.analytic) {
    left = larger(-floor(reach_x - g.fraction_x), -x);
    right = smaller(floor(reach_x + g.fraction_x), width - 1 - x);
    top = larger(-floor(reach_y - g.fraction_y), -y);
    bottom = smaller(floor(reach_y + g.fraction_y), height - 1 - y);
  } else {
    // A lattice point before the frame still reaches its first pixel.
    left = larger(-floor(reach_x), -1 - x);
    right = smaller(floor(reach_x), width - 1 - x);
    top = larger(-floor(reach_y), -1 - y);
    bottom = smaller(floor(reach_y), height - 1 - y);
  }
  // Exponents along the walk stay within ±126 if the correlation of x and y is moderate: 1 - ρ² = det/(a c).
  const Ints steep = (g.det < 0.3f * (g.a * g.c)) | (2.0f * absolute(g.b) * (reach_x + 1.0f) > MAX_SLOPE);
  const Ints visible = is_finite & (left <= right) & (top <= bottom);
  const auto integers = [&](Lanes v) { return __builtin_convertvector(zero_unless(visible, v), Ints); };
  const Lanes slope = zero_unless(~steep, 2.0f * g.b);
  x_ = integers(x), y_ = integers(y);
  left_ = integers(left), right_ = integers(right), top_ = integers(top), bottom_ = integers(bottom);
  visible_ = visible, steep_ = steep, finite_ = is_finite;
  fraction_x_ = g.fraction_x, fraction_y_ = g.fraction_y;
  a_ = g.a, b_ = g.b, c_ = g.c, det_ = g.det;
  ratio_ = exp2(slope), inverse_ratio_ = exp2(-slope);
  tip_ = -g.b * square_root(CUT / (g.a * g.det));
}

// Shares of a Gaussian's row v: own[v] of it falls on its own row of pixels and next[v] on the one below, a centre
// between two rows counting to both. Both hold the factor 2^-(c v²), except of steep Gaussians.
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

  // From factors of a vector of rows that are known already, the first of them `first`.
  PREDGSPLAT_INLINE void fill(Lanes factors, int first, float fraction, float scale) {
    store(own_.data(), (1.0f - fraction) * scale * factors);
    store(next_.data(), fraction * scale * factors);
    own = own_.data() - first;
    next = next_.data() - first;
  }

  const float *own = nullptr, *next = nullptr;

 private:
  static int most_rows(const Geometry& geometry) {
    const int lattice = geometry.radius < geometry.height ? 2 * static_cast<int>(geometry.radius) + 1 : geometry.height + 1;
    return std::min(lattice, geometry.height + 1);
  }

  size_t capacity_;
  std::vector<float> own_, next_;
};

// First and last row in which a Gaussian reaches the columns u1 to u2, counted from the centre.
template <bool ANALYTIC>
PREDGSPLAT_INLINE void rows_in_reach(const Shape& g, float u1, float u2, int& top, int& bottom) {
  const float offset = ANALYTIC ? g.fraction_y : 0.0f, inverse = 1.0f / g.c;
  const float low = std::clamp(g.tip, u1, u2), high = std::clamp(-g.tip, u1, u2);
  const float below = std::sqrt(std::max(CUT * g.c - g.det * low * low, 0.0f));
  const float above = std::sqrt(std::max(CUT * g.c - g.det * high * high, 0.0f));
  // In float, before they are integers: c may be so small that they are not.
  bottom = static_cast<int>(std::min(std::floor((below - g.b * low) * inverse + offset), static_cast<float>(g.bottom)));
  top = static_cast<int>(std::max(std::ceil((-above - g.b * high) * inverse + offset), static_cast<float>(g.top)));
}

// One column strip of a Gaussian, as it is walked row by row. `p` is its value but for the row's factor; a lattice is
// moved right by a fraction, which adds the neighbour's share `q`.
template <bool STEEP, bool ANALYTIC>
struct Strip {
  const Shape& g;
  Lanes u;      // columns counted from the centre
  Ints inside;  // lanes within left and right
  Ints inside_q;

  // first: the first column, counted from the whole pixel of the centre.
  PREDGSPLAT_INLINE Strip(const Shape& shape, int first) : g(shape) {
    const Lanes column = lane_numbers() + static_cast<float>(first);
    const float left = static_cast<float>(g.left), right = static_cast<float>(g.right);
    inside = (column >= left) & (column <= right);
    inside_q = (column >= left + 1.0f) & (column <= right + 1.0f);
    u = ANALYTIC ? column - g.fraction_x : column;
  }

  // The value in row v at columns `at`, but for the row's factor.
  PREDGSPLAT_INLINE Lanes value(Lanes at, float v) const {
    if constexpr (!STEEP) return exp2(-at * (g.a * at + 2.0f * g.b * v));
    const Lanes t = at + (g.b / g.a) * v;
    return exp2(-(g.a * t * t + (g.det / g.a) * (v * v)));
  }

  // The row from which the strip is walked: the middle, or the centre's, whose moments then are 0 without rounding.
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

  // What p is multiplied by from one row to the next, and to the one before. Columns outside of the Gaussian hold
  // zeros, which must meet no infinity.
  PREDGSPLAT_INLINE Lanes slope() const { return larger(smaller((2.0f * g.b) * u, MAX_SLOPE), -MAX_SLOPE); }
  PREDGSPLAT_INLINE Lanes ratio_down() const { return exp2(-slope()); }
  PREDGSPLAT_INLINE Lanes ratio_up() const { return exp2(slope()); }
};

// The strips of a Gaussian: as many as its columns need, shifted left if they would end beyond `end`.
struct Strips {
  int column, count;

  Strips(int first, int last, int end) : count((last - first + LANES) / LANES) {
    column = std::min(first, end - count * LANES);
  }
};

template <bool ANALYTIC>
Strips pixel_strips(const Shape& g, int64_t padded_width) {
  const int end = static_cast<int>(padded_width);
  return {std::max(g.x + g.left, 0), std::min(g.x + g.right + (ANALYTIC ? 0 : 1), end - 1), end};
}

Strips lattice_strips(const Shape& g) { return {g.x + g.left, g.x + g.right, INT32_MAX}; }

// A lattice of up to 15 points fits into one strip of 16 lanes and needs 2^-(a u²) and 2^-(c v²) at eight distances
// each: one vector for both, from which lanes are picked. All of a block are prepared at once, so that a processor can
// work at several; one after the other they would wait for their exponentials.
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

  // 2^-(a u²) for whole |u| <= 7; of others, anything.
  PREDGSPLAT_INLINE Lanes along_x(Lanes u) const { return pick(powers, absolute(u)); }

  // 2^-(c v²) for v = -7, -6, ..., 7; the last lane is not used.
  PREDGSPLAT_INLINE Lanes rows() const {
    return pick(powers, absolute(lane_numbers() - static_cast<float>(RADIUS)) + static_cast<float>(RADIUS + 1));
  }
};

// The small lattices of a block, where there are any.
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

// Rows of one image that a task may write. pixels: row 0.
struct Canvas {
  float* pixels;
  int64_t stride, plane;
  int top, bottom;  // first row, and one beyond the last
  const float* amplitudes;
  int64_t channels;

  bool holds(int first, int last) const { return first >= top && last < bottom; }

  // Adds own·x + next·y. SINGLE: one channel, whose amplitude is in these factors already.
  template <bool SINGLE, bool CLIPPED>
  PREDGSPLAT_INLINE void add(int row, int column, float own, Lanes x, float next, Lanes y) const {
    if (CLIPPED && !holds(row, row)) return;
    float* at = pixels + row * stride + column;
    if constexpr (SINGLE) return store(at, load(at) + own * x + next * y);
    const Lanes value = own * x + next * y;
    for (int64_t c = 0; c < channels; ++c) store(at + c * plane, load(at + c * plane) + amplitudes[c] * value);
  }
};

// small: nullptr, or a SmallLattice, which saves computing exponentials.
template <bool STEEP, bool ANALYTIC, bool SINGLE, bool CLIPPED, class Small>
PREDGSPLAT_INLINE void draw_strip(const Shape g, const RowShares& rows_, const Canvas& canvas_, int column, int top,
                                  int bottom, Small small) {
  constexpr bool SMALL = !std::is_null_pointer_v<Small>;
  const Canvas canvas = canvas_;
  const struct { const float *own, *next; } rows{rows_.own, rows_.next};
  const Strip<STEEP, ANALYTIC> strip(g, column - g.x);
  const float offset = ANALYTIC ? g.fraction_y : 0.0f;
  const int start = SMALL ? 0 : strip.start(top, bottom);
  const float v0 = static_cast<float>(start) - offset;
  Lanes p_down, q_down{}, r{}, r_inverse{}, rq{}, rq_inverse{};
  if constexpr (SMALL) {
    p_down = strip.p(small->along_x(strip.u));
    q_down = strip.q(small->along_x(strip.u - 1.0f));
  } else {
    p_down = strip.p(v0);
    if constexpr (!ANALYTIC) q_down = strip.q(v0);
  }
  Lanes p_up = p_down, q_up = q_down;
  if constexpr (!STEEP) {
    if constexpr (SMALL)
      r = small->ratio_down, r_inverse = small->ratio_up;
    else
      r = strip.ratio_down(), r_inverse = strip.ratio_up();
    rq = r * g.ratio, rq_inverse = r_inverse * g.inverse_ratio;
  }
  const auto down = [&](int v) PREDGSPLAT_LAMBDA -> Lanes {
    if constexpr (STEEP) {
      const float at = static_cast<float>(v) - offset;
      return ANALYTIC ? strip.p(at) : strip.p(at) + strip.q(at);
    }
    p_down *= r;
    if constexpr (ANALYTIC) return p_down;
    q_down *= rq;
    return p_down + q_down;
  };
  const auto up = [&](int v) PREDGSPLAT_LAMBDA -> Lanes {
    if constexpr (STEEP) return down(v);
    p_up *= r_inverse;
    if constexpr (ANALYTIC) return p_up;
    q_up *= rq_inverse;
    return p_up + q_up;
  };
  const auto add = [&](int v, float own, Lanes x, float next, Lanes y) PREDGSPLAT_LAMBDA {
    canvas.template add<SINGLE, CLIPPED>(g.y + v, column, own, x, next, y);
  };
  Lanes above = ANALYTIC ? p_down : p_down + q_down, below = above;
  if constexpr (ANALYTIC) {
    add(start, rows.own[start], above, 0.0f, Lanes{});
    for (int v = start + 1; v <= bottom; ++v) add(v, rows.own[v], down(v), 0.0f, Lanes{});
    for (int v = start - 1; v >= top; --v) add(v, rows.own[v], up(v), 0.0f, Lanes{});
    return;
  }
  const auto step_down = [&](int v) PREDGSPLAT_LAMBDA {
    const Lanes row = down(v);
    add(v, rows.own[v], row, rows.next[v - 1], above);
    above = row;
  };
  const auto step_up = [&](int v) PREDGSPLAT_LAMBDA {
    const Lanes row = up(v);
    add(v + 1, rows.own[v + 1], below, rows.next[v], row);
    below = row;
  };
  // Both ways at once: two chains of dependent products instead of one.
  const int both = std::min(start - top, bottom - start);
  for (int k = 1; k <= both; ++k) {
    step_down(start + k);
    step_up(start - k);
  }
  for (int v = start + both + 1; v <= bottom; ++v) step_down(v);
  for (int v = start - both - 1; v >= top; --v) step_up(v);
  add(bottom + 1, rows.next[bottom], above, 0.0f, Lanes{});
  add(top, rows.own[top], below, 0.0f, Lanes{});
}

template <bool STEEP, bool ANALYTIC, bool SINGLE, class Small>
PREDGSPLAT_INLINE void draw_strip_where_it_falls(const Shape& g, const RowShares& rows, const Canvas& canvas, int column,
                                                 int top, int bottom, Small small) {
  const int first = g.y + top, last = g.y + bottom + (ANALYTIC ? 0 : 1);
  if (canvas.holds(first, last))
    draw_strip<STEEP, ANALYTIC, SINGLE, false>(g, rows, canvas, column, top, bottom, small);
  else if (top <= bottom && last >= canvas.top && first < canvas.bottom)
    draw_strip<STEEP, ANALYTIC, SINGLE, true>(g, rows, canvas, column, top, bottom, small);
}

template <bool STEEP, bool ANALYTIC, bool SINGLE>
PREDGSPLAT_INLINE void draw(const Shape& g, RowShares& rows, const Canvas& canvas, const Strips& strips, float scale) {
  rows.fill<STEEP, ANALYTIC>(g, ANALYTIC ? 0.0f : g.fraction_y, scale);
  int column = strips.column;
  if (strips.count == 1)
    return draw_strip_where_it_falls<STEEP, ANALYTIC, SINGLE>(g, rows, canvas, column, g.top, g.bottom, nullptr);
  for (int i = 0; i < strips.count; ++i, column += LANES) {
    const float u1 = static_cast<float>(column - g.x) - (ANALYTIC ? g.fraction_x : 1.0f);
    int top, bottom;
    rows_in_reach<ANALYTIC>(g, u1, u1 + LANES, top, bottom);
    if (top <= bottom) draw_strip_where_it_falls<STEEP, ANALYTIC, SINGLE>(g, rows, canvas, column, top, bottom, nullptr);
  }
}

template <bool ANALYTIC, bool SINGLE>
PREDGSPLAT_INLINE void draw_any(const Shape& g, RowShares& rows, const Canvas& canvas, const Strips& strips,
                                const SmallLattice* small, float scale) {
  if (!ANALYTIC && SmallLattice::POSSIBLE && small) {
    rows.fill(small->rows(), -SmallLattice::RADIUS, g.fraction_y, scale);
    draw_strip_where_it_falls<false, false, SINGLE>(g, rows, canvas, strips.column, g.top, g.bottom, small);
  } else if (g.steep) {
    draw<true, ANALYTIC, SINGLE>(g, rows, canvas, strips, scale);
  } else {
    draw<false, ANALYTIC, SINGLE>(g, rows, canvas, strips, scale);
  }
}

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Pixels per row while drawing: whole vectors, unless every Gaussian's strips fit into the frame as it is.
int64_t drawing_width(const Geometry& geometry) {
  const int64_t widest = geometry.radius < geometry.width ? 2 * static_cast<int64_t>(geometry.radius) + 2 : geometry.width;
  const int64_t needed = round_up(std::min<int64_t>(widest, geometry.width), LANES);
  return needed <= geometry.width ? geometry.width : round_up(geometry.width, LANES);
}

// Draws the rows [top, bottom) of one frame.
template <bool ANALYTIC, bool SINGLE>
void draw_band(const Problem& problem, int64_t frame, int top, int bottom, float* image) {
  const Geometry& geometry = problem.geometry;
  const int64_t width = geometry.width, padded = drawing_width(geometry);
  const int64_t plane = geometry.height * width;
  float* pixels = image + frame * problem.channels * plane;
  std::vector<float> scratch;
  Canvas canvas{pixels, width, plane, top, bottom, nullptr, problem.channels};
  if (padded != width) {
    const int64_t rows = bottom - top;
    scratch.assign(problem.channels * rows * padded, 0.0f);
    canvas.plane = rows * padded;
    canvas.pixels = scratch.data() - top * padded;
    canvas.stride = padded;
  } else {
    for (int64_t c = 0; c < problem.channels; ++c)
      std::fill_n(pixels + c * plane + top * width, (bottom - top) * width, 0.0f);
  }
  RowShares rows(geometry);
  bool finite = true;
  for (int64_t n = 0; n < problem.gaussians; n += LANES) {
    const int64_t first = frame * problem.gaussians + n;
    const Block block(problem, first, static_cast<int>(std::min<int64_t>(LANES, problem.gaussians - n)));
    const SmallLattices<ANALYTIC> small(block, geometry,
                                        [&](const Shape& g) { return pixel_strips<ANALYTIC>(g, padded); });
    for (int i = 0; i < block.count; ++i) {
      finite &= block.all_finite(i);
      if (!block.visible(i)) continue;
      const Shape g = block[i];
      if (g.y + g.bottom + 1 < top || g.y + g.top >= bottom) continue;
      canvas.amplitudes = problem.amplitudes + (first + i) * problem.channels;
      const Strips strips = pixel_strips<ANALYTIC>(g, padded);
      draw_any<ANALYTIC, SINGLE>(g, rows, canvas, strips, small[i], SINGLE ? canvas.amplitudes[0] : 1.0f);
    }
  }
  for (int64_t c = 0; c < problem.channels; ++c) {
    float* to = pixels + c * plane;
    for (int64_t i = top; i < bottom; ++i) {
      if (padded != width) std::copy_n(canvas.pixels + c * canvas.plane + i * padded, width, to + i * width);
      // A frame with a Gaussian that is nowhere must not look like one without it.
      if (!finite) std::fill_n(to + i * width, width, std::nanf(""));
    }
  }
}

// Gradient images with a border of zeros: a row above and below, a column before, and a vector and a column behind.
class Bordered {
 public:
  Bordered(const Geometry& geometry, int64_t images)
      : height_(geometry.height),
        width_(geometry.width),
        stride(geometry.width + LANES + 2),
        plane((geometry.height + 2) * stride),
        pixels_(new float[images * plane]) {}

  // Takes the rows [top, bottom) of one image, and the border beside them.
  void copy(const float* from, int64_t image, int64_t top, int64_t bottom) {
    float* row = pixels_.get() + image * plane + (top + 1) * stride;
    if (top == 0) std::fill_n(row - stride, stride, 0.0f);
    for (int64_t i = top; i < bottom; ++i, row += stride) {
      row[0] = 0.0f;
      std::copy_n(from + image * height_ * width_ + i * width_, width_, row + 1);
      std::fill_n(row + 1 + width_, LANES + 1, 0.0f);
    }
    if (bottom == height_) std::fill_n(row, stride, 0.0f);
  }

  const float* origin(int64_t image) const { return pixels_.get() + image * plane + stride + 1; }

 private:
  int64_t height_, width_;

 public:
  const int64_t stride, plane;

 private:
  std::unique_ptr<float[]> pixels_;
};

// Adds the moments of one strip, column by column. image: a gradient, with what lies around the frame; its pixel (0, 0).
template <bool STEEP, bool ANALYTIC, class Small>
PREDGSPLAT_INLINE void gather_strip(const Shape g, const float* factor, const float* image, int64_t stride, int column,
                                    int top, int bottom, Small small, Moments<Lanes>& moments) {
  constexpr bool SMALL = !std::is_null_pointer_v<Small>;
  const Strip<STEEP, ANALYTIC> strip(g, column - g.x);
  const float offset = ANALYTIC ? g.fraction_y : 0.0f;
  const int start = SMALL ? 0 : strip.start(top, bottom);
  Lanes value, r{}, r_inverse{};
  if constexpr (SMALL)
    value = strip.unmoved(small->along_x(strip.u));
  else
    value = strip.unmoved(static_cast<float>(start) - offset);
  if constexpr (SMALL)
    r = small->ratio_down, r_inverse = small->ratio_up;
  else if constexpr (!STEEP)
    r = strip.ratio_down(), r_inverse = strip.ratio_up();
  Lanes value_up = value;
  Lanes s0{}, sv{}, svv{}, sx{}, sy{};
  const float* at = image + g.y * stride + column;
  const auto next_value = [&](Lanes& current, Lanes ratio, int v) PREDGSPLAT_LAMBDA {
    if constexpr (STEEP)
      current = strip.unmoved(static_cast<float>(v) - offset);
    else
      current *= ratio;
  };
  const auto add = [&](int v, Lanes weight, Lanes gradient) PREDGSPLAT_LAMBDA {
    const float distance = static_cast<float>(v - start);
    const Lanes product = weight * gradient;
    s0 += product;
    sv += distance * product;
    svv += (distance * distance) * product;
  };
  if constexpr (ANALYTIC) {
    add(start, factor[start] * value, load(at + start * stride));
    for (int v = start + 1; v <= bottom; ++v) {
      next_value(value, r, v);
      add(v, factor[v] * value, load(at + v * stride));
    }
    for (int v = start - 1; v >= top; --v) {
      next_value(value_up, r_inverse, v);
      add(v, factor[v] * value_up, load(at + v * stride));
    }
  } else {
    // Of a row of pixels: the gradient moved by the fraction along x, and its derivative by that.
    struct Row {
      Lanes moved, slope;
    };
    const auto row = [&](int v) PREDGSPLAT_LAMBDA -> Row {
      const Lanes left = load(at + v * stride), slope = load(at + v * stride + 1) - left;
      return {left + g.fraction_x * slope, slope};
    };
    const auto add_point = [&](int v, Lanes current, const Row& own, const Row& next) PREDGSPLAT_LAMBDA {
      const Lanes weight = factor[v] * current, down = next.moved - own.moved;
      add(v, weight, own.moved + g.fraction_y * down);
      sx += weight * (own.slope + g.fraction_y * (next.slope - own.slope));
      sy += weight * down;
    };
    Row above = row(start), below = row(start + 1);
    add_point(start, value, above, below);
    const auto step_down = [&](int v) PREDGSPLAT_LAMBDA {
      next_value(value, r, v);
      const Row next = row(v + 1);
      add_point(v, value, below, next);
      below = next;
    };
    const auto step_up = [&](int v) PREDGSPLAT_LAMBDA {
      next_value(value_up, r_inverse, v);
      const Row own = row(v);
      add_point(v, value_up, own, above);
      above = own;
    };
    const int both = std::min(start - top, bottom - start);
    for (int k = 1; k <= both; ++k) {
      step_down(start + k);
      step_up(start - k);
    }
    for (int v = start + both + 1; v <= bottom; ++v) step_down(v);
    for (int v = start - both - 1; v >= top; --v) step_up(v);
  }
  add_column(moments, strip.u, broadcast(-g.b / g.c), broadcast(static_cast<float>(start) - offset), s0, sv, svv);
  moments.sx += sx;
  moments.sy += sy;
}

template <bool STEEP, bool ANALYTIC>
PREDGSPLAT_INLINE void gather(const Shape& g, RowShares& rows, const float* image, int64_t stride,
                              Moments<Lanes>& moments) {
  rows.fill<STEEP, ANALYTIC>(g, 0.0f, 1.0f);
  const Strips strips = lattice_strips(g);
  int column = strips.column;
  for (int i = 0; i < strips.count; ++i, column += LANES) {
    int top = g.top, bottom = g.bottom;
    const float u1 = static_cast<float>(column - g.x) - (ANALYTIC ? g.fraction_x : 0.0f);
    if (strips.count > 1) rows_in_reach<ANALYTIC>(g, u1, u1 + (LANES - 1), top, bottom);
    if (top <= bottom) gather_strip<STEEP, ANALYTIC>(g, rows.own, image, stride, column, top, bottom, nullptr, moments);
  }
}

// The moments of one Gaussian, in the order of Moments.
template <bool ANALYTIC>
PREDGSPLAT_INLINE void gather_any(const Shape& g, RowShares& rows, const float* image, int64_t stride,
                                  const SmallLattice* small, float* sums) {
  Moments<Lanes> m{};
  if (!ANALYTIC && SmallLattice::POSSIBLE && small) {
    rows.fill(small->rows(), -SmallLattice::RADIUS, 0.0f, 1.0f);
    gather_strip<false, false>(g, rows.own, image, stride, g.x + g.left, g.top, g.bottom, small, m);
  } else if (g.steep) {
    gather<true, ANALYTIC>(g, rows, image, stride, m);
  } else {
    gather<false, ANALYTIC>(g, rows, image, stride, m);
  }
  const Lanes each[8] = {m.s0, m.su, m.sw, m.suu, m.suw, m.sww, m.sx, m.sy};
  sums_of_eight(each, sums);
}

// For several channels: the part of the frame that one Gaussian touches, with the Gaussian drawn into it and the
// gradients of all channels added up, each times its amplitude. The moments are then those of a single channel.
class Window {
 public:
  explicit Window(const Geometry& geometry) {
    const int64_t diameter = geometry.radius < FAR ? 2 * static_cast<int64_t>(geometry.radius) + 2 : INT32_MAX;
    const int64_t rows = std::min<int64_t>(diameter, geometry.height + 2);
    const int64_t columns = round_up(std::min<int64_t>(diameter, geometry.width + 2), LANES) + LANES;
    drawn_.resize(rows * columns);
    weighted_.resize(rows * columns);
  }

  // channels: pixel (0, 0) of the first. Writes the gradients of the amplitudes.
  template <bool ANALYTIC>
  void fill(const Shape& g, RowShares& rows, const float* channels, int64_t channel_stride, int64_t plane,
            const float* amplitudes, int64_t count, float* grad_amplitudes) {
    const int first = g.x + g.left, last = g.x + g.right + (ANALYTIC ? 0 : 1);
    top_ = g.y + g.top, left_ = first;
    const int height = g.bottom - g.top + (ANALYTIC ? 1 : 2);
    const int vectors = (last - first + LANES) / LANES;
    stride = (vectors + 1) * LANES;
    std::fill_n(drawn_.data(), height * stride, 0.0f);
    std::fill_n(weighted_.data(), height * stride, 0.0f);
    const Canvas canvas{drawn_.data() - top_ * stride - left_, stride, 0, top_, top_ + height, nullptr, 1};
    draw_any<ANALYTIC, true>(g, rows, canvas, pixel_strips<ANALYTIC>(g, first + stride), nullptr, 1.0f);
    const float* from = channels + top_ * channel_stride + left_;
    for (int64_t c = 0; c < count; ++c) {
      Lanes total{};
      for (int i = 0; i < height; ++i)
        for (int j = 0; j < vectors * LANES; j += LANES) {
          const Lanes gradient = load(from + c * plane + i * channel_stride + j);
          float* weighted = weighted_.data() + i * stride + j;
          total += load(drawn_.data() + i * stride + j) * gradient;
          store(weighted, load(weighted) + amplitudes[c] * gradient);
        }
      grad_amplitudes[c] = sum(total);
    }
  }

  const float* origin() const { return weighted_.data() - top_ * stride - left_; }

  int64_t stride = 0;

 private:
  int top_ = 0, left_ = 0;
  std::vector<float> drawn_, weighted_;
};

// The gradients of Gaussians [from, to) of one frame.
template <bool ANALYTIC>
void gather_range(const Problem& problem, int64_t frame, int64_t from, int64_t to, const Bordered& images,
                  int64_t first_image, const InputGradients& gradients) {
  const Geometry& geometry = problem.geometry;
  const int64_t C = problem.channels;
  const float* origin = images.origin(first_image);
  RowShares rows(geometry);
  std::optional<Window> window;
  if (C > 1) window.emplace(geometry);
  for (int64_t n = from; n < to; n += LANES) {
    const int count = static_cast<int>(std::min<int64_t>(LANES, to - n));
    const int64_t first = frame * problem.gaussians + n;
    const Block block(problem, first, count);
    const SmallLattices<ANALYTIC> small(block, geometry, lattice_strips);
    Moments<Lanes> m{};
    Lanes* const by_name[8] = {&m.s0, &m.su, &m.sw, &m.suu, &m.suw, &m.sww, &m.sx, &m.sy};
    for (int i = 0; i < count; ++i) {
      const float* amplitudes = problem.amplitudes + (first + i) * C;
      float* grad_amplitudes = gradients.amplitudes + (first + i) * C;
      std::fill_n(grad_amplitudes, C, block.all_finite(i) ? 0.0f : std::nanf(""));
      if (!block.visible(i)) continue;
      const Shape g = block[i];
      float sums[8];
      if (C == 1) {
        gather_any<ANALYTIC>(g, rows, origin, images.stride, small[i], sums);
        grad_amplitudes[0] = sums[0];
        for (float& x : sums) x *= amplitudes[0];
      } else {
        window->fill<ANALYTIC>(g, rows, origin, images.stride, images.plane, amplitudes, C, grad_amplitudes);
        gather_any<ANALYTIC>(g, rows, window->origin(), window->stride, small[i], sums);
      }
      for (int k = 0; k < 8; ++k) (*by_name[k])[i] = sums[k];
    }
    const float *scale = problem.scale + 2 * first, *rotation = problem.rotation + first;
    const Gradients<Lanes> d =
        adjoint(m, load_some<2>(scale, count), load_some<2>(scale + 1, count), load_some<1>(rotation, count), geometry);
    for (int i = 0; i < count; ++i) {
      const float lost = block.all_finite(i) ? 0.0f : std::nanf("");
      gradients.coords[2 * (first + i)] = d.mu_x[i] + lost;
      gradients.coords[2 * (first + i) + 1] = d.mu_y[i] + lost;
      gradients.scale[2 * (first + i)] = d.s1[i] + lost;
      gradients.scale[2 * (first + i) + 1] = d.s2[i] + lost;
      gradients.rotation[first + i] = d.theta[i] + lost;
    }
  }
}

// Runs body(task) for each task on torch's threads.
template <class Body>
void in_parallel(int64_t tasks, const Body& body) {
  if (tasks == 1) return body(0);
  parallel(tasks, [](int64_t task, void* context) { (*static_cast<const Body*>(context))(task); }, const_cast<Body*>(&body));
}

// Tasks per frame: one, unless there are fewer frames than threads and each is worth dividing.
int64_t tasks_per_frame(const Problem& problem) {
  const Geometry& geometry = problem.geometry;
  const double width = std::min(2.0 * geometry.radius + 2, 1.0 * geometry.width);
  const double height = std::min(2.0 * geometry.radius + 2, 1.0 * geometry.height);
  // Half of a window lies out of reach on the average, and to prepare a Gaussian costs as much as eight rows.
  const double rows = problem.gaussians * (8 + 0.5 * height * std::max(1.0, width / LANES) * (1 + problem.channels / 4));
  const int64_t worthwhile = static_cast<int64_t>(rows / TASK_ROWS);
  const int64_t wanted = (threads() + problem.frames - 1) / problem.frames;
  return std::clamp<int64_t>(std::min(worthwhile, wanted), 1, geometry.height);
}

}  // namespace

void forward(const Problem& problem, float* image) {
  if (problem.frames == 0 || problem.channels == 0) return;
  const int64_t bands = tasks_per_frame(problem);
  const int height = problem.geometry.height;
  in_parallel(problem.frames * bands, [&](int64_t task) {
    const FlushDenormals flush;
    const int64_t band = task % bands;
    const int top = static_cast<int>(height * band / bands), bottom = static_cast<int>(height * (band + 1) / bands);
    const auto draw = problem.geometry.analytic ? (problem.channels == 1 ? draw_band<true, true> : draw_band<true, false>)
                                                : (problem.channels == 1 ? draw_band<false, true> : draw_band<false, false>);
    draw(problem, task / bands, top, bottom, image);
  });
}

void backward(const Problem& problem, const float* grad_image, const InputGradients& gradients) {
  const int64_t P = problem.frames, N = problem.gaussians, C = problem.channels, height = problem.geometry.height;
  if (P == 0 || N == 0) return;
  const auto gather = problem.geometry.analytic ? gather_range<true> : gather_range<false>;
  const int64_t parts = tasks_per_frame(problem);
  const auto part_of = [&](int64_t n, int64_t part) { return n * part / parts; };
  // A frame of one task is copied by that task, into memory of its own; frames of several, beforehand for all.
  const Bordered shared(problem.geometry, parts > 1 ? P * C : 0);
  if (parts > 1)
    in_parallel(P * parts, [&](int64_t task) {
      for (int64_t c = 0; c < C; ++c)
        const_cast<Bordered&>(shared).copy(grad_image, task / parts * C + c, part_of(height, task % parts),
                                           part_of(height, task % parts + 1));
    });
  in_parallel(P * parts, [&](int64_t task) {
    const FlushDenormals flush;
    const int64_t frame = task / parts, part = task % parts;
    if (parts > 1) return gather(problem, frame, part_of(N, part), part_of(N, part + 1), shared, frame * C, gradients);
    Bordered own(problem.geometry, C);
    for (int64_t c = 0; c < C; ++c) own.copy(grad_image + frame * C * height * problem.geometry.width, c, 0, height);
    gather(problem, frame, 0, N, own, 0, gradients);
  });
}

}  // namespace predgsplat::cpu
