// Tasks are some queries of one head. A task lays out its head's keys, transposed, and values as panels of the contractions' micro-kernel, and
// then takes a chunk of queries at a time: scores, softmax in place, product with the values. The division by the sum of a row is the
// product's post-op: it meets value_width numbers instead of `keys`. Scores in chunks as in FlashAttention (Dao et al., 2022); a whole row is held, so
// that its softmax needs no second scaling.

#include "ops/kernels/attention.h"

#include <algorithm>
#include <vector>

#include "ops/kernels/loop_nest.h"

namespace fusible::kernels {

namespace {

constexpr std::int64_t kScores = 32 << 10;  // floats of scores that a chunk holds
constexpr std::int64_t kPart = 512;         // keys whose products are summed at once, as in contractions
constexpr std::int64_t kBlock = 512;        // keys that ATen's FlashAttention leaves out together

// Panels of a matrix [depth][columns], each [depth][panel]: the widest that a tile takes.
struct Panels {
  std::int64_t depth, columns, panel;
  Panels(std::int64_t d, std::int64_t c) : depth(d), columns(c), panel(std::min<std::int64_t>(isa().vectors * isa().lanes, round_up(c, isa().lanes))) {}
  std::int64_t count() const { return divide_up(columns, panel); }
  std::int64_t floats() const { return count() * panel * depth; }
};

class Head {
 public:
  Head(const Attention& a, std::vector<float>& memory)
      : a_(a), keys_(a.width, a.keys), values_(a.keys, a.value_width), row_(keys_.count() * keys_.panel) {
    chunk_ = std::clamp<std::int64_t>(kScores / row_, 12, 96);
    const std::int64_t zeros = isa().vectors * isa().lanes;
    const std::int64_t needed = keys_.floats() + values_.floats() + chunk_ * (row_ + 1) + zeros;
    if (static_cast<std::int64_t>(memory.size()) < needed) memory.resize(needed);
    packed_keys_ = memory.data();
    packed_values_ = packed_keys_ + keys_.floats();
    scores_ = packed_values_ + values_.floats();
    inverse_ = scores_ + chunk_ * row_;
    zeros_ = inverse_ + chunk_;
    std::fill_n(zeros_, zeros, 0.0f);
  }

  void run(std::int64_t batch, std::int64_t head, std::int64_t begin, std::int64_t end) {
    pack(a_.k + batch * a_.k_at.batch + head * a_.k_at.head, a_.v + batch * a_.v_at.batch + head * a_.v_at.head);
    const auto of = [&](auto* base, const Attention::Rows& at, std::int64_t row) { return base + batch * at.batch + head * at.head + row * at.row; };
    for (std::int64_t first = begin, count = 0; first < end; first += count) {
      count = std::min({chunk_, end - first, a_.causal ? kBlock - first % kBlock : chunk_});
      const std::int64_t read = keys_read(first);
      multiply(of(a_.q, a_.q_at, first), a_.q_at.row, count, packed_keys_, keys_, keys_.depth, read, scores_, row_, nullptr);
      soften(first, count, read, a_.mask ? of(a_.mask, a_.mask_at, first) : nullptr);
      Step divide{};
      divide.kind = StepKind::mul;
      divide.operand = inverse_;
      divide.row_stride = 1;
      multiply(scores_, row_, count, packed_values_, values_, read, values_.columns, of(a_.y, a_.y_at, first), a_.y_at.row, &divide);
    }
  }

 private:
  // Keys whose values a query is multiplied with, seen or not, which 0 * NaN tells: ATen's FlashAttention ends with the query's own block. Values
  // of another width it does not take, and then all are multiplied.
  std::int64_t keys_read(std::int64_t query) const {
    return a_.causal && a_.width == a_.value_width ? std::min(a_.keys, round_up(query + 1, kBlock)) : a_.keys;
  }

