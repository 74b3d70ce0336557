// Runs the CUDA kernels on a CPU, for the tests: included before a .cu file, it lets g++ compile it. A CUDA thread is a
// fibre. It runs until it must wait for others of its block; blocks run one after the other.
//
// The seed decides who goes on first, so that a missing barrier shows: shared memory is read before it is written, when
// it is NaN, or results differ from seed to seed. What CUDA leaves undefined stops the program: a barrier or a shuffle
// that some threads never reach, or reach at another line.
#pragma once

#include <math.h>
#include <sanitizer/common_interface_defs.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <source_location>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ [[gnu::noinline]] inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static
// The bounds of all shared variables: they are all that is in .bss of a .cu file, which the build renames cuda_shared.
extern "C" char __start_cuda_shared[], __stop_cuda_shared[];

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
using cudaStream_t = struct Stream*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream;
};

namespace cuda_on_cpu {

using Where = std::source_location;

[[noreturn]] inline void fail(const char* message, const Where& where) {
  fprintf(stderr, "%s:%u: %s\n", where.file_name(), where.line(), message);
  _Exit(3);  // from a fibre, whose stack the sanitizer at exit does not know
}

struct Fibre {
  size_t size = 128 << 10;
  std::unique_ptr<char[]> stack{new char[size]};
  const void* bottom = stack.get();
  void* registers[5];
  bool started = false;
  unsigned thread = 0;
};

// Where fibres wait until all have come. What they bring can be read until they have met twice more.
struct Meeting {
  unsigned expected;
  unsigned turn = 0;
  std::vector<Fibre*> waiting = {};
  Where where = {};
  uint32_t brought[2][32] = {};
};

struct Device {
  std::vector<std::unique_ptr<Fibre>> fibres;
  std::deque<Fibre*> ready;
  Fibre main, *current = &main;
  std::vector<Meeting> warps;
  Meeting all{0};
  unsigned finished = 0;
  dim3 block, grid, threads;
  std::function<void()> kernel, before_launch;  // the latter, if any, runs before each kernel
  uint64_t seed = 0;

