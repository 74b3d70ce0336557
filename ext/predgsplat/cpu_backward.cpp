// The gradients on a CPU, gathered: each Gaussian sums the gradient of the image at its own lattice points or pixels,
// strip by strip; the sums (Moments) of LANES Gaussians become the gradients of their parameters together.
#include "cpu_draw.h"
#include "cpu_gradient.h"

#include <optional>

namespace predgsplat::cpu {
namespace {

// The values of a strip at its lattice points or pixels, without the factors of its rows: first row `start`, then row
// by row down and up from it.
template <bool STEEP, bool ANALYTIC>
class LatticeValues {
 public:
  PREDGSPLAT_INLINE LatticeValues(const Strip<STEEP, ANALYTIC>& strip, int start, std::nullptr_t) : strip_(strip) {
    value_down_ = value_up_ = directly(start);
    if constexpr (!STEEP) ratio_down_ = strip.ratio_down(), ratio_up_ = strip.ratio_up();
  }

  PREDGSPLAT_INLINE LatticeValues(const Strip<STEEP, ANALYTIC>& strip, int, const SmallLattice* small)
      : strip_(strip), ratio_down_(small->ratio_down), ratio_up_(small->ratio_up) {
    value_down_ = value_up_ = strip.unmoved(small->along_x(strip.u));
  }

  PREDGSPLAT_INLINE Lanes first() const { return value_down_; }

  PREDGSPLAT_INLINE Lanes down(int v) {
    if constexpr (STEEP) return directly(v);
    return value_down_ *= ratio_down_;
  }

  PREDGSPLAT_INLINE Lanes up(int v) {
    if constexpr (STEEP) return directly(v);
    return value_up_ *= ratio_up_;
  }

 private:
  PREDGSPLAT_INLINE Lanes directly(int row) const {
    return strip_.unmoved(static_cast<float>(row) - strip_.offset());
  }

  const Strip<STEEP, ANALYTIC>& strip_;
  Lanes value_down_, value_up_, ratio_down_{}, ratio_up_{};
};

// The gradient images of CHANNELS channels, and a Gaussian's amplitudes in them: their sum weighted by these counts as
// the gradient of one channel, whose amplitude is 1. at: a pixel of the first channel, and the vector behind it.
template <int CHANNELS>
struct Weighted {
  int64_t plane;
  const float* amplitudes;

  PREDGSPLAT_INLINE Lanes operator()(const Lanes (&gradients)[CHANNELS]) const {
    if constexpr (CHANNELS == 1) return gradients[0];
    Lanes sum = amplitudes[0] * gradients[0];
    for (int c = 1; c < CHANNELS; ++c) sum += amplitudes[c] * gradients[c];
    return sum;
  }

  PREDGSPLAT_INLINE Lanes load_channel(const float* at, int c) const { return load(at + c * plane); }
};

// Zeros, vector by vector: GCC clears a whole struct by an instruction that takes longer.
PREDGSPLAT_INLINE Moments<Lanes> no_moments() {
  const Lanes zero{};
  return {zero, zero, zero, zero, zero, zero, zero, zero};
}

// Sums over the lattice points or pixels of a Gaussian; each: of the gradient of each channel, if there are several.
template <int CHANNELS>
struct Sums {
  Moments<Lanes> moments;
  Lanes each[CHANNELS];

  PREDGSPLAT_INLINE Sums() : moments(no_moments()) {
    for (Lanes& one : each) one = Lanes{};
  }
};

// Sums over the rows of each column of a strip: the weighted gradient times 1, v - start and (v - start)², its
// derivatives by the shift, and the gradient of each channel.
template <int CHANNELS>
struct ColumnSums {
  Lanes sv{}, svv{}, sx{}, sy{}, each[CHANNELS]{};

  PREDGSPLAT_INLINE void add(Lanes rows_from_start, Lanes product) {
    const Lanes moment = rows_from_start * product;
    sv += moment;
    svv += rows_from_start * moment;
  }
};

// at: the gradient in the first column of the strip, in row 0: that of the whole pixel of the centre.
template <int CHANNELS, class Values>
PREDGSPLAT_INLINE void gather_pixel_rows(Values& values, const float* factor, const float* at, int64_t stride,
                                         const Weighted<CHANNELS>& weighted, const Span& span,
                                         ColumnSums<CHANNELS>& sums) {
  Lanes distance{};
  const auto add = [&](int v, Lanes value) PREDGSPLAT_LAMBDA {
    Lanes gradients[CHANNELS];
    const Lanes weight = factor[v] * value;
    for (int c = 0; c < CHANNELS; ++c) gradients[c] = weighted.load_channel(at + v * stride, c);
    sums.add(distance, weight * weighted(gradients));
    for (int c = 0; c < CHANNELS; ++c) sums.each[c] += weight * gradients[c];
  };
  add(span.start, values.first());
  for (int v = span.start + 1; v <= span.bottom; ++v) distance += 1.0f, add(v, values.down(v));
  distance = Lanes{};
  for (int v = span.start - 1; v >= span.top; --v) distance -= 1.0f, add(v, values.up(v));
}

// A row of the gradient, interpolated at the lattice points along x, and its derivative by the fraction.
template <int CHANNELS>
struct MovedRow {
  Lanes each[CHANNELS];  // interpolated, of each channel
  Lanes moved, slope;    // of their weighted sum

