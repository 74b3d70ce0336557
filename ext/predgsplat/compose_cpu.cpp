// Sorted alpha compositing on a CPU. A frame is divided into bands of rows, the same for any number of threads. In a band
// the Gaussians follow each other front to back, each over its box, in strips of columns as wide as a vector; in the
// backward pass back to front, where dividing by 1 - α restores the transmittance before each of them.
#include "simd.h"
// compose.h needs the functions of simd.h declared before it.
#include "compose.h"
#include "cpu_tasks.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

namespace predgsplat::cpu {
namespace {

constexpr int BAND = 32;             // rows
constexpr int64_t WORTHWHILE = 512;  // Gaussians in a frame for which waking threads pays

// A Gaussian, prepared. Its box in pixels of the frame: first and last, empty if it does not show.
struct Splat {
  float x, y, root, slope, rest, opacity;
  int left, right, top, bottom;

  bool touches(int first, int last) const { return top <= last && bottom >= first; }
};

struct Axis {
  Lanes first, last;
};

// Pixels of a frame of `pixels` that are at most `reach` from a centre.
PREDGSPLAT_INLINE Axis pixels_in_reach(Lanes centre, Lanes reach, int pixels) {
  return {larger(-floor(reach - centre), 0.0f), smaller(floor(centre + reach), static_cast<float>(pixels - 1))};
}

// The Gaussians of one frame, prepared.
class Splats {
 public:
  Splats(const Composition& problem, int64_t frame) : splats_(problem.gaussians) {
    for (int64_t n = 0; n < problem.gaussians; n += LANES)
      prepare(problem, frame * problem.gaussians + n, std::min<int64_t>(LANES, problem.gaussians - n), &splats_[n]);
  }

  bool all_finite() const { return finite_; }
  const Splat& operator[](int64_t n) const { return splats_[n]; }

 private:
  // `first` counts through all frames.
  void prepare(const Composition& problem, int64_t first, int64_t many, Splat* to) {
    const int count = static_cast<int>(many);
    const float *centre = problem.centre + 2 * first, *conic = problem.conic + 3 * first;
    const Lanes x = load_some<2>(centre, count), y = load_some<2>(centre + 1, count);
    const Lanes a = load_some<3>(conic, count), b = load_some<3>(conic + 1, count), c = load_some<3>(conic + 2, count);
    const Lanes opacity = load_some<1>(problem.opacity + first, count);
    const Ints good = finite(x) & finite(y) & finite(a) & finite(b) & finite(c) & finite(opacity);
    finite_ &= !any(~good);
    const Footprint<Lanes> f = footprint(a, b, c, opacity);
    const Axis column = pixels_in_reach(x, f.reach_x, problem.width), row = pixels_in_reach(y, f.reach_y, problem.height);
    const Ints shows = good & (opacity >= MIN_ALPHA) & (column.first <= column.last) & (row.first <= row.last);
    const auto whole = [&](Lanes v) { return __builtin_convertvector(zero_unless(shows, v), Ints); };
    const Ints left = whole(column.first), right = whole(column.last), top = whole(row.first);
    const Ints bottom = whole(row.last) | ~shows;  // -1, above the first row
    for (int i = 0; i < count; ++i)
      to[i] = {x[i],    y[i],     f.root[i], f.slope[i], f.rest[i], opacity[i],
               left[i], right[i], top[i],    bottom[i]};
  }

  std::vector<Splat> splats_;
  bool finite_ = true;
};

// The distances in x of a vector of pixels from a centre.
PREDGSPLAT_INLINE Lanes distance(const Splat& g, int column) {
  return lane_numbers() + (static_cast<float>(column) - g.x);
}

// α in a vector of columns, in `rows` rows from `top`: before it is limited to MAX_ALPHA, and 0 below MIN_ALPHA. Not
// inlined: forward and backward pass must have it to the last digit, or would differ in which Gaussians a pixel takes.
[[gnu::noinline]] void alphas(const Splat& g, int column, int top, int rows, Lanes* alpha) {
  const Lanes dx = distance(g, column);
  const Lanes turned = (g.root * g.slope) * dx, along = -g.rest * dx * dx;
  for (int i = 0; i < rows; ++i) {
    const Lanes t = g.root * (static_cast<float>(top + i) - g.y) + turned;
    const Lanes value = g.opacity * exp2(along - t * t);
    alpha[i] = zero_unless(at_least(value, MIN_ALPHA), value);
  }
}

// Planes of the rows of a band, wide enough for the last strip of a Gaussian at the right border.
class Planes {
 public:
  Planes(int64_t planes, int width) : width_(width), stride_(width + LANES), pixels_(new float[planes * BAND * stride_]) {}

  float* row(int64_t plane, int row) { return pixels_.get() + (plane * BAND + row) * stride_; }
  int64_t stride() const { return stride_; }

