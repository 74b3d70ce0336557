// Depth-wise convolutions on a CPU, and their gradients. A vector holds neighbouring channels of one pixel, which lie side by
// side in channels-last frames. A task copies the rows that it needs, a vector of channels at a time, to where they are dense
// and in float32; there it takes strips of output columns that are a dilation apart, as in a convolution without dilation, and
// holds their sums in registers over all rows of the kernel. What lies beside the frame is left out rather than multiplied.
#include "simd.h"

#include "cpu_tasks.h"

#include <algorithm>
#include <memory>
#include <vector>

namespace predgsplat::cpu {
namespace {

constexpr int BAND = 32;      // rows of the output
constexpr int MOST_TAPS = 7;  // columns of the kernel at a time, what registers hold
constexpr int STRIP = 8;      // columns of the output at a time
constexpr int64_t MOST_VECTORS = 16;  // of channels at a time, fewer of large frames: DENSE vectors of pixels, half of an L2
constexpr int64_t DENSE = 8192;
constexpr int64_t PARTS = 64;  // sums over the frames that are added in the end, the same for any number of threads

typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t))));
typedef uint32_t Bits __attribute__((vector_size(LANES * sizeof(uint32_t))));

PREDGSPLAT_INLINE float from_bfloat16(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

PREDGSPLAT_INLINE Lanes load_halves(const uint16_t* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  return (Lanes)(__builtin_convertvector(halves, Bits) << 16);
}

// To the nearest, and to even between two; a NaN stays one.
PREDGSPLAT_INLINE Halves to_bfloat16(Lanes x) {
  const Bits bits = (Bits)x;
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return __builtin_convertvector((Bits)(x == x ? (Ints)rounded : Ints{} + 0x7fc0), Halves);
}

// The first `count` channels of a pixel, `stride` apart; zeros in the other lanes.
PREDGSPLAT_INLINE Lanes load_channels(const Frames& frames, int64_t offset, int count) {
  const int64_t stride = frames.strides[1];
  const auto* halves = static_cast<const uint16_t*>(frames.data) + offset;
  const auto* floats = static_cast<const float*>(frames.data) + offset;
  if (count == LANES && stride == 1) return frames.bfloat16 ? load_halves(halves) : load(floats);
  Lanes x{};
  for (int i = 0; i < count; ++i) x[i] = frames.bfloat16 ? from_bfloat16(halves[i * stride]) : floats[i * stride];
  return x;
}

// Vectors of channels, the last of which may be partly filled.
struct Group {
  int64_t first, vectors, channels;  // number of its first vector, of its vectors, and of all channels

  int64_t channel(int64_t v) const { return (first + v) * LANES; }
  int lanes(int64_t v) const { return static_cast<int>(std::min<int64_t>(LANES, channels - channel(v))); }
};

// Rows of a group of vectors of channels, dense: [vectors, rows, pitch]. A group, because memory is slow to give single
// vectors of pixels that are far apart.
class Planes {
 public:
  Planes(int64_t vectors, int64_t rows, int64_t pitch)
      : pitch_(pitch), apart_(std::max<int64_t>(rows, 1) * pitch | 1), size_(vectors * apart_), pixels_(new Lanes[size_]) {}

  Lanes* row(int64_t vector, int64_t y) { return pixels_.get() + vector * apart_ + y * pitch_; }
  int64_t pitch() const { return pitch_; }

  void clear() { std::fill_n(pixels_.get(), size_, Lanes{}); }

  // From frame n of `frames`, the channels of `group` in the rows from `first` to `last`; columns beyond the frame stay.
  void copy_from(const Frames& frames, int64_t n, const Group& group, int64_t first, int64_t last, int64_t width) {
    for (int64_t y = first; y <= last; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const int64_t offset = n * frames.strides[0] + y * frames.strides[2] + x * frames.strides[3];
        for (int64_t v = 0; v < group.vectors; ++v)
          row(v, y - first)[x] = load_channels(frames, offset + group.channel(v) * frames.strides[1], group.lanes(v));
      }
  }

  // To pixels [.., C] in channels-last layout.
  void copy_to(void* to, bool bfloat16, const Group& group, int64_t offset, int64_t rows, int64_t channels) {
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t x = 0; x < pitch_; ++x, offset += channels)
        for (int64_t v = 0; v < group.vectors; ++v) {
          const Lanes found = row(v, y)[x];
          if (bfloat16) {
            store_some(static_cast<uint16_t*>(to) + offset + group.channel(v), to_bfloat16(found), group.lanes(v));
          } else {
            store_some(static_cast<float*>(to) + offset + group.channel(v), found, group.lanes(v));
          }
        }
  }

 private:
  int64_t pitch_, apart_, size_;  // apart_ is odd, or the vectors of a pixel would share the few lines of one set of a cache
  std::unique_ptr<Lanes[]> pixels_;
};

