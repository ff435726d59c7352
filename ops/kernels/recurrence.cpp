#include "ops/kernels/recurrence.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "ops/kernels/isa.h"
#include "ops/kernels/loop_nest.h"
#include "ops/kernels/weight_memory.h"

namespace fusible::kernels {
namespace {

constexpr std::int64_t kSums = 1 << 18;      // floats of the product that is made ahead
constexpr std::int64_t kRowsAtOnce = 96;     // of that product, while weights are near
constexpr std::int64_t kMostTileRows = 12;
constexpr std::int64_t kMostGates = 4, kMostLanes = 16;
constexpr std::int64_t kWorthThreads = 1 << 17;  // products of a step, below which threads cost more to wake than they save

}  // namespace

PackedRecurrence::PackedRecurrence(CellKind kind, const at::Tensor& from_input, const at::Tensor& from_hidden, const at::Tensor& input_bias,
                                   const at::Tensor& hidden_bias)
    : kind_(kind), inputs_(from_input.size(1)), hidden_(from_hidden.size(1)), blocks_(divide_up(hidden_, isa().lanes)), block_floats_(gates() * isa().lanes) {
  from_input_ = pack(from_input.contiguous());
  from_hidden_ = pack(from_hidden.contiguous());
  input_bias_ = at::zeros({row_floats()}, at::kFloat);
  hidden_bias_ = at::zeros({row_floats()}, at::kFloat);
  if (input_bias.defined()) add_bias(input_bias.contiguous(), false);
  if (hidden_bias.defined()) add_bias(hidden_bias.contiguous(), true);
}

// A GRU's new gate multiplies what comes from the hidden state, its bias with it.
void PackedRecurrence::add_bias(const at::Tensor& bias, bool of_hidden) {
  for (std::int64_t gate = 0; gate < gates(); ++gate) {
    const bool apart = of_hidden && kind_ == CellKind::gru && gate == 2;
    float* const to = (apart ? hidden_bias_ : input_bias_).mutable_data_ptr<float>();
    for (std::int64_t unit = 0; unit < hidden_; ++unit)
      to[unit / isa().lanes * block_floats_ + gate * isa().lanes + unit % isa().lanes] += bias.const_data_ptr<float>()[gate * hidden_ + unit];
  }
}

// visit(row of the dense weight, where its first element is packed, how far apart its elements are there)
template <typename Visit>
void PackedRecurrence::visit_units(std::int64_t depth, const Visit& visit) const {
  const std::int64_t lanes = isa().lanes;
  for_each_range(blocks_, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t unit = begin * lanes; unit < std::min(end * lanes, hidden_); ++unit)
      for (std::int64_t gate = 0; gate < gates(); ++gate) {
        const std::int64_t in_tile = gate % isa().vectors, tile = gate - in_tile, width = std::min<std::int64_t>(isa().vectors, gates() - tile) * lanes;
        visit(gate * hidden_ + unit, (unit / lanes * block_floats_ + tile * lanes) * depth + in_tile * lanes + unit % lanes, width);
      }
  });
}

at::Tensor PackedRecurrence::pack(const at::Tensor& weight) const {
  const std::int64_t depth = weight.size(1);
  at::Tensor data = weight_memory(row_floats() * depth).zero_();
  const float* const from = weight.const_data_ptr<float>();
  float* const to = data.mutable_data_ptr<float>();
  visit_units(depth, [&](std::int64_t row, std::int64_t first, std::int64_t width) {
    for (std::int64_t k = 0; k < depth; ++k) to[first + k * width] = from[row * depth + k];
  });
  return data;
}

at::Tensor PackedRecurrence::unpack(const at::Tensor& packed, std::int64_t depth) const {
  at::Tensor weight = at::empty({gates() * hidden_, depth}, at::kFloat);
  const float* const from = packed.const_data_ptr<float>();
  float* const to = weight.mutable_data_ptr<float>();
  visit_units(depth, [&](std::int64_t row, std::int64_t first, std::int64_t width) {
    for (std::int64_t k = 0; k < depth; ++k) to[row * depth + k] = from[first + k * width];
  });
  return weight;
}

