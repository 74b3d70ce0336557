// Structural similarity of frames on a CPU, and its gradient by the forecast in the same pass. Four maps of a plane are
// averaged over Gaussian windows: x, y, x² + y² and xy; every window gives a similarity and its derivatives by three of them,
// which the same averages, over maps with a border of zeros, carry back to the pixels.
#include "simd.h"

#include "cpu_tasks.h"

#include <algorithm>
#include <vector>

namespace predgsplat::cpu {
namespace {

constexpr int64_t PARTS = 64;  // of the planes, the most that are worked on at a time
constexpr int USUAL = 11;      // rows and columns of the window of all but small frames
constexpr int ROWS = 4;        // of an average at a time

// A map with a border of `border` zeros above and left of it, and as many or more below and right.
class Map {
 public:
  Map(int64_t height, int64_t width, int64_t border)
      : border_(border),
        pitch_(round_up(width + 2 * border, LANES) + LANES),
        vectors_((height + 2 * border + ROWS) * pitch_ / LANES) {}

  float* row(int64_t y) { return reinterpret_cast<float*>(vectors_.data()) + (y + border_) * pitch_ + border_; }
  const float* corner() const { return reinterpret_cast<const float*>(vectors_.data()); }
  int64_t pitch() const { return pitch_; }

 private:
  int64_t border_, pitch_;
  std::vector<Lanes> vectors_;
};

class Window {
 public:
  explicit Window(const Similarity& problem) : size_(problem.size), weights_(problem.window, problem.window + size_) {}

  // Means over the windows of `from`, its border included, into the rows and columns of `to`.
  void average(const Map& from, Map& to, int64_t rows, int64_t columns) {
    between_.resize(ROWS * from.pitch() / LANES);
    for (int64_t y = 0; y < rows; y += ROWS) {
      if (size_ == USUAL) {
        pass<USUAL>(from, y, to, rows, columns);
      } else {
        pass<0>(from, y, to, rows, columns);
      }
    }
  }

 private:
  // ROWS rows of means: down the columns first, then along the rows. SIZE 0: any size.
  template <int SIZE>
  void pass(const Map& from, int64_t y, Map& to, int64_t rows, int64_t columns) {
    const int size = SIZE ? SIZE : size_;
    const int64_t pitch = from.pitch(), seen = columns + size - 1;
    const float* in = from.corner() + y * pitch;
    const float* weights = weights_.data();
    float* between = reinterpret_cast<float*>(between_.data());
    for (int64_t x = 0; x < seen; x += LANES) {
      Lanes sum[ROWS] = {};
#pragma GCC unroll 16
      for (int r = 0; r < size + ROWS - 1; ++r) {
        const Lanes v = load(in + r * pitch + x);
#pragma GCC unroll 4
        for (int m = 0; m < ROWS; ++m)
          if (r - m >= 0 && r - m < size) sum[m] += weights[r - m] * v;
      }
      for (int m = 0; m < ROWS; ++m) store(between + m * pitch + x, sum[m]);
    }
    for (int64_t m = 0; m < std::min<int64_t>(ROWS, rows - y); ++m) {
      float* out = to.row(y + m);
      for (int64_t x = 0; x < columns; x += LANES) {
        Lanes sum{};
#pragma GCC unroll 16
        for (int j = 0; j < size; ++j) sum += weights[j] * load(between + m * pitch + x + j);
        store(out + x, zero_unless(before(columns - x), sum));  // the border stays 0
      }
    }
  }

  int size_;
  std::vector<float> weights_;
  std::vector<Lanes> between_;
};

// Works on planes one after the other.
class Planes {
 public:
  explicit Planes(const Similarity& problem)
      : p_(problem),
        window_(problem),
        rows_(problem.height - problem.size + 1),
        columns_(problem.width - problem.size + 1),
        x_(p_.height, p_.width, 0), y_(p_.height, p_.width, 0), squares_(p_.height, p_.width, 0),
        product_(p_.height, p_.width, 0), weight_(weighted(p_.height), weighted(p_.width), 0),
        missing_(weighted(p_.height), weighted(p_.width), 0), mean_x_(rows_, columns_, p_.size - 1),
        mean_y_(rows_, columns_, 0), mean_squares_(rows_, columns_, p_.size - 1),
        mean_product_(rows_, columns_, p_.size - 1), mean_weight_(weighted(rows_), weighted(columns_), 0),
        mean_missing_(weighted(rows_), weighted(columns_), 0), back_(p_.height, p_.width, 0) {}

