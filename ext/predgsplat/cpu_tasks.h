// Shared by the CPU kernels: tasks on torch's threads.
#pragma once

#include "kernels.h"

namespace predgsplat::cpu {

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Runs body(task) for each task on torch's threads.
template <class Body>
void in_parallel(int64_t tasks, const Body& body) {
  if (tasks == 1) return body(0);
  const auto call = [](int64_t task, void* context) { (*static_cast<const Body*>(context))(task); };
  parallel(tasks, call, const_cast<Body*>(&body));
}

}  // namespace predgsplat::cpu