  void fill(int64_t plane, float value) { std::fill_n(row(plane, 0), BAND * stride_, value); }

  // Of a frame's plane, the `rows` rows from `from` on; the columns beside the frame become `beside`.
  void copy_from(const float* from, int64_t plane, int rows, float beside) {
    for (int i = 0; i < rows; ++i) {
      std::copy_n(from + i * width_, width_, row(plane, i));
      std::fill_n(row(plane, i) + width_, stride_ - width_, beside);
    }
  }

  void copy_to(float* to, int64_t plane, int rows) {
    for (int i = 0; i < rows; ++i) std::copy_n(row(plane, i), width_, to + i * width_);
  }

 private:
  int64_t width_, stride_;
  std::unique_ptr<float[]> pixels_;
};

// A band of a frame, and the rows of it that a Gaussian touches.
struct Band {
  int top, rows;

  Band(const Composition& problem, int64_t number)
      : top(static_cast<int>(number) * BAND), rows(std::min(BAND, problem.height - top)) {}

  bool touched_by(const Splat& g) const { return g.touches(top, top + rows - 1); }
  int first(const Splat& g) const { return std::max(g.top, top); }
  int count(const Splat& g) const { return std::min(g.bottom, top + rows - 1) + 1 - first(g); }
};

int64_t bands_of(const Composition& problem) { return (problem.height + BAND - 1) / BAND; }

// The forward pass in one band.
class Compositor {
 public:
  explicit Compositor(const Composition& problem)
      : problem_(problem), image_(problem.channels + 1, problem.width), state_(2, problem.width) {}

  void compose(const Splats& splats, int64_t frame, const Band& band, float* image, float* state) {
    for (int64_t c = 0; c <= problem_.channels; ++c) image_.fill(c, splats.all_finite() ? 0.0f : std::nanf(""));
    state_.fill(PASSED, 1.0f);
    state_.fill(TAKEN, static_cast<float>(problem_.gaussians));
    for (int64_t n = 0; n < problem_.gaussians; ++n) {
      const Splat& g = splats[n];
      if (!band.touched_by(g)) continue;
      for (int column = g.left; column <= g.right; column += LANES) add(g, frame, n, column, band);
    }
    const int64_t width = problem_.width, plane = problem_.height * width, offset = band.top * width;
    for (int64_t c = 0; c <= problem_.channels; ++c)
      image_.copy_to(image + (frame * (problem_.channels + 1) + c) * plane + offset, c, band.rows);
    for (int64_t c : {PASSED, TAKEN}) state_.copy_to(state + (2 * frame + c) * plane + offset, c, band.rows);
  }

 private:
  enum : int64_t { PASSED, TAKEN };

  // One strip of a Gaussian.
  void add(const Splat& g, int64_t frame, int64_t n, int column, const Band& band) {
    Lanes weight[BAND];
    const int first = band.first(g), rows = band.count(g), row = first - band.top;
    alphas(g, column, first, rows, weight);
    const float* features = problem_.features + (frame * problem_.gaussians + n) * problem_.channels;
    weigh(column, row, rows, static_cast<float>(n + 1), weight);
    for (int64_t c = 0; c < problem_.channels; ++c) add_to(image_.row(c, row) + column, rows, features[c], weight);
    add_to(image_.row(problem_.channels, row) + column, rows, 1.0f, weight);
  }

  // From α to the weights α T, and on with T. number: of Gaussians up to this one.
  void weigh(int column, int row, int rows, float number, Lanes* weight) {
    const int64_t stride = state_.stride();
    float* const passed = state_.row(PASSED, row) + column;
    Ints opaque{};
    for (int i = 0; i < rows; ++i) {
      const Lanes before = load(passed + i * stride);
      const Lanes alpha = zero_unless(at_least(before, OPAQUE), smaller(weight[i], MAX_ALPHA));
      const Lanes after = before * (1.0f - alpha);
      weight[i] = alpha * before;
      store(passed + i * stride, after);
      opaque |= after < OPAQUE;
    }
    if (any(opaque)) stop(column, row, rows, number);
  }

  // Notes at which Gaussian pixels have become opaque.
  [[gnu::noinline]] void stop(int column, int row, int rows, float number) {
    for (int i = 0; i < rows; ++i) {
      float* const taken = state_.row(TAKEN, row + i) + column;
      const Lanes passed = load(state_.row(PASSED, row + i) + column), before = load(taken);
      const Ints now = (passed < OPAQUE) & (before == static_cast<float>(problem_.gaussians));
      store(taken, now ? broadcast(number) : before);
    }
  }

  void add_to(float* to, int rows, float feature, const Lanes* weight) const {
    for (int i = 0; i < rows; ++i, to += image_.stride()) store(to, load(to) + feature * weight[i]);
  }

