// The image on a CPU: a task owns a band of rows of one frame and draws the Gaussians into it one after the other.
#include "cpu_draw.h"

#include <numeric>

namespace predgsplat::cpu {
namespace {

// Pixels per row while drawing: those of the image, if that is drawn in, or more.
int64_t drawing_width(const Problem& problem, int channels) {
  const Geometry& geometry = problem.geometry;
  const int64_t width = geometry.width;
  const int64_t widest = geometry.radius < width ? 2 * static_cast<int64_t>(geometry.radius) + 2 : width;
  // Whole vectors, unless the strips of every Gaussian fit into the frame as it is.
  if (round_up(std::min(widest, width), LANES) > width) return round_up(width, LANES);
  // A processor takes a load for one of a recent store 4096 bytes away and waits for it, and its first cache has room for
  // eight lines of such addresses. Where rows have them, copying an image costs less, unless few Gaussians are drawn; for
  // the cache alone it does so in frames that the caches hold.
  constexpr int64_t PIXELS_OF_A_GAUSSIAN = 512, LINES = 8, CACHED_PIXELS = 1 << 19;
  const int64_t pixels = geometry.height * width, rows = std::min<int64_t>(widest, geometry.height);
  const int64_t period = 1024 / std::gcd(int64_t{1024}, width);  // rows from one such address to the next
  const bool waits = period <= (channels == 1 ? 2 : 4);
  const bool crowded = channels > 1 && channels * rows > LINES * period && pixels <= CACHED_PIXELS;
  return (waits || crowded) && problem.gaussians * PIXELS_OF_A_GAUSSIAN > pixels ? width + LANES : width;
}

// The rows [top, bottom) of some channels of one frame: drawn in the image itself, or in wider rows and then copied.
class Band {
 public:
  Band(const Problem& problem, int64_t first_plane, int channels, int top, int bottom, float* image)
      : channels_(channels),
        width_(problem.geometry.width),
        padded_(drawing_width(problem, channels)),
        plane_(problem.geometry.height * width_),
        pixels_(image + first_plane * plane_),
        canvas_{pixels_, width_, plane_, top, bottom, nullptr} {
    const int64_t rows = bottom - top;
    if (padded_ == width_) {
      for (int c = 0; c < channels_; ++c) std::fill_n(pixels_ + c * plane_ + top * width_, rows * width_, 0.0f);
    } else {
      scratch_.assign(channels_ * (rows * padded_ + APART), 0.0f);
      canvas_.pixels = scratch_.data() - top * padded_;
      canvas_.plane = rows * padded_ + APART;
      canvas_.stride = padded_;
    }
  }

  Canvas canvas() const { return canvas_; }

  // Writes the image: NaN if a Gaussian is not finite, which would otherwise look like one outside the frame.
  void finish(bool finite) const {
    for (int c = 0; c < channels_; ++c) {
      float* to = pixels_ + c * plane_;
      for (int64_t i = canvas_.top; i < canvas_.bottom; ++i) {
        if (padded_ != width_) std::copy_n(canvas_.pixels + c * canvas_.plane + i * padded_, width_, to + i * width_);
        if (!finite) std::fill_n(to + i * width_, width_, std::nanf(""));
      }
    }
  }

 private:
  static constexpr int APART = 2 * LANES;  // between channels, so that their addresses differ

  int channels_;
  int64_t width_, padded_, plane_;
  float* pixels_;
  Canvas canvas_;
  std::vector<float> scratch_;
};

// Draws all Gaussians of one frame; returns whether all are finite.
template <bool ANALYTIC, int CHANNELS>
bool draw_gaussians(const Problem& problem, int64_t frame, int64_t first_channel, Canvas canvas) {
  RowShares rows(problem.geometry);
  StripRows strip_rows(problem.geometry);
  bool finite = true;
  const auto strips_of = [&](const Shape& g) { return pixel_strips<ANALYTIC>(g, canvas.stride); };
  for (int64_t n = 0; n < problem.gaussians; n += LANES) {
    const int64_t first = frame * problem.gaussians + n;
    const Block block(problem, first, static_cast<int>(std::min<int64_t>(LANES, problem.gaussians - n)));
    const SmallLattices<ANALYTIC> small(block, problem.geometry, strips_of);
    strip_rows.template fill<ANALYTIC, true>(block, strips_of);
    for (int i = 0; i < block.count; ++i) {
      finite &= block.all_finite(i);
      if (!block.visible(i)) continue;
      const Shape g = block[i];
      if (g.y + g.bottom + 1 < canvas.top || g.y + g.top >= canvas.bottom) continue;
      canvas.amplitudes = problem.amplitudes + (first + i) * problem.channels + first_channel;
      const auto rows_of = [&](int strip) PREDGSPLAT_LAMBDA { return strip_rows.at(i, strip); };
      const float scale = CHANNELS == 1 ? canvas.amplitudes[0] : 1.0f;
      draw<ANALYTIC, CHANNELS>(g, rows, canvas, strips_of(g), small[i], rows_of, scale);
    }
  }
  return finite;
}

template <bool ANALYTIC, int CHANNELS>
void draw_band(const Problem& problem, int64_t frame, int64_t first_channel, int top, int bottom, float* image) {
  const Band band(problem, frame * problem.channels + first_channel, CHANNELS, top, bottom, image);
  band.finish(draw_gaussians<ANALYTIC, CHANNELS>(problem, frame, first_channel, band.canvas()));
}

// Channels are drawn up to four at a time: more planes would evict each other from the first cache.
template <bool ANALYTIC>
void draw_channels(const Problem& problem, int64_t frame, int top, int bottom, float* image) {
  constexpr decltype(&draw_band<ANALYTIC, 1>) by_count[] = {draw_band<ANALYTIC, 1>, draw_band<ANALYTIC, 2>,
                                                            draw_band<ANALYTIC, 3>, draw_band<ANALYTIC, 4>};
  const int64_t groups = (problem.channels + 3) / 4;
  for (int64_t group = 0, first = 0; group < groups; ++group) {
    const int64_t end = problem.channels * (group + 1) / groups;
    by_count[end - first - 1](problem, frame, first, top, bottom, image);
    first = end;
  }
}

}  // namespace

void forward(const Problem& problem, float* image) {
  if (problem.frames == 0 || problem.channels == 0) return;
  const int64_t bands = tasks_per_frame(problem);
  const int height = problem.geometry.height;
  const auto draw = problem.geometry.analytic ? draw_channels<true> : draw_channels<false>;
  in_parallel(problem.frames * bands, [&](int64_t task) {
    const FlushDenormals flush;
    const int64_t band = task % bands;
    const int top = static_cast<int>(height * band / bands), bottom = static_cast<int>(height * (band + 1) / bands);
    draw(problem, task / bands, top, bottom, image);
  });
}

}  // namespace predgsplat::cpu
