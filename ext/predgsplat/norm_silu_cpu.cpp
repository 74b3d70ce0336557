// GroupNorm followed by SiLU on a CPU, and its gradients. Frames are worked on in pieces that a first-level cache holds: one
// pass takes their means and variances, which are then joined, and one makes the result. A vector holds neighbouring channels
// of a pixel where those lie side by side in memory, else neighbouring pixels of a channel.
#include "simd.h"

#include "cpu_tasks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace predgsplat::cpu {
namespace {

constexpr int64_t PIECE = 4096;  // numbers
constexpr int64_t PIXELS = 512;  // at most, of a piece whose vectors hold channels: what one lane adds up in float32
constexpr int SIDE = 4;          // sums side by side, which do not wait for each other

PREDGSPLAT_INLINE Lanes sigmoid(Lanes x) { return 1.0f / (1.0f + exp2(smaller(x * -1.44269504f, 126.0f))); }

// `count` vectors, `stride` numbers apart, of channels from `channel` on. Of a vector of channels `lanes` are filled; of the
// pixels of one channel, those of the last vector.
struct Run {
  int64_t first, count, stride;
  int64_t channel;
  int lanes;
  bool of_channels;

  // f(offset, filled lanes) of all vectors.
  template <class Body>
  PREDGSPLAT_INLINE void for_each(const Body& f) const {
    for (int64_t i = 0; i < whole(); ++i) f(first + i * stride, LANES);
    for (int64_t i = whole(); i < count; ++i) f(first + i * stride, lanes);
  }

  // The sums that f(offset, filled lanes, sums) adds to, of which there are COUNT, 0 in others than the filled lanes.
  template <int COUNT, class Body>
  PREDGSPLAT_INLINE std::array<Lanes, COUNT> sums_of(const Body& f) const {
    std::array<Lanes, COUNT> sums[SIDE] = {};
    int64_t i = 0;
    for (; i + SIDE <= whole(); i += SIDE)
#pragma GCC unroll 4
      for (int k = 0; k < SIDE; ++k) f(first + (i + k) * stride, LANES, sums[k]);
    for (; of_channels && i + SIDE <= count; i += SIDE)
      for (int k = 0; k < SIDE; ++k) f(first + (i + k) * stride, lanes, sums[k]);
    for (; i < count; ++i) f(first + i * stride, i < whole() ? LANES : lanes, sums[0]);
    std::array<Lanes, COUNT> totals;
    for (int n = 0; n < COUNT; ++n) {
      const Lanes total = (sums[0][n] + sums[1][n]) + (sums[2][n] + sums[3][n]);
      totals[n] = of_channels ? total : broadcast(sum(total));
    }
    return totals;
  }

  int channels() const { return of_channels ? lanes : 1; }

 private:
  int64_t whole() const { return lanes == LANES ? count : of_channels ? 0 : count - 1; }
};

// Numbers of the channels of a run: of each lane, or the same in all.
template <class Body>
PREDGSPLAT_INLINE Lanes by_channel(const Run& run, const Body& f) {
  if (!run.of_channels) return broadcast(f(run.channel));
  Lanes x{};
  for (int i = 0; i < run.lanes; ++i) x[i] = f(run.channel + i);
  return x;
}

class Norm {
 public:
  Norm(const Normalization& problem, const float* mean, const float* inverse)
      : p_(problem), mean_(mean), inverse_(inverse), each_(problem.channels / problem.groups), group_(problem.channels) {
    for (int64_t c = 0; c < p_.channels; ++c) group_[c] = c / each_;
    const int64_t pixels = p_.channels_last ? std::min(PIECE / p_.channels, PIXELS) : PIECE;
    pixels_ = round_up(std::max<int64_t>(pixels, 1), LANES);
    pieces_ = (p_.pixels + pixels_ - 1) / pixels_;
  }

  int64_t pieces() const { return p_.batch * pieces_; }

  // Calls measure(piece) and apply(piece) of every piece, and between them settle(frame) of every frame.
  template <class Measure, class Settle, class Apply>
  void run(const Measure& measure, const Settle& settle, const Apply& apply) const {
    if (p_.batch >= threads()) {  // a frame stays in the cache from the first pass to the second
      in_parallel(p_.batch, [&](int64_t n) {
        for (int64_t i = 0; i < pieces_; ++i) measure(n * pieces_ + i);
        settle(n);
        for (int64_t i = 0; i < pieces_; ++i) apply(n * pieces_ + i);
      });
    } else {
      in_parallel(pieces(), measure);
      in_parallel(p_.batch, settle);
      in_parallel(pieces(), apply);
    }
  }