  PREDGSPLAT_INLINE MovedRow(const float* at, const Weighted<CHANNELS>& weighted, float fraction_x) {
    Lanes slopes[CHANNELS];
    for (int c = 0; c < CHANNELS; ++c) {
      const Lanes left = weighted.load_channel(at, c);
      slopes[c] = weighted.load_channel(at + 1, c) - left;
      each[c] = left + fraction_x * slopes[c];
    }
    moved = weighted(each), slope = weighted(slopes);
  }
};

// Like gather_pixel_rows, but at lattice points, which lie between pixels. Moments and the derivative by y are summed over
// rows of the lattice, at which the gradient is interpolated; the channels' gradients and the derivative by x over rows of
// pixels, at which the Gaussian is interpolated: once for all channels.
template <int CHANNELS, class Values>
PREDGSPLAT_INLINE void gather_lattice_rows(Values& values, const Shape& g, const float* factor, const float* at,
                                           int64_t stride, const Weighted<CHANNELS>& weighted, const Span& span,
                                           ColumnSums<CHANNELS>& sums) {
  using Row = MovedRow<CHANNELS>;
  const auto row = [&](int v) PREDGSPLAT_LAMBDA { return Row(at + v * stride, weighted, g.fraction_x); };
  const auto add_pixels = [&](const Row& row, Lanes weight) PREDGSPLAT_LAMBDA {
    sums.sx += weight * row.slope;
    for (int c = 0; c < CHANNELS; ++c) sums.each[c] += weight * row.each[c];
  };
  const auto add_lattice = [&](Lanes distance, Lanes weight, Lanes own, Lanes next) PREDGSPLAT_LAMBDA {
    const Lanes down = next - own;
    sums.add(distance, weight * (own + g.fraction_y * down));
    sums.sy += weight * down;
  };
  const Row middle = row(span.start);
  Lanes distance{}, moved = middle.moved, weight = factor[span.start] * values.first();
  add_pixels(middle, weight - g.fraction_y * weight);
  for (int v = span.start + 1; v <= span.bottom; ++v) {
    const Lanes above = weight;
    weight = factor[v] * values.down(v);
    const Row own = row(v);
    add_lattice(distance, above, moved, own.moved);
    add_pixels(own, weight + g.fraction_y * (above - weight));
    distance += 1.0f, moved = own.moved;
  }
  const Row last = row(span.bottom + 1);
  add_lattice(distance, weight, moved, last.moved);
  add_pixels(last, g.fraction_y * weight);
  if (span.start == span.top) return;
  distance = broadcast(-1.0f), moved = middle.moved, weight = factor[span.start - 1] * values.up(span.start - 1);
  add_pixels(middle, g.fraction_y * weight);
  for (int v = span.start - 1; v > span.top; --v) {
    const Lanes below = weight;
    weight = factor[v - 1] * values.up(v - 1);
    const Row own = row(v);
    add_lattice(distance, below, own.moved, moved);
    add_pixels(own, below + g.fraction_y * (weight - below));
    distance -= 1.0f, moved = own.moved;
  }
  const Row first = row(span.top);
  add_lattice(distance, weight, first.moved, moved);
  add_pixels(first, weight - g.fraction_y * weight);
}

// Adds the sums of one strip, which may extend into the border of the image.
template <bool STEEP, bool ANALYTIC, int CHANNELS, class Small>
PREDGSPLAT_INLINE void gather_strip(const Shape g, const float* factor, const GradientImage& image,
                                    const float* amplitudes, int column, int top, int bottom, Small small,
                                    Sums<CHANNELS>& all) {
  const Strip<STEEP, ANALYTIC> strip(g, column - g.x);
  const Span span{std::is_null_pointer_v<Small> ? strip.start(top, bottom) : 0, top, bottom};
  LatticeValues<STEEP, ANALYTIC> values(strip, span.start, small);
  const int64_t stride = image.stride;
  const float* at = image.origin + g.y * stride + column;
  const Weighted<CHANNELS> weighted{image.plane, amplitudes};
  ColumnSums<CHANNELS> sums;
  if constexpr (ANALYTIC)
    gather_pixel_rows(values, factor, at, stride, weighted, span, sums);
  else
    gather_lattice_rows(values, g, factor, at, stride, weighted, span, sums);
  const Lanes v0 = broadcast(static_cast<float>(span.start) - strip.offset());
  add_column(all.moments, strip.u, broadcast(-g.b / g.c), v0, weighted(sums.each), sums.sv, sums.svv);
  for (int c = 0; CHANNELS > 1 && c < CHANNELS; ++c) all.each[c] += sums.each[c];
  all.moments.sx += sums.sx;
  all.moments.sy += sums.sy;
}

template <bool STEEP, bool ANALYTIC, int CHANNELS, class RowsOf>
PREDGSPLAT_INLINE void gather_strips(const Shape& g, RowShares& rows, const GradientImage& image,
                                     const float* amplitudes, const RowsOf& rows_of, Sums<CHANNELS>& sums) {
  rows.fill<STEEP, ANALYTIC>(g, 0.0f, 1.0f);
  const Strips strips = lattice_strips(g);
  int column = strips.column;
  for (int i = 0; i < strips.count; ++i, column += LANES) {
    const StripRows::Rows reach = strips.count > 1 ? rows_of(i) : StripRows::Rows{g.top, g.bottom};
    if (reach.top <= reach.bottom)
      gather_strip<STEEP, ANALYTIC>(g, rows.own, image, amplitudes, column, reach.top, reach.bottom, nullptr, sums);
  }
}

// The moments of one Gaussian, in the order of Moments, of the gradient that its amplitudes weight, and, for several
// channels, the gradients of its amplitudes. small: its SmallLattice, or nullptr.
template <bool ANALYTIC, int CHANNELS, class RowsOf>
PREDGSPLAT_INLINE void gather(const Shape& g, RowShares& rows, const GradientImage& image, const float* amplitudes,
                              const SmallLattice* small, const RowsOf& rows_of, float* moments, float* each) {
  Sums<CHANNELS> sums;
  if (!ANALYTIC && SmallLattice::POSSIBLE && small) {
    rows.fill(small->rows(), -SmallLattice::RADIUS, 0.0f, 1.0f);
    gather_strip<false, false>(g, rows.own, image, amplitudes, g.x + g.left, g.top, g.bottom, small, sums);
  } else if (g.steep) {
    gather_strips<true, ANALYTIC>(g, rows, image, amplitudes, rows_of, sums);
  } else {
    gather_strips<false, ANALYTIC>(g, rows, image, amplitudes, rows_of, sums);
  }
  const Moments<Lanes>& m = sums.moments;
  const Lanes of_moments[8] = {m.s0, m.su, m.sw, m.suu, m.suw, m.sww, m.sx, m.sy};
  sums_of_eight(of_moments, moments);
  if constexpr (CHANNELS > 1)
    for (int c = 0; c < CHANNELS; ++c) each[c] = sum(sums.each[c]);
}

// For many channels: the part of the frame that one Gaussian touches, with the Gaussian drawn into it, and with the
// sum of the channels' gradients, each times its amplitude. The moments are then those of a single channel.
class Window {
 public:
  explicit Window(const Geometry& geometry) : strip_rows_(geometry) {
    const int64_t diameter = geometry.radius < FAR ? 2 * static_cast<int64_t>(geometry.radius) + 2 : INT32_MAX;
    const int64_t rows = std::min<int64_t>(diameter, geometry.height + 2);
    const int64_t columns = round_up(std::min<int64_t>(diameter, geometry.width + 2), LANES) + LANES;
    drawn_.resize(rows * columns);
    weighted_.resize(rows * columns);
  }

