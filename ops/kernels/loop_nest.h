#pragma once

// What the loop nests share: the call they run.

#include "ops/kernels/packed_weights.h"
#include "ops/kernels/team.h"

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

}  // namespace fusible::kernels
