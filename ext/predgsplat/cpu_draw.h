// Draws one Gaussian: into a band of the image (cpu_forward.cpp), or into the window in which the gradients of several
// channels are gathered (cpu_backward.cpp).
#pragma once

#include "cpu_shapes.h"

#include <cstddef>
#include <type_traits>

namespace predgsplat::cpu {

// The strips of pixels that a Gaussian draws into, on a row of `padded_width` pixels.
template <bool ANALYTIC>
Strips pixel_strips(const Shape& g, int64_t padded_width) {
  const int end = static_cast<int>(padded_width);
  return {std::max(g.x + g.left, 0), std::min(g.x + g.right + (ANALYTIC ? 0 : 1), end - 1), end};
}

// Rows of one image that a task may write. pixels: row 0.
struct Canvas {
  float* pixels;
  int64_t stride, plane;
  int top, bottom;  // first row, and one beyond the last
  const float* amplitudes;  // of these channels

  bool holds(int row) const { return row >= top && row < bottom; }

  // Adds own·x + next·y. CHANNELS: those of the canvas; `own` and `next` already contain the amplitude of a single one.
  template <int CHANNELS>
  PREDGSPLAT_INLINE void add(int row, int column, float own, Lanes x, float next, Lanes y) const {
    float* at = pixels + row * stride + column;
    if constexpr (CHANNELS == 1) return store(at, load(at) + own * x + next * y);
    const Lanes value = own * x + next * y;
    // Loads before stores: a processor takes a load for one of a recent store whose address differs by 4096 bytes.
    Lanes sums[CHANNELS];
    for (int c = 0; c < CHANNELS; ++c) sums[c] = load(at + c * plane) + amplitudes[c] * value;
    for (int c = 0; c < CHANNELS; ++c) store(at + c * plane, sums[c]);
  }
};

// The values of a strip without the factors of its rows: first row `start`, then row by row down and up from it.
template <bool STEEP, bool ANALYTIC>
class StripValues {
 public:
  PREDGSPLAT_INLINE StripValues(const Strip<STEEP, ANALYTIC>& strip, int start, std::nullptr_t) : strip_(strip) {
    const float v = static_cast<float>(start) - strip.offset();
    p_down_ = strip.p(v);
    if constexpr (!ANALYTIC) q_down_ = strip.q(v);
    if constexpr (!STEEP) set_ratios(strip.ratio_down(), strip.ratio_up());
    p_up_ = p_down_, q_up_ = q_down_;
  }

  PREDGSPLAT_INLINE StripValues(const Strip<STEEP, ANALYTIC>& strip, int, const SmallLattice* small) : strip_(strip) {
    p_down_ = strip.p(small->along_x(strip.u));
    q_down_ = strip.q(small->along_x(strip.u - 1.0f));
    set_ratios(small->ratio_down, small->ratio_up);
    p_up_ = p_down_, q_up_ = q_down_;
  }

  PREDGSPLAT_INLINE Lanes first() const { return ANALYTIC ? p_down_ : p_down_ + q_down_; }

  PREDGSPLAT_INLINE Lanes down(int v) {
    if constexpr (STEEP) return directly(v);
    p_down_ *= r_;
    if constexpr (ANALYTIC) return p_down_;
    q_down_ *= rq_;
    return p_down_ + q_down_;
  }

  PREDGSPLAT_INLINE Lanes up(int v) {
    if constexpr (STEEP) return directly(v);
    p_up_ *= r_inverse_;
    if constexpr (ANALYTIC) return p_up_;
    q_up_ *= rq_inverse_;
    return p_up_ + q_up_;
  }

 private:
  PREDGSPLAT_INLINE void set_ratios(Lanes down, Lanes up) {
    r_ = down, r_inverse_ = up;
    rq_ = r_ * strip_.g.ratio, rq_inverse_ = r_inverse_ * strip_.g.inverse_ratio;
  }

  PREDGSPLAT_INLINE Lanes directly(int row) const {
    const float v = static_cast<float>(row) - strip_.offset();
    return ANALYTIC ? strip_.p(v) : strip_.p(v) + strip_.q(v);
  }