  // Writes the gradients of the amplitudes as well.
  template <bool ANALYTIC>
  void fill(const Shape& g, RowShares& rows, const GradientImage& image, const float* amplitudes, int64_t channels,
            float* grad_amplitudes) {
    place<ANALYTIC>(g);
    const Canvas canvas{drawn_.data() - offset(), stride_, 0, top_, top_ + height_, nullptr};
    const Strips strips = pixel_strips<ANALYTIC>(g, left_ + stride_);
    strip_rows_.template fill<ANALYTIC, true>(0, g, strips);
    const auto rows_of = [&](int strip) PREDGSPLAT_LAMBDA { return strip_rows_.at(0, strip); };
    draw<ANALYTIC, 1>(g, rows, canvas, strips, nullptr, rows_of, 1.0f);
    const float* from = image.origin + top_ * image.stride + left_;
    for (int64_t c = 0; c < channels; ++c)
      grad_amplitudes[c] = add_channel(from + c * image.plane, image.stride, amplitudes[c]);
  }

  GradientImage weighted() const { return {weighted_.data() - offset(), stride_, 0}; }

 private:
  template <bool ANALYTIC>
  void place(const Shape& g) {
    const int first = g.x + g.left, last = g.x + g.right + (ANALYTIC ? 0 : 1);
    top_ = g.y + g.top, left_ = first;
    height_ = g.bottom - g.top + (ANALYTIC ? 1 : 2);
    vectors_ = (last - first + LANES) / LANES;
    stride_ = (vectors_ + 1) * LANES;
    std::fill_n(drawn_.data(), height_ * stride_, 0.0f);
    std::fill_n(weighted_.data(), height_ * stride_, 0.0f);
  }

