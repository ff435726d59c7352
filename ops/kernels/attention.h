#pragma once

// Scaled dot-product attention over float matrices of heads, without the matrix of all scores in memory: some rows of it at a time.

#include <cstdint>

#include "fusible/export.h"

namespace fusible::kernels {

// y[b][h][i] = sum over j of softmax_j(scale q[b][h][i] . k[b][h][j] + mask[b][h][i][j]) v[b][h][j]
struct Attention {
  // Rows of one (batch, head): `row` floats apart, each of them dense.
  struct Rows {
    std::int64_t batch, head, row;  // strides; 0 where one row, head or batch stands for all
  };
  const float *q, *k, *v;
  const float* mask = nullptr;  // added to the scores; null: none
  float* y;
  std::int64_t batches, heads, queries, keys;
  std::int64_t width, value_width;  // of the rows of q and k; of v and y
  Rows q_at, k_at, v_at, y_at, mask_at{};
  float scale;
  bool causal;  // keys behind a query's own index are not seen
};

// Longer rows of scores leave the second-level cache.
constexpr std::int64_t kMostKeys = 8192;

// On all threads. A row whose keys are all masked by -inf is 0, one with NaN is NaN. Same bits for any number of threads.
FUSIBLE_API void attention(const Attention& a);

}  // namespace fusible::kernels
