#pragma once
// The gates of a recurrent cell, a vector of hidden units at a time.

#include "ops/kernels/isa.h"
#include "ops/kernels/simd/rows.h"

namespace fusible::kernels {
namespace {

// Gates in torch's order: input, forget, cell, output. c = f c + i g, h = o tanh(c).
void lstm_cell(const Cell& t) {
  for (std::int64_t r = 0; r < t.rows; ++r) {
    const auto gate = [&](int i) {
      return load(t.from_hidden + (r * 4 + i) * kLanes) + load(t.from_input + r * t.from_input_stride + i * kLanes);
    };
    float* const state = t.state + r * t.state_stride;
    const Vector c = sigmoid(gate(1)) * read(state, t.units) + sigmoid(gate(0)) * tanh(gate(2));
    write(state, c, t.units);
    write(t.hidden + r * t.hidden_stride, sigmoid(gate(3)) * tanh(c), t.units);
  }
}

// Gates in torch's order: reset, update, new. n = tanh(x + r h), h = (h - n) z + n.
void gru_cell(const Cell& t) {
  for (std::int64_t r = 0; r < t.rows; ++r) {
    const float* const h = t.from_hidden + r * 3 * kLanes;
    const float* const x = t.from_input + r * t.from_input_stride;
    const Vector reset = sigmoid(load(h) + load(x)), update = sigmoid(load(h + kLanes) + load(x + kLanes));
    const Vector n = tanh(load(x + 2 * kLanes) + reset * load(h + 2 * kLanes));
    write(t.hidden + r * t.hidden_stride, (read(t.before[r] + t.first, t.units) - n) * update + n, t.units);
  }
}

}  // namespace
}  // namespace fusible::kernels