  // Adds the gradient of one channel times its amplitude; returns the gradient of the amplitude.
  float add_channel(const float* from, int64_t from_stride, float amplitude) {
    const float* drawn = drawn_.data();
    float* weighted = weighted_.data();
    const int height = height_, columns = vectors_ * LANES;
    const int64_t stride = stride_;
    Lanes total{};
    for (int i = 0; i < height; ++i, from += from_stride, drawn += stride, weighted += stride)
      for (int j = 0; j < columns; j += LANES) {
        const Lanes gradient = load(from + j);
        total += load(drawn + j) * gradient;
        store(weighted + j, load(weighted + j) + amplitude * gradient);
      }
    return sum(total);
  }

  int64_t offset() const { return top_ * stride_ + left_; }

  int top_ = 0, left_ = 0, height_ = 0, vectors_ = 0;
  int64_t stride_ = 0;
  std::vector<float> drawn_, weighted_;
  StripRows strip_rows_;
};

// Writes the gradients of the parameters, NaN for a Gaussian that is not finite.
void write_gradients(const Gradients<Lanes>& d, const Block& block, int64_t first,
                     const InputGradients& gradients) {
  for (int i = 0; i < block.count; ++i) {
    const float lost = block.all_finite(i) ? 0.0f : std::nanf("");
    gradients.coords[2 * (first + i)] = d.mu_x[i] + lost;
    gradients.coords[2 * (first + i) + 1] = d.mu_y[i] + lost;
    gradients.scale[2 * (first + i)] = d.s1[i] + lost;
    gradients.scale[2 * (first + i) + 1] = d.s2[i] + lost;
    gradients.rotation[first + i] = d.theta[i] + lost;
  }
}

// The Gaussians of one frame, as one task gathers their gradients. CHANNELS: 0 for many.
template <bool ANALYTIC, int CHANNELS>
class Gatherer {
 public:
  Gatherer(const Problem& problem, const GradientImage& image, const InputGradients& gradients)
      : problem_(problem),
        image_(image),
        gradients_(gradients),
        rows_(problem.geometry),
        strip_rows_(problem.geometry) {
    if (CHANNELS == 0) window_.emplace(problem.geometry);
  }

  // At most LANES Gaussians; `first` counts through all frames.
  PREDGSPLAT_INLINE void gather_block(int64_t first, int count) {
    const Geometry& geometry = problem_.geometry;
    const Block block(problem_, first, count);
    const SmallLattices<ANALYTIC> small(block, geometry, lattice_strips);
    strip_rows_.template fill<ANALYTIC, false>(block, lattice_strips);
    Moments<Lanes> m = no_moments();
    Lanes* const by_name[8] = {&m.s0, &m.su, &m.sw, &m.suu, &m.suw, &m.sww, &m.sx, &m.sy};
    for (int i = 0; i < count; ++i) {
      const int64_t C = problem_.channels;
      std::fill_n(gradients_.amplitudes + (first + i) * C, C, block.all_finite(i) ? 0.0f : std::nanf(""));
      if (!block.visible(i)) continue;
      float sums[8];
      const auto rows_of = [&](int strip) PREDGSPLAT_LAMBDA { return strip_rows_.at(i, strip); };
      gather_one(block[i], small[i], rows_of, first + i, sums);
      for (int k = 0; k < 8; ++k) (*by_name[k])[i] = sums[k];
    }
    const Parameters p = read_parameters(problem_, first, count);
    write_gradients(adjoint(m, p.s1, p.s2, p.theta, geometry), block, first, gradients_);
  }