  // Calls f(run) for the vectors of a piece.
  template <class Body>
  PREDGSPLAT_INLINE void for_each_run(int64_t piece, const Body& f) const {
    const int64_t start = piece % pieces_ * pixels_, pixels = length(piece);
    const int64_t frame = piece / pieces_ * p_.channels * p_.pixels;
    for (int64_t c = 0; c < p_.channels; c += p_.channels_last ? LANES : 1) {
      if (p_.channels_last) {
        const int lanes = static_cast<int>(std::min<int64_t>(LANES, p_.channels - c));
        f(Run{frame + start * p_.channels + c, pixels, p_.channels, c, lanes, true});
      } else {
        const int64_t vectors = (pixels + LANES - 1) / LANES;
        const int lanes = static_cast<int>(pixels - (vectors - 1) * LANES);
        f(Run{frame + c * p_.pixels + start, vectors, LANES, c, lanes, false});
      }
    }
  }

  // Pixels of a piece.
  int64_t length(int64_t piece) const { return std::min(pixels_, p_.pixels - piece % pieces_ * pixels_); }

  // The piece's means and sums of squares, of each channel.
  void measure(int64_t piece, const float* x, float* means, float* squares) const {
    const float share = 1.0f / static_cast<float>(length(piece));
    for_each_run(piece, [&](const Run& run) PREDGSPLAT_LAMBDA {
      const auto [sum] = run.sums_of<1>([&](int64_t at, int lanes, auto& sums) PREDGSPLAT_LAMBDA {
        sums[0] += load_some<1>(x + at, lanes);
      });
      const Lanes mean = share * sum;
      const auto [spread] = run.sums_of<1>([&](int64_t at, int lanes, auto& sums) PREDGSPLAT_LAMBDA {
        const Lanes apart = load_some<1>(x + at, lanes) - mean, square = apart * apart;
        sums[0] += lanes == LANES ? square : zero_unless(before(lanes), square);
      });
      keep(run, piece, mean, means);
      keep(run, piece, spread, squares);
    });
  }

  // Mean and inverse of the standard deviation of each group of frame n.
  void settle(int64_t n, const float* means, const float* squares, float* mean, float* inverse) const {
    for (int64_t g = 0; g < p_.groups; ++g) {
      const auto sum_of = [&](const auto& f) {
        double sum = 0;
        for (int64_t piece = n * pieces_; piece < (n + 1) * pieces_; ++piece) {
          const double pixels = static_cast<double>(length(piece));
          for (int64_t i = piece * p_.channels + g * each_; i < piece * p_.channels + (g + 1) * each_; ++i) sum += f(i, pixels);
        }
        return sum;
      };
      const double level = sum_of([&](int64_t i, double pixels) { return pixels * means[i]; }) / numbers();
      const double variance = sum_of([&](int64_t i, double pixels) {
        const double apart = means[i] - level;
        return squares[i] + pixels * apart * apart;
      }) / numbers();
      mean[n * p_.groups + g] = static_cast<float>(level);
      inverse[n * p_.groups + g] = static_cast<float>(1 / std::sqrt(variance + p_.eps));
    }
  }

  void apply(int64_t piece, const float* x, float* out) const {
    for_each_run(piece, [&](const Run& run) PREDGSPLAT_LAMBDA {
      const Lanes mean = of_group(run, piece, mean_), bias = of_channel(run, p_.bias);
      const Lanes scale = of_group(run, piece, inverse_) * of_channel(run, p_.weight);
      run.for_each([&](int64_t at, int lanes) PREDGSPLAT_LAMBDA {
        const Lanes z = (load_some<1>(x + at, lanes) - mean) * scale + bias;
        store_some(out + at, z * sigmoid(z), lanes);
      });
    });
  }

  // The gradient by what SiLU gets, and the piece's sums of it and of it times the normalized numbers, of each channel.
  void undo_silu(int64_t piece, const float* grad, const float* x, float* grad_x, float* plain, float* weighted) const {
    for_each_run(piece, [&](const Run& run) PREDGSPLAT_LAMBDA {
      const Lanes mean = of_group(run, piece, mean_), inverse = of_group(run, piece, inverse_);
      const Lanes weight = of_channel(run, p_.weight), bias = of_channel(run, p_.bias);
      const auto [sum, product] = run.sums_of<2>([&](int64_t at, int lanes, auto& sums) PREDGSPLAT_LAMBDA {
        const Lanes unit = (load_some<1>(x + at, lanes) - mean) * inverse, z = unit * weight + bias, s = sigmoid(z);
        const Lanes by_z = load_some<1>(grad + at, lanes) * (s + z * s * (1.0f - s));
        store_some(grad_x + at, by_z, lanes);
        sums[0] += by_z;
        sums[1] += by_z * unit;
      });
      keep(run, piece, sum, plain);
      keep(run, piece, product, weighted);
    });
  }