std::int64_t PackedRecurrence::tile_rows() const { return isa().most_rows(std::min<std::int32_t>(isa().vectors, static_cast<std::int32_t>(gates()))); }

// c[row][gate][lanes] = bias + rows W of one block, for at most a tile of rows.
void PackedRecurrence::multiply(const float* weights, std::int64_t depth, const float* bias, std::int64_t block, const float* const* rows,
                                std::int64_t m, float* c, std::int64_t c_stride) const {
  const std::int64_t lanes = isa().lanes;
  for (std::int64_t gate = 0; gate < gates(); gate += isa().vectors) {
    Tile t{};
    t.rows = rows;
    t.tap_stride = m;
    t.taps = 1;
    t.depth = depth;
    t.finish = true;
    t.vectors = static_cast<std::int32_t>(std::min<std::int64_t>(isa().vectors, gates() - gate));
    t.weight_stride = t.vectors * lanes;
    t.columns = static_cast<std::int32_t>(t.weight_stride);
    t.weights = weights + (block * block_floats_ + gate * lanes) * depth;
    t.bias = bias + block * block_floats_ + gate * lanes;
    t.prefetch = t.weights;
    t.c = c + gate * lanes;
    t.c_stride = c_stride;
    t.m = static_cast<std::int32_t>(m);
    isa().tile(t);
  }
}

void PackedRecurrence::project(const float* x, std::int64_t rows, float* sums) const {
  const std::int64_t pieces = divide_up(rows, kRowsAtOnce);
  const float *const weights = from_input_.const_data_ptr<float>(), *const bias = input_bias_.const_data_ptr<float>();
  for_each_task(blocks_ * pieces, [&](std::int64_t task) {
    const std::int64_t block = task / pieces, piece = task % pieces, end = rows * (piece + 1) / pieces;
    const float* pointers[kMostTileRows];
    for (std::int64_t row = rows * piece / pieces, m; row < end; row += m) {
      m = std::min(tile_rows(), end - row);
      for (std::int64_t i = 0; i < m; ++i) pointers[i] = x + (row + i) * inputs_;
      multiply(weights, inputs_, bias, block, pointers, m, sums + row * row_floats() + block * block_floats_, row_floats());
    }
  });
}

void PackedRecurrence::step(const Move& move, std::int64_t block) const {
  const std::int64_t first = block * isa().lanes, tiles = divide_up(move.rows, tile_rows());
  const float *const weights = from_hidden_.const_data_ptr<float>(), *const bias = hidden_bias_.const_data_ptr<float>();
  alignas(64) float from_hidden[kMostTileRows * kMostGates * kMostLanes];
  Cell cell{};
  cell.from_hidden = from_hidden;
  cell.from_input_stride = row_floats();
  cell.first = first;
  cell.units = std::min<std::int64_t>(isa().lanes, hidden_ - first);
  cell.state_stride = hidden_;
  cell.hidden_stride = move.hidden_stride;
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    const std::int64_t row = move.rows * tile / tiles;
    cell.rows = move.rows * (tile + 1) / tiles - row;
    multiply(weights, hidden_, bias, block, move.before + row, cell.rows, from_hidden, block_floats_);
    cell.from_input = move.sums + row * row_floats() + block * block_floats_;
    cell.before = move.before + row;
    cell.hidden = move.hidden + row * move.hidden_stride + first;
    cell.state = move.state ? move.state + row * hidden_ + first : nullptr;
    (kind_ == CellKind::lstm ? isa().lstm_cell : isa().gru_cell)(cell);
  }
}

namespace {

// A direction on its way through time: the second one begins at the end.
class Walk {
 public:
  Walk(const PackedRecurrence& weights, const Sequence& sequence, std::int64_t direction, std::int64_t directions)
      : weights_(weights), sequence_(sequence), backward_(direction == 1), stride_(directions * weights.hidden()), before_(sequence.batch) {
    const std::int64_t own = direction * sequence.batch * weights.hidden();
    y_ = sequence.y + direction * weights.hidden();
    state_ = sequence.state ? sequence.state + own : nullptr;
    last_ = sequence.last + own;
    for (std::int64_t b = 0; b < sequence.batch; ++b) before_[b] = sequence.h0 + own + b * weights.hidden();
  }