  uint64_t random() { return (seed = seed * 6364136223846793005u + 1442695040888963407u) >> 33; }
};
inline Device device;

// In the order of the threads and behind all others for seed 0. Else in any order, and now and then before all others,
// so that a warp may run far ahead.
inline void make_ready(std::vector<Fibre*> fibres) {
  if (device.seed)
    for (size_t k = fibres.size(); k > 1; --k) std::swap(fibres[k - 1], fibres[device.random() % k]);
  const bool first = device.seed && device.random() % 2;
  device.ready.insert(first ? device.ready.begin() : device.ready.end(), fibres.begin(), fibres.end());
}

[[gnu::noinline, gnu::no_sanitize("address", "undefined")]] inline void jump(Fibre* from, Fibre* to, void (*begin)()) {
  if (__builtin_setjmp(from->registers)) return;
  if (to->started || to == &device.main) __builtin_longjmp(to->registers, 1);
  to->started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = to->stack.get();
  context.uc_stack.ss_size = to->size;
  makecontext(&context, begin, 0);
  setcontext(&context);
}

void run_kernels();

inline void switch_to(Fibre* to) {
  Fibre* const from = device.current;
  void* fake_stack;
  __sanitizer_start_switch_fiber(&fake_stack, to->bottom, to->size);
  device.current = to;
  jump(from, to, run_kernels);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

// The current fibre waits, or has finished its block.
inline void go_on(const Where& where) {
  if (device.ready.empty()) {
    if (device.finished < device.fibres.size()) fail("threads wait here for others that never come", where);
    return switch_to(&device.main);
  }
  Fibre* const next = device.ready.front();
  device.ready.pop_front();
  if (next != device.current) switch_to(next);
}

inline void run_kernels() {
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (!device.main.bottom) device.main.bottom = bottom, device.main.size = size;
  for (;;) {
    device.kernel();
    ++device.finished;
    for (const Meeting& meeting : device.warps)
      if (!meeting.waiting.empty() && device.ready.empty()) fail("threads wait here for one that returned", meeting.where);
    go_on(device.all.where);
  }
}

inline void meet(Meeting& meeting, const Where& where) {
  if (meeting.waiting.empty()) meeting.where = where;
  if (meeting.where.line() != where.line() || strcmp(meeting.where.file_name(), where.file_name()))
    fail("a thread arrives here while others wait at another line", where);
  if (meeting.waiting.size() + 1 < meeting.expected) {
    meeting.waiting.push_back(device.current);
    return go_on(where);
  }
  ++meeting.turn;
  make_ready(std::exchange(meeting.waiting, {}));
}

// What each lane of the warp brings.
inline const uint32_t* exchange(unsigned mask, uint32_t mine, const Where& where) {
  if (mask != 0xffffffffu) fail("only whole warps are known here", where);
  Meeting& warp = device.warps[device.current->thread / 32];
  uint32_t* const brought = warp.brought[warp.turn % 2];
  brought[device.current->thread % 32] = mine;
  meet(warp, where);
  return brought;
}

inline float shuffle(unsigned mask, float mine, unsigned source, const Where& where) {
  uint32_t bits;
  memcpy(&bits, &mine, 4);
  bits = exchange(mask, bits, where)[source % 32];
  memcpy(&mine, &bits, 4);
  return mine;
}

[[gnu::no_sanitize("address")]] inline void poison_shared_memory() {
  for (volatile char* p = __start_cuda_shared; p < __stop_cuda_shared; ++p) *p = -1;  // NaN
}

inline void run_block() {
  poison_shared_memory();
  device.finished = 0;
  std::vector<Fibre*> fibres;
  for (const auto& fibre : device.fibres) fibres.push_back(fibre.get());
  make_ready(fibres);
  go_on(Where::current());
}

inline void run(const cudaLaunchConfig_t& config, std::function<void()> kernel) {
  if (device.before_launch) device.before_launch();
  device.kernel = std::move(kernel);
  device.grid = config.gridDim;
  device.threads = config.blockDim;
  device.main.bottom = device.fibres.empty() ? nullptr : device.main.bottom;
  while (device.fibres.size() < config.blockDim.x) {
    device.fibres.push_back(std::make_unique<Fibre>());
    device.fibres.back()->thread = device.fibres.size() - 1;
  }
  device.all.expected = config.blockDim.x;
  device.warps.resize(config.blockDim.x / 32, Meeting{32});
  for (unsigned y = 0; y < config.gridDim.y; ++y)
    for (unsigned x = 0; x < config.gridDim.x; ++x) {
      device.block = {x, y};
      run_block();
    }
}

}  // namespace cuda_on_cpu

#define threadIdx (dim3{cuda_on_cpu::device.current->thread, 0, 0})
#define blockIdx (cuda_on_cpu::device.block)

inline void __syncthreads(cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::meet(cuda_on_cpu::device.all, where);
}
inline float __shfl_sync(unsigned mask, float x, int lane, cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  return cuda_on_cpu::shuffle(mask, x, lane, where);
}
inline float __shfl_xor_sync(unsigned mask, float x, int with,
                             cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  return cuda_on_cpu::shuffle(mask, x, cuda_on_cpu::device.current->thread ^ with, where);
}
inline unsigned __ballot_sync(unsigned mask, bool vote, cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  const uint32_t* votes = cuda_on_cpu::exchange(mask, vote, where);
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane) ballot |= votes[lane] << lane;
  return ballot;
}
// float16, as cuda_fp16.h has it, by arithmetic on its 11 digits.
struct __half {
  uint16_t bits;
};
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline uint16_t __half_as_ushort(__half x) { return x.bits; }
inline float __half2float(__half x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  const float finite = exponent ? ldexpf(1024 + fraction, exponent - 25) : ldexpf(fraction, -24);
  return copysignf(exponent < 31 ? finite : fraction ? NAN : INFINITY, x.bits & 0x8000 ? -1.0f : 1.0f);
}
inline __half __float2half_rn(float x) {
  const int sign = signbit(x) ? 0x8000 : 0;
  if (isnan(x)) return {0x7fff};
  if (fabsf(x) >= 65520) return {static_cast<uint16_t>(sign | 0x7c00)};
  int exponent;
  frexpf(x, &exponent);
  exponent = x == 0.0f ? -13 : std::max(exponent, -13);
  const int digits = nearbyintf(ldexpf(fabsf(x), 11 - exponent));
  return {static_cast<uint16_t>(sign | (((exponent + 13) << 10) + digits))};
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
using std::min;

template <class... Wanted, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Wanted...), Given... arguments) {
  cuda_on_cpu::run(*config, [=] { kernel(arguments...); });
  return cudaSuccess;
}