 private:
  // Writes the gradients of the amplitudes of Gaussian n, and its moments weighted by the amplitudes.
  template <class RowsOf>
  PREDGSPLAT_INLINE void gather_one(const Shape g, const SmallLattice* small, const RowsOf& rows_of, int64_t n,
                                    float* sums) {
    const int64_t C = problem_.channels;
    const float* amplitudes = problem_.amplitudes + n * C;
    float* grad_amplitudes = gradients_.amplitudes + n * C;
    const GradientImage image = bordered_ ? image_ : surroundings_.of(g, image_, problem_.geometry, C);
    if constexpr (CHANNELS == 0) {
      window_->template fill<ANALYTIC>(g, rows_, image, amplitudes, C, grad_amplitudes);
      gather<ANALYTIC, 1>(g, rows_, window_->weighted(), nullptr, small, rows_of, sums, nullptr);
    } else {
      gather<ANALYTIC, CHANNELS>(g, rows_, image, amplitudes, small, rows_of, sums, grad_amplitudes);
    }
    if constexpr (CHANNELS == 1) {
      grad_amplitudes[0] = sums[0];
      for (int k = 0; k < 8; ++k) sums[k] *= amplitudes[0];
    }
  }

  const Problem& problem_;
  const GradientImage image_;
  const InputGradients& gradients_;
  const bool bordered_ = !Surroundings::worthwhile(problem_.geometry);
  Surroundings surroundings_;
  RowShares rows_;
  StripRows strip_rows_;
  std::optional<Window> window_;
};

// Gaussians [from, to) of one frame.
template <bool ANALYTIC, int CHANNELS>
void gather_range(const Problem& problem, int64_t frame, int64_t from, int64_t to, const GradientImage& image,
                  const InputGradients& gradients) {
  Gatherer<ANALYTIC, CHANNELS> gatherer(problem, image, gradients);
  for (int64_t n = from; n < to; n += LANES)
    gatherer.gather_block(frame * problem.gaussians + n, static_cast<int>(std::min<int64_t>(LANES, to - n)));
}

template <bool ANALYTIC>
constexpr auto gather_channels(int64_t channels) {
  constexpr decltype(&gather_range<ANALYTIC, 0>) by_count[] = {gather_range<ANALYTIC, 0>, gather_range<ANALYTIC, 1>,
                                                               gather_range<ANALYTIC, 2>, gather_range<ANALYTIC, 3>,
                                                               gather_range<ANALYTIC, 4>};
  return by_count[channels <= 4 ? channels : 0];
}

}  // namespace

void backward(const Problem& problem, const float* grad_image, const InputGradients& gradients) {
  const int64_t P = problem.frames, N = problem.gaussians, C = problem.channels;
  const int64_t height = problem.geometry.height, pixels = height * problem.geometry.width;
  if (P == 0 || N == 0) return;
  const auto gather = problem.geometry.analytic ? gather_channels<true>(C) : gather_channels<false>(C);
  const int64_t parts = tasks_per_frame(problem);
  const auto part_of = [&](int64_t n, int64_t part) { return n * part / parts; };
  if (Surroundings::worthwhile(problem.geometry)) {
    const int64_t width = problem.geometry.width;
    return in_parallel(P * parts, [&](int64_t task) {
      const FlushDenormals flush;
      const int64_t frame = task / parts, part = task % parts;
      const GradientImage image{grad_image + frame * C * pixels, width, pixels};
      gather(problem, frame, part_of(N, part), part_of(N, part + 1), image, gradients);
    });
  }
  // A frame of one task is copied by that task, into memory of its own; frames of several tasks are copied before.
  Bordered shared(problem.geometry, parts > 1 ? P * C : 0);
  if (parts > 1)
    in_parallel(P * parts, [&](int64_t task) {
      const int64_t top = part_of(height, task % parts), bottom = part_of(height, task % parts + 1);
      for (int64_t c = 0; c < C; ++c) shared.copy(grad_image, task / parts * C + c, top, bottom);
    });
  in_parallel(P * parts, [&](int64_t task) {
    const FlushDenormals flush;
    const int64_t frame = task / parts, from = part_of(N, task % parts), to = part_of(N, task % parts + 1);
    if (parts > 1) return gather(problem, frame, from, to, shared.from(frame * C), gradients);
    Bordered own(problem.geometry, C);
    for (int64_t c = 0; c < C; ++c) own.copy(grad_image + frame * C * pixels, c, 0, height);
    gather(problem, frame, 0, N, own.from(0), gradients);
  });
}

}  // namespace predgsplat::cpu