  // From the gradient by what SiLU gets to that by x, in place; means of the groups of frame n.
  void undo_norm(int64_t piece, const float* x, float* grad_x, const float* plain, const float* weighted) const {
    for_each_run(piece, [&](const Run& run) PREDGSPLAT_LAMBDA {
      const Lanes mean = of_group(run, piece, mean_), inverse = of_group(run, piece, inverse_);
      const Lanes scale = inverse * of_channel(run, p_.weight), level = inverse * of_group(run, piece, plain);
      const Lanes slope = inverse * inverse * of_group(run, piece, weighted);
      run.for_each([&](int64_t at, int lanes) PREDGSPLAT_LAMBDA {
        const Lanes apart = load_some<1>(x + at, lanes) - mean;
        store_some(grad_x + at, load_some<1>(grad_x + at, lanes) * scale - level - apart * slope, lanes);
      });
    });
  }

  // The sum of a piece's sums over those of frame n.
  double total(int64_t n, int64_t c, const float* sums) const {
    double all = 0;
    for (int64_t piece = n * pieces_; piece < (n + 1) * pieces_; ++piece) all += sums[piece * p_.channels + c];
    return all;
  }

  int64_t group(int64_t c) const { return group_[c]; }
  double numbers() const { return static_cast<double>(each_) * static_cast<double>(p_.pixels); }  // of a group

 private:
  void keep(const Run& run, int64_t piece, Lanes x, float* to) const {
    for (int i = 0; i < run.channels(); ++i) to[piece * p_.channels + run.channel + i] = x[i];
  }

  PREDGSPLAT_INLINE Lanes of_channel(const Run& run, const float* numbers) const {
    return by_channel(run, [&](int64_t c) { return numbers[c]; });
  }

  PREDGSPLAT_INLINE Lanes of_group(const Run& run, int64_t piece, const float* numbers) const {
    const float* const own = numbers + piece / pieces_ * p_.groups;
    return by_channel(run, [&](int64_t c) { return own[group(c)]; });
  }

  const Normalization& p_;
  const float *mean_, *inverse_;  // of the groups, [B, groups]
  int64_t each_, pixels_, pieces_;
  std::vector<int64_t> group_;  // of each channel
};

}  // namespace

void norm_silu(const Normalization& problem, const float* x, float* out, float* mean, float* inverse) {
  const Norm norm(problem, mean, inverse);
  std::vector<float> means(norm.pieces() * problem.channels), squares(means.size());
  norm.run([&](int64_t piece) { norm.measure(piece, x, means.data(), squares.data()); },
           [&](int64_t n) { norm.settle(n, means.data(), squares.data(), mean, inverse); },
           [&](int64_t piece) { norm.apply(piece, x, out); });
}

void norm_silu_backward(const Normalization& problem, const float* grad, const float* x, const float* mean,
                        const float* inverse, float* grad_x, float* grad_weight, float* grad_bias) {
  const Norm norm(problem, mean, inverse);
  const int64_t C = problem.channels, G = problem.groups;
  std::vector<float> plain(norm.pieces() * C), weighted(plain.size());  // of a piece and a channel
  std::vector<float> group_plain(problem.batch * G), group_weighted(group_plain.size());  // of a frame and a group
  norm.run([&](int64_t piece) { norm.undo_silu(piece, grad, x, grad_x, plain.data(), weighted.data()); },
           [&](int64_t n) {
             std::vector<double> levels(G), slopes(G);
             for (int64_t c = 0; c < C; ++c) {
               levels[norm.group(c)] += problem.weight[c] * norm.total(n, c, plain.data());
               slopes[norm.group(c)] += problem.weight[c] * norm.total(n, c, weighted.data());
             }
             for (int64_t g = 0; g < G; ++g) {
               group_plain[n * G + g] = static_cast<float>(levels[g] / norm.numbers());
               group_weighted[n * G + g] = static_cast<float>(slopes[g] / norm.numbers());
             }
           },
           [&](int64_t piece) { norm.undo_norm(piece, x, grad_x, group_plain.data(), group_weighted.data()); });
  for (int64_t c = 0; c < C; ++c) {
    double by_weight = 0, by_bias = 0;
    for (int64_t n = 0; n < problem.batch; ++n) {
      by_weight += norm.total(n, c, weighted.data());
      by_bias += norm.total(n, c, plain.data());
    }
    grad_weight[c] = static_cast<float>(by_weight);
    grad_bias[c] = static_cast<float>(by_bias);
  }
}

}  // namespace predgsplat::cpu
