#pragma once

// What the loop nests share: the call they run, and how its tasks meet the threads.

#include <algorithm>
#include <atomic>

#include <ATen/Parallel.h>

#include "ops/kernels/packed_weights.h"

namespace fusible::kernels {

struct PackedWeights::Job {
  const float* x;
  Pixels in, out;
  float* y;
  std::int64_t y_stride;
  const std::vector<Step>* chain;
  std::int64_t images, rows;  // rows of the phase per image; images are 1 where rows of all images are counted as one
  std::int64_t taps, depth;   // as the micro-kernel sees them
  const Phase* phase;
  std::int64_t frames, lines, columns;  // of the phase: which results it has
  // What x and y begin with, where they hold some lines of one image only, and that image for the chain's operands.
  std::int64_t x_line = 0, y_row = 0, chain_image = 0;
};

// Some results of a phase that lie evenly in memory: the first one, and the chain whose operands step as they do.
struct PackedWeights::Run {
  float* c;
  const Step* chain;
  std::int64_t row;
};

// The chain for rows that lie `distance` apart, from row `row` of an image on: its operands step as the rows do. Kept per thread, until the next one.
const std::vector<Step>& stepping_chain(const std::vector<Step>& chain, std::int64_t image, std::int64_t row, std::int64_t distance);

// Kept per thread: a call allocates only when it needs more rows than any before it.
std::vector<const float*>& row_pointers(std::int64_t count);

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline std::int64_t round_up(std::int64_t n, std::int64_t step) { return divide_up(n, step) * step; }

struct alignas(64) TaskRun {
  std::atomic<std::int64_t> next;
  std::int64_t end;
};

// Each thread has a run of tasks of its own, so that it reads what it wrote in the layer before, and then takes from the others': a busy core
// does not stall the rest.
template <typename Task>
void for_each_task(std::int64_t tasks, Task task) {
  constexpr std::int64_t kMostThreads = 64;
  const std::int64_t threads = std::min({static_cast<std::int64_t>(at::get_num_threads()), tasks, kMostThreads});
  if (threads <= 1 || at::in_parallel_region()) {
    for (std::int64_t i = 0; i < tasks; ++i) task(i);
    return;
  }
  TaskRun runs[kMostThreads];
  for (std::int64_t t = 0; t < threads; ++t) {
    runs[t].next.store(tasks * t / threads, std::memory_order_relaxed);
    runs[t].end = tasks * (t + 1) / threads;
  }
  at::parallel_for(0, threads, 1, [&](std::int64_t own, std::int64_t) {
    for (std::int64_t t = own; t < own + threads; ++t) {
      TaskRun& run = runs[t % threads];
      for (std::int64_t i; (i = run.next.fetch_add(1, std::memory_order_relaxed)) < run.end;) task(i);
    }
  });
}

}  // namespace fusible::kernels
