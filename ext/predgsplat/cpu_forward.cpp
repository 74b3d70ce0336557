// The image on a CPU: a task owns a band of rows of one frame and draws the Gaussians into it one after the other.
#include "cpu_draw.h"

namespace predgsplat::cpu {
namespace {

// Pixels per row while drawing: whole vectors, unless the strips of every Gaussian fit into the frame as it is.
int64_t drawing_width(const Geometry& geometry) {
  const int64_t width = geometry.width;
  const int64_t widest = geometry.radius < width ? 2 * static_cast<int64_t>(geometry.radius) + 2 : width;
  const int64_t needed = round_up(std::min(widest, width), LANES);
  return needed <= width ? width : round_up(width, LANES);
}

// The rows [top, bottom) of one frame, all channels: drawn in the image itself, or in wider rows and then copied to it.
class Band {
 public:
  Band(const Problem& problem, int64_t frame, int top, int bottom, float* image)
      : width_(problem.geometry.width),
        padded_(drawing_width(problem.geometry)),
        plane_(problem.geometry.height * width_),
        pixels_(image + frame * problem.channels * plane_),
        canvas_{pixels_, width_, plane_, top, bottom, nullptr, problem.channels} {
    const int64_t rows = bottom - top;
    if (padded_ == width_) {
      for (int64_t c = 0; c < problem.channels; ++c)
        std::fill_n(pixels_ + c * plane_ + top * width_, rows * width_, 0.0f);
    } else {
      scratch_.assign(problem.channels * rows * padded_, 0.0f);
      canvas_.pixels = scratch_.data() - top * padded_;
      canvas_.plane = rows * padded_;
      canvas_.stride = padded_;
    }
  }

  Canvas canvas() const { return canvas_; }

  // Writes the image: NaN if a Gaussian is not finite, which would otherwise look like one outside the frame.
  void finish(bool finite) const {
    for (int64_t c = 0; c < canvas_.channels; ++c) {
      float* to = pixels_ + c * plane_;
      for (int64_t i = canvas_.top; i < canvas_.bottom; ++i) {
        if (padded_ != width_) std::copy_n(canvas_.pixels + c * canvas_.plane + i * padded_, width_, to + i * width_);
        if (!finite) std::fill_n(to + i * width_, width_, std::nanf(""));
      }
    }
  }

 private:
  int64_t width_, padded_, plane_;
  float* pixels_;
  Canvas canvas_;
  std::vector<float> scratch_;
};

// Draws all Gaussians of one frame; returns whether all are finite.
template <bool ANALYTIC, bool SINGLE>
bool draw_gaussians(const Problem& problem, int64_t frame, Canvas canvas) {
  RowShares rows(problem.geometry);
  bool finite = true;
  const auto strips_of = [&](const Shape& g) { return pixel_strips<ANALYTIC>(g, canvas.stride); };
  for (int64_t n = 0; n < problem.gaussians; n += LANES) {
    const int64_t first = frame * problem.gaussians + n;
    const Block block(problem, first, static_cast<int>(std::min<int64_t>(LANES, problem.gaussians - n)));
    const SmallLattices<ANALYTIC> small(block, problem.geometry, strips_of);
    for (int i = 0; i < block.count; ++i) {
      finite &= block.all_finite(i);
      if (!block.visible(i)) continue;
      const Shape g = block[i];
      if (g.y + g.bottom + 1 < canvas.top || g.y + g.top >= canvas.bottom) continue;
      canvas.amplitudes = problem.amplitudes + (first + i) * problem.channels;
      draw<ANALYTIC, SINGLE>(g, rows, canvas, strips_of(g), small[i], SINGLE ? canvas.amplitudes[0] : 1.0f);
    }
  }
  return finite;
}

template <bool ANALYTIC, bool SINGLE>
void draw_band(const Problem& problem, int64_t frame, int top, int bottom, float* image) {
  const Band band(problem, frame, top, bottom, image);
  band.finish(draw_gaussians<ANALYTIC, SINGLE>(problem, frame, band.canvas()));
}

}  // namespace

void forward(const Problem& problem, float* image) {
  if (problem.frames == 0 || problem.channels == 0) return;
  const int64_t bands = tasks_per_frame(problem);
  const int height = problem.geometry.height;
  const bool single = problem.channels == 1;
  const auto draw = problem.geometry.analytic ? (single ? draw_band<true, true> : draw_band<true, false>)
                                              : (single ? draw_band<false, true> : draw_band<false, false>);
  in_parallel(problem.frames * bands, [&](int64_t task) {
    const FlushDenormals flush;
    const int64_t band = task % bands;
    const int top = static_cast<int>(height * band / bands), bottom = static_cast<int>(height * (band + 1) / bands);
    draw(problem, task / bands, top, bottom, image);
  });
}

}  // namespace predgsplat::cpu