  // The sums of steps [begin, begin + count), counted as this direction walks.
  void project(std::int64_t begin, std::int64_t count, std::int64_t inputs) {
    first_ = backward_ ? sequence_.steps - begin - count : begin;
    if (!sums_.defined()) sums_ = at::empty({count * sequence_.batch * weights_.row_floats()}, at::kFloat);
    weights_.project(sequence_.x + first_ * sequence_.batch * inputs, count * sequence_.batch, sums_.mutable_data_ptr<float>());
  }

  void step_block(std::int64_t i, std::int64_t block) const {
    const std::int64_t t = time(i);
    weights_.step({sums_.const_data_ptr<float>() + (t - first_) * sequence_.batch * weights_.row_floats(), before_.data(), state_,
                   y_ + t * sequence_.batch * stride_, stride_, sequence_.batch},
                  block);
  }

  void advance(std::int64_t i) {
    for (std::int64_t b = 0; b < sequence_.batch; ++b) before_[b] = y_ + (time(i) * sequence_.batch + b) * stride_;
  }

  void finish() const {
    for (std::int64_t b = 0; b < sequence_.batch; ++b) std::copy_n(before_[b], weights_.hidden(), last_ + b * weights_.hidden());
  }

 private:
  std::int64_t time(std::int64_t i) const { return backward_ ? sequence_.steps - 1 - i : i; }

  const PackedRecurrence& weights_;
  const Sequence& sequence_;
  const bool backward_;
  const std::int64_t stride_;
  std::vector<const float*> before_;  // hidden states, of each in the batch
  std::int64_t first_ = 0;            // time of the first of sums_
  float *y_, *state_, *last_;
  at::Tensor sums_;
};

std::int64_t products_of_step(const PackedRecurrence& one, const Sequence& sequence) { return sequence.batch * one.row_floats() * one.hidden(); }

void run_steps(const std::vector<PackedRecurrence>& directions, const Sequence& sequence) {
  const auto count = static_cast<std::int64_t>(directions.size());
  const PackedRecurrence& one = directions[0];
  std::vector<Walk> walks;
  for (std::int64_t d = 0; d < count; ++d) walks.emplace_back(directions[d], sequence, d, count);
  const std::int64_t chunk = std::clamp<std::int64_t>(kSums / (sequence.batch * one.row_floats()), 1, sequence.steps);
  for (std::int64_t begin = 0; begin < sequence.steps; begin += chunk) {
    const std::int64_t end = std::min(sequence.steps, begin + chunk);
    for (Walk& walk : walks) walk.project(begin, end - begin, one.inputs());
    if (products_of_step(one, sequence) < kWorthThreads) {  // each direction by itself
      for_each_task(count, [&](std::int64_t d) {
        for (std::int64_t i = begin; i < end; ++i) {
          for (std::int64_t block = 0; block < one.blocks(); ++block) walks[d].step_block(i, block);
          walks[d].advance(i);
        }
      });
      continue;
    }
    for (std::int64_t i = begin; i < end; ++i) {
      const auto step = [&](std::int64_t task) { walks[task / one.blocks()].step_block(i, task % one.blocks()); };
      for_each_task(count * one.blocks(), step, i % 2 ? Order::back : Order::forth);
      for (Walk& walk : walks) walk.advance(i);
    }
  }
  for (const Walk& walk : walks) walk.finish();
}

}  // namespace

// A step takes some microseconds, as long as a parallel region of its own.
void run_layer(const std::vector<PackedRecurrence>& directions, const Sequence& sequence) {
  if (products_of_step(directions[0], sequence) < kWorthThreads) return run_steps(directions, sequence);
  with_team([&] { run_steps(directions, sequence); });
}

}  // namespace fusible::kernels
