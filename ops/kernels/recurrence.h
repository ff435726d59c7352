#pragma once

// LSTM and GRU layers on packed weights. fp32.
//
// The gates of `lanes` hidden units lie side by side, so that the cell follows on what the micro-kernel leaves in the first-level cache. What
// depends on the input alone is one product for many steps; a step multiplies the hidden state and applies the cell.

#include <vector>

#include <ATen/core/Tensor.h>

#include "fusible/export.h"

namespace fusible::kernels {

enum class CellKind { lstm, gru };

// One direction of one layer.
class FUSIBLE_API PackedRecurrence {
 public:
  // As torch keeps them (torch.nn.LSTM, torch.nn.GRU): from_input [gates * hidden, inputs], from_hidden [gates * hidden, hidden], biases
  // [gates * hidden] or undefined. Throws c10::Error when memory runs out.
  PackedRecurrence(CellKind kind, const at::Tensor& from_input, const at::Tensor& from_hidden, const at::Tensor& input_bias,
                   const at::Tensor& hidden_bias);

  // The weights as they were, contiguous, bit for bit.
  at::Tensor unpack_from_input() const { return unpack(from_input_, inputs_); }
  at::Tensor unpack_from_hidden() const { return unpack(from_hidden_, hidden_); }
  // Of each of the two, packed.
  std::int64_t bytes_from_input() const { return static_cast<std::int64_t>(from_input_.nbytes()); }
  std::int64_t bytes_from_hidden() const { return static_cast<std::int64_t>(from_hidden_.nbytes()); }

  std::int64_t inputs() const { return inputs_; }
  std::int64_t hidden() const { return hidden_; }
  std::int64_t blocks() const { return blocks_; }       // of `lanes` hidden units, each with all its gates
  std::int64_t row_floats() const { return blocks_ * block_floats_; }

  // sums[row] = W x[row] + bias, block by block; on all threads.
  void project(const float* x, std::int64_t rows, float* sums) const;

  // One step on. `sums`, `state` and `hidden` begin with the first of `rows`; `before` points to the hidden states. GRU: no state.
  struct Move {
    const float* sums;
    const float* const* before;
    float* state;
    float* hidden;
    std::int64_t hidden_stride, rows;
  };
  // The hidden units of one block; on the thread that asks.
  void step(const Move& move, std::int64_t block) const;

 private:
  template <typename Visit>
  void visit_units(std::int64_t depth, const Visit& visit) const;
  at::Tensor pack(const at::Tensor& weight) const;
  at::Tensor unpack(const at::Tensor& packed, std::int64_t depth) const;
  void add_bias(const at::Tensor& bias, bool of_hidden);
  std::int64_t gates() const { return kind_ == CellKind::lstm ? 4 : 3; }
  std::int64_t tile_rows() const;
  void multiply(const float* weights, std::int64_t depth, const float* bias, std::int64_t block, const float* const* rows, std::int64_t m,
                float* c, std::int64_t c_stride) const;

  CellKind kind_;
  std::int64_t inputs_, hidden_, blocks_, block_floats_;
  at::Tensor from_input_, from_hidden_;  // [block][tile][depth][vectors of the tile]
  at::Tensor input_bias_, hidden_bias_;  // [block][gate][lanes]
};

// Runs one layer over time. x: [steps][batch][inputs], dense; h0: [directions][batch][hidden]; state: an LSTM's c, of the same sizes, read
// and written; y: [steps][batch][directions * hidden]; last: the hidden states at the end, like h0. Same bits for any number of threads.
struct Sequence {
  const float* x;
  std::int64_t steps, batch;
  const float* h0;
  float* state;
  float* y;
  float* last;
};
FUSIBLE_API void run_layer(const std::vector<PackedRecurrence>& directions, const Sequence& sequence);

}  // namespace fusible::kernels