  void run(int64_t plane, float* sum, float* total, float* grad) {
    const int64_t offset = plane * p_.height * p_.width;
    read(offset);
    window_.average(x_, mean_x_, rows_, columns_);
    window_.average(y_, mean_y_, rows_, columns_);
    window_.average(squares_, mean_squares_, rows_, columns_);
    window_.average(product_, mean_product_, rows_, columns_);
    if (p_.weight) {
      window_.average(weight_, mean_weight_, rows_, columns_);
      window_.average(missing_, mean_missing_, rows_, columns_);
    }
    const float span = p_.span[plane % p_.channels];
    double similar = 0, weight = 0;
    for (int64_t y = 0; y < rows_; ++y) compare(y, 1e-4f * span * span, 9e-4f * span * span, similar, weight);
    sum[plane] = static_cast<float>(similar);
    total[plane] = static_cast<float>(weight);
    if (grad) carry_back(grad + offset);
  }

 private:
  int64_t weighted(int64_t length) const { return p_.weight ? length : 0; }

  // The maps of a plane from its pixels.
  void read(int64_t offset) {
    for (int64_t y = 0; y < p_.height; ++y) {
      const int64_t start = offset + y * p_.width;
      for (int64_t i = 0; i < p_.width; i += LANES) {
        const int count = static_cast<int>(std::min<int64_t>(LANES, p_.width - i));
        const Lanes x = load_some<1>(p_.x + start + i, count), target = load_some<1>(p_.y + start + i, count);
        store(x_.row(y) + i, x);
        store(y_.row(y) + i, target);
        store(squares_.row(y) + i, x * x + target * target);
        store(product_.row(y) + i, x * target);
      }
      if (!p_.weight) continue;
      const float* weight = p_.weight + offset + y * p_.width;
      for (int64_t i = 0; i < p_.width; ++i) {
        weight_.row(y)[i] = weight[i];
        missing_.row(y)[i] = weight[i] == 0.0f;
      }
    }
  }

  // A row of windows: adds their similarities and weights, and puts the derivatives in the place of the means.
  void compare(int64_t row, float c1, float c2, double& similar, double& total) {
    float *mean_x = mean_x_.row(row), *squares = mean_squares_.row(row), *product = mean_product_.row(row);
    const float* mean_y = mean_y_.row(row);
    Lanes sum{}, weights{};
    for (int64_t column = 0; column < columns_; column += LANES) {
      const Ints inside = before(columns_ - column);
      Lanes weight = zero_unless(inside, broadcast(1.0f));
      if (p_.weight) {
        const Ints whole = load(mean_missing_.row(row) + column) == 0.0f;
        weight = zero_unless(inside & whole, load(mean_weight_.row(row) + column));
      }
      const Lanes x = load(mean_x + column), y = load(mean_y + column);
      const Lanes luminance = 2.0f * x * y + c1, levels = x * x + y * y + c1;
      const Lanes structure = 2.0f * (load(product + column) - x * y) + c2;
      const Lanes variances = (load(squares + column) - x * x) - y * y + c2;
      const Lanes inverse = 1.0f / (levels * variances), similarity = luminance * structure * inverse;
      const Lanes counted = similarity * weight, scale = zero_unless(inside, weight * inverse);
      sum += zero_unless(inside, counted);
      weights += weight;
      const Lanes by_x = 2.0f * scale * (y * (structure - luminance) + similarity * x * (levels - variances));
      store(mean_x + column, zero_unless(inside, by_x));
      store(squares + column, zero_unless(inside, -similarity * levels * scale));
      store(product + column, zero_unless(inside, 2.0f * luminance * scale));
    }
    similar += predgsplat::sum(sum);
    total += predgsplat::sum(weights);
  }

  // From the derivatives by the means to those by the pixels of x.
  void carry_back(float* grad) {
    Map* const from[] = {&mean_x_, &mean_squares_, &mean_product_};
    Map* const to[] = {&back_, &squares_, &product_};
    for (int i = 0; i < 3; ++i) window_.average(*from[i], *to[i], p_.height, p_.width);
    for (int64_t y = 0; y < p_.height; ++y) {
      const float *x = x_.row(y), *target = y_.row(y), *by_x = back_.row(y);
      const float *by_squares = squares_.row(y), *by_product = product_.row(y);
      for (int64_t i = 0; i < p_.width; i += LANES) {
        const Lanes by = load(by_x + i) + 2.0f * load(x + i) * load(by_squares + i) + load(target + i) * load(by_product + i);
        store_some(grad + y * p_.width + i, by, static_cast<int>(std::min<int64_t>(LANES, p_.width - i)));
      }
    }
  }

  const Similarity& p_;
  Window window_;
  int64_t rows_, columns_;
  Map x_, y_, squares_, product_, weight_, missing_;
  Map mean_x_, mean_y_, mean_squares_, mean_product_, mean_weight_, mean_missing_;
  Map back_;
};

}  // namespace

void similarity(const Similarity& problem, float* sums, float* totals, float* grad) {
  const int64_t parts = std::min(problem.planes, PARTS);
  in_parallel(parts, [&](int64_t part) {
    Planes planes(problem);
    const int64_t end = (part + 1) * problem.planes / parts;
    for (int64_t plane = part * problem.planes / parts; plane < end; ++plane) planes.run(plane, sums, totals, grad);
  });
}

}  // namespace predgsplat::cpu