  const Composition& problem_;
  Planes image_, state_;
};

// The backward pass in one band.
class Adjoint {
 public:
  explicit Adjoint(const Composition& problem)
      : problem_(problem),
        grad_(problem.channels + 1, problem.width),
        state_(3, problem.width),
        totals_(round_up(COMPOSE_MOMENTS + problem.channels, 8)) {}

  // The sums over a band, [N, COMPOSE_MOMENTS + C], for the Gaussians that touch it. Where `add`, they are added to those
  // of the bands above, which a Gaussian that begins in this band has none of.
  void gather(const Splats& splats, int64_t frame, const Band& band, const float* state, const float* grad_image, bool add,
              float* sums) {
    const int64_t width = problem_.width, plane = problem_.height * width, offset = band.top * width;
    const int64_t channels = problem_.channels, size = COMPOSE_MOMENTS + channels;
    for (int64_t c = 0; c <= channels; ++c)
      grad_.copy_from(grad_image + (frame * (channels + 1) + c) * plane + offset, c, band.rows, 0.0f);
    state_.copy_from(state + 2 * frame * plane + offset, PASSED, band.rows, 1.0f);
    state_.copy_from(state + (2 * frame + 1) * plane + offset, TAKEN, band.rows, 0.0f);
    state_.fill(BEHIND, 0.0f);
    for (int64_t n = problem_.gaussians - 1; n >= 0; --n) {
      const Splat& g = splats[n];
      if (!band.touched_by(g)) continue;
      std::fill(totals_.begin(), totals_.end(), Lanes{});
      const float* features = problem_.features + (frame * problem_.gaussians + n) * channels;
      for (int column = g.left; column <= g.right; column += LANES) strip(g, n, column, band, features);
      write(sums + n * size, size, add && g.top < band.top);
    }
  }

 private:
  enum : int64_t { PASSED, TAKEN, BEHIND };  // BEHIND: Σ of w dL/dw over the Gaussians behind

  void strip(const Splat& g, int64_t n, int column, const Band& band, const float* features) {
    Lanes alpha[BAND], grad_weight[BAND];
    const int first = band.first(g), rows = band.count(g), row = first - band.top;
    alphas(g, column, first, rows, alpha);
    const int64_t stride = grad_.stride();
    const float* from = grad_.row(problem_.channels, row) + column;
    for (int i = 0; i < rows; ++i, from += stride) grad_weight[i] = load(from);
    for (int64_t c = 0; c < problem_.channels; ++c) {
      from = grad_.row(c, row) + column;
      for (int i = 0; i < rows; ++i, from += stride) grad_weight[i] += features[c] * load(from);
    }
    restore(g, n, column, row, rows, static_cast<float>(first) - g.y, grad_weight, alpha);
    for (int64_t c = 0; c < problem_.channels; ++c) {
      from = grad_.row(c, row) + column;
      Lanes sum{};
      for (int i = 0; i < rows; ++i, from += stride) sum += alpha[i] * load(from);
      totals_[COMPOSE_MOMENTS + c] += sum;
    }
  }

  // Adds the moments of a strip, with T before this Gaussian restored from T behind it; leaves its weights in `alpha`.
  void restore(const Splat& g, int64_t n, int column, int row, int rows, float dy, const Lanes* grad_weight,
               Lanes* alpha) {
    const int64_t stride = state_.stride();
    float *passed = state_.row(PASSED, row) + column, *behind = state_.row(BEHIND, row) + column;
    const float* taken = state_.row(TAKEN, row) + column;
    Lanes s{}, sy{}, syy{};
    for (int i = 0; i < rows; ++i, passed += stride, behind += stride, taken += stride, dy += 1.0f) {
      const Lanes unlimited = zero_unless(load(taken) > static_cast<float>(n), alpha[i]);
      const Lanes limited = smaller(unlimited, MAX_ALPHA);
      const Lanes inverse = 1.0f / (1.0f - limited), before = load(passed) * inverse, after = load(behind);
      const Lanes weight = limited * before;
      const Lanes grad_alpha = grad_weight[i] * before - after * inverse;
      const Lanes v = zero_unless(unlimited <= MAX_ALPHA, grad_alpha * unlimited);
      store(passed, before);
      store(behind, after + grad_weight[i] * weight);
      alpha[i] = weight;
      s += v;
      sy += dy * v;
      syy += (dy * dy) * v;
    }
    const Lanes dx = distance(g, column);
    const Lanes moments[COMPOSE_MOMENTS] = {s, dx * s, sy, dx * dx * s, dx * sy, syy};
    for (int k = 0; k < COMPOSE_MOMENTS; ++k) totals_[k] += moments[k];
  }