// Of OUTS columns of the output, `step` apart, and TAPS columns of the kernel: input column p of those that they see meets
// output p - j at tap j. Columns from `first` to `last` lie inside the frame.
struct Strip {
  const Lanes* in;  // column 0, in the first row
  int64_t in_pitch, step;
  int64_t rows;
  int first, last;
};

// sums[m] += the products of a strip; weights: [rows, columns of the kernel].
template <int TAPS, int OUTS>
[[gnu::noinline]] void convolve(const Strip& strip, const Lanes* weights, int64_t columns, Lanes* sums) {
  const int first = strip.first, last = strip.last;
  const int64_t step = strip.step;
  const Lanes* in = strip.in;
  Lanes sum[OUTS], weight[TAPS];
#pragma GCC unroll 8
  for (int m = 0; m < OUTS; ++m) sum[m] = sums[m];
  for (int64_t r = 0; r < strip.rows; ++r, in += strip.in_pitch, weights += columns) {
#pragma GCC unroll 8
    for (int j = 0; j < TAPS; ++j) weight[j] = weights[j];
#pragma GCC unroll 16
    for (int p = 0; p < TAPS + OUTS - 1; ++p) {
      if (p < first || p > last) continue;
      const Lanes x = in[p * step];
#pragma GCC unroll 8
      for (int j = 0; j < TAPS; ++j)
        if (p - j >= 0 && p - j < OUTS) sum[p - j] += weight[j] * x;
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < OUTS; ++m) sums[m] = sum[m];
}

// sums[j] += the products of a strip with the gradient of its outputs, which is 0 beyond the frame.
template <int TAPS, int OUTS>
[[gnu::noinline]] void correlate(const Strip& strip, const Lanes* grad, int64_t grad_pitch, Lanes* sums) {
  const int first = strip.first, last = strip.last;
  const int64_t step = strip.step;
  const Lanes* in = strip.in;
  Lanes sum[TAPS], out[OUTS];
#pragma GCC unroll 8
  for (int j = 0; j < TAPS; ++j) sum[j] = Lanes{};
  for (int64_t r = 0; r < strip.rows; ++r, in += strip.in_pitch, grad += grad_pitch) {
#pragma GCC unroll 8
    for (int m = 0; m < OUTS; ++m) out[m] = grad[m * step];
#pragma GCC unroll 16
    for (int p = 0; p < TAPS + OUTS - 1; ++p) {
      if (p < first || p > last) continue;
      const Lanes x = in[p * step];
#pragma GCC unroll 8
      for (int j = 0; j < TAPS; ++j)
        if (p - j >= 0 && p - j < OUTS) sum[j] += out[p - j] * x;
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < TAPS; ++j) sums[j] += sum[j];
}

using Function = void (*)(const Strip&, const Lanes*, int64_t, Lanes*);
#define PREDGSPLAT_WIDTHS(f, taps) {f<taps, 4>, f<taps, 6>, f<taps, 8>}
#define PREDGSPLAT_TAPS(f)                                                                                       \
  {PREDGSPLAT_WIDTHS(f, 1), PREDGSPLAT_WIDTHS(f, 2), PREDGSPLAT_WIDTHS(f, 3), PREDGSPLAT_WIDTHS(f, 4),           \
   PREDGSPLAT_WIDTHS(f, 5), PREDGSPLAT_WIDTHS(f, 6), PREDGSPLAT_WIDTHS(f, 7)}
constexpr Function CONVOLVE[MOST_TAPS][3] = PREDGSPLAT_TAPS(convolve);
constexpr Function CORRELATE[MOST_TAPS][3] = PREDGSPLAT_TAPS(correlate);

// The function for `taps` columns of the kernel and at least `count` of the output.
Function fitting(const Function (&functions)[MOST_TAPS][3], int taps, int64_t count) {
  return functions[taps - 1][count <= 4 ? 0 : count <= 6 ? 1 : 2];
}

struct Range {
  int64_t first, last;

  int64_t count() const { return std::max<int64_t>(last - first + 1, 0); }
};

// The i in [0, count) with 0 <= start + i step < length.
Range inside(int64_t start, int64_t step, int64_t count, int64_t length) {
  const int64_t first = start >= 0 ? 0 : (-start + step - 1) / step;
  const int64_t last = start >= length ? -1 : (length - 1 - start) / step;
  return {first, std::min(last, count - 1)};
}

class Convolution {
 public:
  explicit Convolution(const Depthwise& problem)
      : p_(problem),
        taps_(problem.rows * problem.columns),
        vectors_((problem.channels + LANES - 1) / LANES),
        bands_((problem.out_height + BAND - 1) / BAND) {
    const int64_t rows = std::min(problem.height, BAND + (problem.rows - 1) * problem.dilation);
    const int64_t fitting = DENSE / std::max<int64_t>(rows * problem.width, 1);
    group_ = std::max<int64_t>(std::min({fitting, MOST_VECTORS, vectors_}), 1);
  }

  // Frames and bands, the units of work.
  int64_t units() const { return p_.batch * bands_; }
  int64_t vectors() const { return vectors_; }
  int64_t taps() const { return taps_; }

  // Weights [C, rows, columns] as [vector, rows, columns].
  std::vector<Lanes> packed(const float* weight) const {
    std::vector<Lanes> result(vectors_ * taps_);
    for (int64_t c = 0; c < p_.channels; ++c)
      for (int64_t k = 0; k < taps_; ++k) result[c / LANES * taps_ + k][c % LANES] = weight[c * taps_ + k];
    return result;
  }

  // The output of a unit.
  void run(int64_t unit, const Frames& x, const Lanes* weights, const float* bias, void* to, bool bfloat16) const {
    const int64_t n = unit / bands_, top = unit % bands_ * BAND, rows = std::min<int64_t>(BAND, p_.out_height - top);
    const Range seen = rows_seen(top, rows);
    Planes in(group_, seen.count(), p_.width), out(group_, rows, p_.out_width);
    for_each_group([&](const Group& group) {
      in.copy_from(x, n, group, seen.first, seen.last, p_.width);
      for (int64_t v = 0; v < group.vectors; ++v) {
        const Lanes start = bias ? load_some<1>(bias + group.channel(v), group.lanes(v)) : Lanes{};
        for (int64_t y = 0; y < rows; ++y)
          convolve_row(in, v, seen, top + y, weights + (group.first + v) * taps_, start, out.row(v, y));
      }
      const int64_t offset = (n * p_.out_height + top) * p_.out_width * p_.channels;
      out.copy_to(to, bfloat16, group, offset, rows, p_.channels);
    });
  }

  // Adds the sums of a unit over its pixels, [vector, taps and bias].
  void gather(int64_t unit, const Frames& grad, const Frames& x, Lanes* sums) const {
    const int64_t n = unit / bands_, top = unit % bands_ * BAND, rows = std::min<int64_t>(BAND, p_.out_height - top);
    const Range seen = rows_seen(top, rows);
    Planes in(group_, seen.count(), p_.width), out(group_, rows, p_.out_width + STRIP * p_.dilation);
    out.clear();
    for_each_group([&](const Group& group) {
      in.copy_from(x, n, group, seen.first, seen.last, p_.width);
      out.copy_from(grad, n, group, top, top + rows - 1, p_.out_width);
      for (int64_t v = 0; v < group.vectors; ++v) {
        Lanes* const to = sums + (group.first + v) * (taps_ + 1);
        for (int64_t i = 0; i < p_.rows; ++i) correlate_row(in, out, v, seen, top, rows, i, to + i * p_.columns);
        for (int64_t y = 0; y < rows; ++y) {
          Lanes sum{};
          for (int64_t column = 0; column < p_.out_width; ++column) sum += out.row(v, y)[column];
          to[taps_] += sum;
        }
      }
    });
  }

 private:
  template <class Body>
  void for_each_group(const Body& f) const {
    for (int64_t first = 0; first < vectors_; first += group_)
      f(Group{first, std::min(group_, vectors_ - first), p_.channels});
  }

  // Calls f(first column, number of columns) for strips of outputs that are a dilation apart.
  template <class Body>
  PREDGSPLAT_INLINE void for_each_strip(const Body& f) const {
    for (int64_t phase = 0; phase < std::min(p_.dilation, p_.out_width); ++phase)
      for (int64_t column = phase; column < p_.out_width; column += STRIP * p_.dilation)
        f(column, std::min<int64_t>(STRIP, (p_.out_width - column + p_.dilation - 1) / p_.dilation));
  }

  // Rows of the input that the output rows from `top` on see.
  Range rows_seen(int64_t top, int64_t rows) const {
    const int64_t first = top - p_.padding_rows, last = first + rows - 1 + (p_.rows - 1) * p_.dilation;
    return {std::clamp<int64_t>(first, 0, p_.height), std::min(last, p_.height - 1)};
  }

  // Columns of the kernel from `tap` on that are taken at a time.
  int taps_from(int64_t tap) const { return static_cast<int>(std::min<int64_t>(MOST_TAPS, p_.columns - tap)); }

  // `outputs` columns from `column`, and the columns of the kernel from `tap`. row: the first row of the input.
  Strip strip_at(const Lanes* row, int64_t pitch, int64_t rows, int64_t column, int64_t outputs, int64_t tap) const {
    const int64_t start = column - p_.padding_columns + tap * p_.dilation;
    const Range columns = inside(start, p_.dilation, taps_from(tap) + outputs - 1, p_.width);
    return {row + start, pitch, p_.dilation, rows, static_cast<int>(columns.first), static_cast<int>(columns.last)};
  }

  // Row y of the output.
  void convolve_row(Planes& in, int64_t vector, const Range& seen, int64_t y, const Lanes* weights, Lanes start,
                    Lanes* out) const {
    const int64_t above = y - p_.padding_rows;
    const Range rows = inside(above, p_.dilation, p_.rows, p_.height);
    const Lanes* row = in.row(vector, rows.count() == 0 ? 0 : above + rows.first * p_.dilation - seen.first);
    for_each_strip([&](int64_t column, int64_t outputs) {
      Lanes sums[STRIP];
      std::fill_n(sums, STRIP, start);
      for (int64_t tap = 0; tap < p_.columns; tap += MOST_TAPS) {
        const Strip strip = strip_at(row, p_.dilation * in.pitch(), rows.count(), column, outputs, tap);
        const Lanes* weight = weights + rows.first * p_.columns + tap;
        fitting(CONVOLVE, taps_from(tap), outputs)(strip, weight, p_.columns, sums);
      }
      for (int64_t m = 0; m < outputs; ++m) out[column + m * p_.dilation] = sums[m];
    });
  }

  // Adds the sums for row i of the kernel.
  void correlate_row(Planes& in, Planes& grad, int64_t vector, const Range& seen, int64_t top, int64_t rows, int64_t i,
                     Lanes* sums) const {
    const int64_t below = top + i * p_.dilation - p_.padding_rows;
    const Range met = inside(below, 1, rows, p_.height);
    if (met.count() == 0) return;
    const Lanes* row = in.row(vector, below + met.first - seen.first);
    for (int64_t tap = 0; tap < p_.columns; tap += MOST_TAPS)
      for_each_strip([&](int64_t column, int64_t outputs) {
        const Strip strip = strip_at(row, in.pitch(), met.count(), column, outputs, tap);
        const Lanes* first = grad.row(vector, met.first) + column;
        fitting(CORRELATE, taps_from(tap), outputs)(strip, first, grad.pitch(), sums + tap);
      });
  }

  const Depthwise& p_;
  int64_t taps_, vectors_, bands_, group_;
};

}  // namespace

void depthwise(const Depthwise& problem, const Frames& x, const float* weight, const float* bias, void* out,
               bool bfloat16) {
  const Convolution convolution(problem);
  const std::vector<Lanes> weights = convolution.packed(weight);
  in_parallel(convolution.units(),
              [&](int64_t unit) { convolution.run(unit, x, weights.data(), bias, out, bfloat16); });
}

void depthwise_weights(const Depthwise& problem, const Frames& grad, const Frames& x, float* grad_weight,
                       float* grad_bias) {
  const Convolution convolution(problem);
  const int64_t units = convolution.units(), taps = convolution.taps(), size = convolution.vectors() * (taps + 1);
  const int64_t together = std::max<int64_t>((units + PARTS - 1) / PARTS, 1), parts = (units + together - 1) / together;
  std::vector<Lanes> sums(parts * size);
  in_parallel(parts, [&](int64_t part) {
    for (int64_t unit = part * together; unit < std::min((part + 1) * together, units); ++unit)
      convolution.gather(unit, grad, x, &sums[part * size]);
  });
  for (int64_t part = 1; part < parts; ++part)
    for (int64_t i = 0; i < size; ++i) sums[i] += sums[part * size + i];
  for (int64_t c = 0; c < problem.channels; ++c) {
    const auto total = [&](int64_t k) { return sums.empty() ? 0.0f : sums[c / LANES * (taps + 1) + k][c % LANES]; };
    for (int64_t k = 0; k < taps; ++k) grad_weight[c * taps + k] = total(k);
    grad_bias[c] = total(taps);
  }
}

}  // namespace predgsplat::cpu