  const Strip<STEEP, ANALYTIC>& strip_;
  Lanes p_down_, q_down_{}, p_up_, q_up_, r_{}, r_inverse_{}, rq_{}, rq_inverse_{};
};

// One strip evaluated at the pixels: every row of it falls on one row of pixels.
template <class Values, class Add>
PREDGSPLAT_INLINE void draw_pixel_rows(Values& values, const float* own, const Span& span, const Add& add) {
  add(span.start, own[span.start], values.first(), 0.0f, Lanes{});
  for (int v = span.start + 1; v <= span.bottom; ++v) add(v, own[v], values.down(v), 0.0f, Lanes{});
  for (int v = span.start - 1; v >= span.top; --v) add(v, own[v], values.up(v), 0.0f, Lanes{});
}

// One strip of a lattice: a row of pixels receives shares of the lattice row at it and of the one above.
// Its first and its last row may lie outside the canvas.
template <class Values, class Add, class AddEnd>
PREDGSPLAT_INLINE void draw_lattice_rows(Values& values, const float* own, const float* next, const Span& span,
                                         const Add& add, const AddEnd& add_end) {
  Lanes above = values.first(), below = above;
  const auto step_down = [&](int v) PREDGSPLAT_LAMBDA {
    const Lanes row = values.down(v);
    add(v, own[v], row, next[v - 1], above);
    above = row;
  };
  const auto step_up = [&](int v) PREDGSPLAT_LAMBDA {
    const Lanes row = values.up(v);
    add(v + 1, own[v + 1], below, next[v], row);
    below = row;
  };
  walk_both_ways(span, step_down, step_up);
  add_end(span.bottom + 1, next[span.bottom], above);
  add_end(span.top, own[span.top], below);
}

// small: nullptr, or a SmallLattice, which saves computing exponentials. Copies, because the stores into the image
// could otherwise change what the arguments refer to, as far as the compiler knows.
template <bool STEEP, bool ANALYTIC, int CHANNELS, bool CLIPPED, class Small>
PREDGSPLAT_INLINE void draw_strip(const Shape g, const RowShares& rows, const Canvas& canvas_, int column, int top,
                                  int bottom, Small small) {
  const Canvas canvas = canvas_;
  const float *own = rows.own, *next = rows.next;
  const Strip<STEEP, ANALYTIC> strip(g, column - g.x);
  const Span span{std::is_null_pointer_v<Small> ? (top + bottom) >> 1 : 0, top, bottom};
  StripValues<STEEP, ANALYTIC> values(strip, span.start, small);
  const auto add = [&](int v, float own, Lanes x, float next, Lanes y) PREDGSPLAT_LAMBDA {
    if (CLIPPED && !canvas.holds(g.y + v)) return;
    canvas.template add<CHANNELS>(g.y + v, column, own, x, next, y);
  };
  const auto add_end = [&](int v, float share, Lanes x) PREDGSPLAT_LAMBDA {
    if (canvas.holds(g.y + v)) canvas.template add<CHANNELS>(g.y + v, column, share, x, 0.0f, Lanes{});
  };
  if constexpr (ANALYTIC)
    draw_pixel_rows(values, own, span, add);
  else
    draw_lattice_rows(values, own, next, span, add, add_end);
}

// Clips a strip to the canvas only where that is a band of the frame, and skips it where it is entirely outside.
template <bool STEEP, bool ANALYTIC, int CHANNELS, class Small>
PREDGSPLAT_INLINE void draw_strip_within(const Shape& g, const RowShares& rows, const Canvas& canvas, int column,
                                         int top, int bottom, Small small) {
  // A lattice reaches one row below its last, and its ends are clipped in any case.
  const int first = g.y + top + (ANALYTIC ? 0 : 1), last = g.y + bottom;
  if (first >= canvas.top && last < canvas.bottom)
    draw_strip<STEEP, ANALYTIC, CHANNELS, false>(g, rows, canvas, column, top, bottom, small);
  else if (last + (ANALYTIC ? 0 : 1) >= canvas.top && g.y + top < canvas.bottom)
    draw_strip<STEEP, ANALYTIC, CHANNELS, true>(g, rows, canvas, column, top, bottom, small);
}

template <bool STEEP, bool ANALYTIC, int CHANNELS, class RowsOf>
PREDGSPLAT_INLINE void draw_strips(const Shape& g, RowShares& rows, const Canvas& canvas, const Strips& strips,
                                   const RowsOf& rows_of, float scale) {
  rows.fill<STEEP, ANALYTIC>(g, ANALYTIC ? 0.0f : g.fraction_y, scale);
  int column = strips.column;
  if (strips.count == 1)
    return draw_strip_within<STEEP, ANALYTIC, CHANNELS>(g, rows, canvas, column, g.top, g.bottom, nullptr);
  for (int i = 0; i < strips.count; ++i, column += LANES) {
    const StripRows::Rows in_reach = rows_of(i);
    if (in_reach.top <= in_reach.bottom)
      draw_strip_within<STEEP, ANALYTIC, CHANNELS>(g, rows, canvas, column, in_reach.top, in_reach.bottom, nullptr);
  }
}

// One Gaussian times `scale`. small: its SmallLattice, or nullptr. rows_of(strip): the rows of each of several strips.
template <bool ANALYTIC, int CHANNELS, class RowsOf>
PREDGSPLAT_INLINE void draw(const Shape& g, RowShares& rows, const Canvas& canvas, const Strips& strips,
                            const SmallLattice* small, const RowsOf& rows_of, float scale) {
  if (!ANALYTIC && SmallLattice::POSSIBLE && small) {
    rows.fill(small->rows(), -SmallLattice::RADIUS, g.fraction_y, scale);
    draw_strip_within<false, false, CHANNELS>(g, rows, canvas, strips.column, g.top, g.bottom, small);
  } else if (g.steep) {
    draw_strips<true, ANALYTIC, CHANNELS>(g, rows, canvas, strips, rows_of, scale);
  } else {
    draw_strips<false, ANALYTIC, CHANNELS>(g, rows, canvas, strips, rows_of, scale);
  }
}

}  // namespace predgsplat::cpu