  void write(float* sums, int64_t size, bool add) const {
    for (int64_t k = 0; k < size; k += 8) {
      const auto& eight = *reinterpret_cast<const Lanes(*)[8]>(&totals_[k]);
      float found[8];
      sums_of_eight(eight, found);
      const int64_t count = std::min<int64_t>(8, size - k);
      for (int64_t i = 0; i < count; ++i) sums[k + i] = add ? sums[k + i] + found[i] : found[i];
    }
  }

  const Composition& problem_;
  Planes grad_, state_;
  std::vector<Lanes> totals_;
};

// From the sums of Gaussian n, which counts through all frames, to its gradients: NaN if it is not finite.
void write_gradients(const Composition& problem, int64_t n, const float* sums, const CompositionGradients& gradients) {
  const float *centre = problem.centre + 2 * n, *conic = problem.conic + 3 * n, opacity = problem.opacity[n];
  const float lost = 0.0f * centre[0] + 0.0f * centre[1] + 0.0f * conic[0] + 0.0f * conic[1] + 0.0f * conic[2] +
                     0.0f * opacity;
  const ComposeGradients d = compose_adjoint(sums, conic[0], conic[1], conic[2], opacity);
  gradients.centre[2 * n] = d.x + lost;
  gradients.centre[2 * n + 1] = d.y + lost;
  gradients.conic[3 * n] = d.a + lost;
  gradients.conic[3 * n + 1] = d.b + lost;
  gradients.conic[3 * n + 2] = d.c + lost;
  gradients.opacity[n] = d.opacity + lost;
  for (int64_t c = 0; c < problem.channels; ++c)
    gradients.features[n * problem.channels + c] = sums[COMPOSE_MOMENTS + c] + lost;
}

// Of a frame, from the sums of its bands, `apart` floats from each other: added from top to bottom, which is the order in
// which a task that has all of them adds them.
void finish(const Composition& problem, const Splats& splats, int64_t frame, int64_t bands, int64_t apart,
            const float* sums, const CompositionGradients& gradients) {
  const int64_t size = COMPOSE_MOMENTS + problem.channels;
  std::vector<float> total(size);
  for (int64_t n = 0; n < problem.gaussians; ++n) {
    std::fill(total.begin(), total.end(), 0.0f);
    for (int64_t b = 0; b < bands; ++b) {
      if (bands > 1 ? !Band(problem, b).touched_by(splats[n]) : splats[n].bottom < splats[n].top) continue;
      const float* const some = sums + b * apart + n * size;
      for (int64_t k = 0; k < size; ++k) total[k] += some[k];
    }
    write_gradients(problem, frame * problem.gaussians + n, total.data(), gradients);
  }
}

// Whether the bands of a frame are tasks of their own: where there are fewer frames than threads.
bool divided(const Composition& problem) {
  return problem.frames < threads() && bands_of(problem) > 1 && problem.gaussians >= WORTHWHILE;
}

}  // namespace

void compose(const Composition& problem, float* image, float* state) {
  if (problem.frames == 0) return;
  const int64_t bands = bands_of(problem), tasks = divided(problem) ? bands : 1;
  in_parallel(problem.frames * tasks, [&](int64_t task) {
    const FlushDenormals flush;
    const int64_t frame = task / tasks, part = task % tasks;
    const Splats splats(problem, frame);
    Compositor compositor(problem);
    for (int64_t b = part; b < bands; b += tasks)
      compositor.compose(splats, frame, Band(problem, b), image, state);
  });
}

void compose_backward(const Composition& problem, const float* state, const float* grad_image,
                      const CompositionGradients& gradients) {
  if (problem.frames == 0 || problem.gaussians == 0) return;
  const int64_t bands = bands_of(problem), size = problem.gaussians * (COMPOSE_MOMENTS + problem.channels);
  if (!divided(problem))
    return in_parallel(problem.frames, [&](int64_t frame) {
      const FlushDenormals flush;
      const Splats splats(problem, frame);
      const std::unique_ptr<float[]> sums(new float[size]);
      Adjoint adjoint(problem);
      for (int64_t b = 0; b < bands; ++b)
        adjoint.gather(splats, frame, Band(problem, b), state, grad_image, true, sums.get());
      finish(problem, splats, frame, 1, 0, sums.get(), gradients);
    });
  const std::unique_ptr<float[]> sums(new float[problem.frames * bands * size]);
  in_parallel(problem.frames * bands, [&](int64_t task) {
    const FlushDenormals flush;
    const int64_t frame = task / bands, b = task % bands;
    Adjoint adjoint(problem);
    adjoint.gather(Splats(problem, frame), frame, Band(problem, b), state, grad_image, false, sums.get() + task * size);
  });
  in_parallel(problem.frames, [&](int64_t frame) {
    const FlushDenormals flush;
    finish(problem, Splats(problem, frame), frame, bands, size, sums.get() + frame * bands * size, gradients);
  });
}

}  // namespace predgsplat::cpu
