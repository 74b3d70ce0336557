// What the programs of the tests exchange with them: arrays of floats on standard input and output.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

// Of exactly the size that is asked for, so that the address sanitizer sees what lies beyond.
struct Array {
  std::vector<float> x;

  explicit Array(int64_t size) : x(size, NAN) {}
  Array& read() {
    if (!x.empty() && fread(x.data(), sizeof(float), x.size(), stdin) != x.size()) exit(2);
    return *this;
  }
  void write() const {
    if (!x.empty()) fwrite(x.data(), sizeof(float), x.size(), stdout);
  }
};