  void pack(const float* k, const float* v) const {
    for (std::int64_t panel = 0; panel < keys_.count(); ++panel) {
      const std::int64_t first = panel * keys_.panel, filled = std::min(keys_.panel, a_.keys - first);
      float* const to = packed_keys_ + first * keys_.depth;
      isa().transpose(k + first * a_.k_at.row, a_.k_at.row, filled, keys_.depth, to, keys_.panel);
      if (filled < keys_.panel)
        for (std::int64_t d = 0; d < keys_.depth; ++d) std::fill(to + d * keys_.panel + filled, to + (d + 1) * keys_.panel, 0.0f);
    }
    for (std::int64_t panel = 0; panel < values_.count(); ++panel) {
      const std::int64_t first = panel * values_.panel, filled = std::min(values_.panel, a_.value_width - first);
      float* to = packed_values_ + first * values_.depth;
      for (std::int64_t j = 0; j < a_.keys; ++j, to += values_.panel)
        std::fill(std::copy_n(v + j * a_.v_at.row + first, filled, to), to + values_.panel, 0.0f);
    }
  }

  // c[i] = chain(rows[i] . weights) of the first `depth` and `columns` of them, whole panels where `chain` is null.
  void multiply(const float* rows, std::int64_t stride, std::int64_t count, const float* weights, const Panels& p, std::int64_t depth, std::int64_t columns,
                float* c, std::int64_t c_stride, const Step* chain) const {
    const float* pointers[32];
    Tile t{};
    t.rows = pointers;
    t.taps = 1;
    t.tap_stride = 1;
    t.weight_stride = p.panel;
    t.bias = zeros_;
    t.c_stride = c_stride;
    t.chain = chain;
    t.steps = chain ? 1 : 0;
    for (t.channel = 0; t.channel < columns; t.channel += p.panel) {
      t.columns = static_cast<std::int32_t>(chain ? std::min(p.panel, columns - t.channel) : p.panel);
      t.vectors = static_cast<std::int32_t>(divide_up(t.columns, isa().lanes));
      const std::int64_t tiles = divide_up(count, isa().most_rows(t.vectors)), parts = divide_up(depth, kPart);
      for (std::int64_t part = 0; part < parts; ++part) {
        const std::int64_t from = depth * part / parts;
        t.depth = depth * (part + 1) / parts - from;
        t.offset = from;
        t.resume = part > 0;
        t.finish = part + 1 == parts;
        t.weights = weights + t.channel * p.depth + from * p.panel;
        t.prefetch = t.weights;
        for (std::int64_t tile = 0; tile < tiles; ++tile) {
          const std::int64_t first = count * tile / tiles;
          t.m = static_cast<std::int32_t>(count * (tile + 1) / tiles - first);
          for (std::int32_t i = 0; i < t.m; ++i) pointers[i] = rows + (first + i) * stride;
          t.row = first;
          t.c = c + first * c_stride + t.channel;
          isa().tile(t);
        }
      }
    }
  }

  // Scores to e^(score - greatest), their sums to inverse_.
  void soften(std::int64_t first, std::int64_t count, std::int64_t read, const float* mask) const {
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t seen = a_.causal ? std::min(a_.keys, first + i + 1) : a_.keys;
      inverse_[i] = isa().softmax(scores_ + i * row_, seen, a_.scale, mask ? mask + i * a_.mask_at.row : nullptr);
      std::fill(scores_ + i * row_ + seen, scores_ + i * row_ + read, 0.0f);
    }
  }

  const Attention& a_;
  Panels keys_, values_;
  std::int64_t row_, chunk_;  // floats of a row of scores; rows of a chunk
  float *packed_keys_, *packed_values_, *scores_, *inverse_, *zeros_;
};

}  // namespace

void attention(const Attention& a) {
  constexpr std::int64_t kLeastQueries = 64;  // of a task: what laying out the keys and values is worth
  const std::int64_t heads = a.batches * a.heads;
  const std::int64_t pieces =
      std::clamp<std::int64_t>(divide_up(4 * at::get_num_threads(), heads), 1, std::max<std::int64_t>(1, a.queries / kLeastQueries));
  for_each_task(heads * pieces, [&](std::int64_t i) {
    thread_local std::vector<float> memory;
    const std::int64_t head = i / pieces, piece = i % pieces;
    Head(a, memory).run(head / a.heads, head % a.heads, a.queries * piece / pieces, a.queries * (piece + 1) / pieces);
  });
}

}  // namespace fusible::kernels
