// scaled_dot_product_attention: heads as rows of what the linears before it gave, in place.

#include <cmath>

#include <ATen/ATen.h>

#include "ops/kernels/attention.h"
#include "ops/region/plan.h"

namespace fusible {
namespace {

using kernels::Attention;

// [batch, head, row, element], or [batch, row, element] of one head.
std::int64_t size_from_end(const std::vector<std::int64_t>& sizes, size_t back) { return sizes[sizes.size() - back]; }

class AttentionStep : public Step {
 public:
  // `mask`: -1 for none.
  AttentionStep(std::int64_t q, std::int64_t k, std::int64_t v, std::int64_t mask, std::int64_t y, double scale, bool causal)
      : q_(q), k_(k), v_(v), mask_(mask), y_(y), scale_(scale), causal_(causal) {}

  void run(Frame& frame) const override {
    const at::Tensor q = rows_of(frame.tensor(q_)), k = rows_of(frame.tensor(k_)), v = rows_of(frame.tensor(v_));
    const at::Tensor y = with_heads(frame.tensor(y_));
    Attention a{};
    a.q = q.const_data_ptr<float>();
    a.k = k.const_data_ptr<float>();
    a.v = v.const_data_ptr<float>();
    a.y = frame.write(y_);
    a.batches = q.size(0);
    a.heads = q.size(1);
    a.queries = q.size(2);
    a.keys = k.size(2);
    a.width = q.size(3);
    a.value_width = v.size(3);
    a.q_at = strides_of(q);
    a.k_at = strides_of(k);
    a.v_at = strides_of(v);
    a.y_at = strides_of(y);
    at::Tensor mask;
    if (mask_ >= 0) {
      auto scores = frame.slot(q_).sizes;
      scores.back() = a.keys;
      mask = rows_of(frame.tensor(mask_).expand(scores));
      a.mask = mask.const_data_ptr<float>();
      a.mask_at = strides_of(mask);
    }
    a.scale = static_cast<float>(scale_);
    a.causal = causal_;
    kernels::attention(a);
  }

 private:
  static at::Tensor with_heads(const at::Tensor& x) { return x.dim() == 3 ? x.unsqueeze(1) : x; }
  static Attention::Rows strides_of(const at::Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2)}; }

  // Four dimensions, rows dense.
  static at::Tensor rows_of(const at::Tensor& tensor) {
    const at::Tensor x = with_heads(tensor);
    return x.stride(3) == 1 ? x : x.contiguous();
  }

  std::int64_t q_, k_, v_, mask_, y_;
  double scale_;
  bool causal_;
};

// A mask of as many keys that broadcasting does not let enlarge the scores, [queries, keys] behind any of the other dimensions.
bool is_mask(const std::vector<std::int64_t>& mask, const std::vector<std::int64_t>& q, std::int64_t keys) {
  if (mask.size() < 2 || mask.size() > q.size() || mask.back() != keys) return false;
  for (size_t back = 2; back <= mask.size(); ++back)
    if (size_from_end(mask, back) != 1 && size_from_end(mask, back) != size_from_end(q, back)) return false;
  return true;
}

}  // namespace

bool attention_looks_at_strides(const Instruction& instruction, const std::vector<at::Tensor>& registers) {
  if (instruction.op.name != "aten::scaled_dot_product_attention" || instruction.arguments[3].kind == Argument::Kind::one) return false;
  const auto given = [&](size_t i) -> const at::Tensor& {
    const Argument& argument = instruction.arguments[i];
    return argument.kind == Argument::Kind::one ? registers[argument.registers[0]] : argument.value.toTensor();
  };
  constexpr std::int64_t kVector = 16;  // floats of the widest
  const at::Tensor &q = given(0), &v = given(2);
  return q.dim() == 4 && v.dim() == 4 && q.size(3) == v.size(3) && v.size(2) < kVector;
}

std::unique_ptr<Step> make_attention(Making& making) {
  const Instruction& instruction = making.instruction;
  if (instruction.op.name != "aten::scaled_dot_product_attention") return nullptr;
  for (size_t i : {0, 1, 2})
    if (!making.is_register(i)) return nullptr;
  const bool masked = making.is_register(3);
  if (!masked && !making.value(3).isNone()) return nullptr;
  for (size_t i : {4, 5, 6, 7})
    if (instruction.arguments[i].kind != Argument::Kind::constant) return nullptr;
  const bool causal = making.value(5).toBool();
  if (making.value(4).toDouble() != 0 || (causal && masked) || making.value(7).toBool()) return nullptr;  // dropout, an error, grouped queries
  const auto &q = making.slot(0).sizes, &k = making.slot(1).sizes, &v = making.slot(2).sizes;
  if ((q.size() != 3 && q.size() != 4) || k.size() != q.size() || v.size() != q.size()) return nullptr;
  for (size_t back = 3; back <= q.size(); ++back)
    if (size_from_end(k, back) != size_from_end(q, back) || size_from_end(v, back) != size_from_end(q, back)) return nullptr;
  const std::int64_t keys = size_from_end(k, 2);
  if (k.back() != q.back() || size_from_end(v, 2) != keys || keys > kernels::kMostKeys) return nullptr;
  if (masked && !is_mask(making.slot(3).sizes, q, keys)) return nullptr;
  if (causal && q.size() == 3) return nullptr;  // without heads ATen adds -inf to the scores it leaves out, which of a NaN is a NaN
  if (attention_looks_at_strides(instruction, making.registers)) return nullptr;
  const double scale = making.value(6).isNone() ? 1.0 / std::sqrt(static_cast<double>(q.back())) : making.value(6).toDouble();
  // The heads of a row side by side, as the linear behind it reads them.
  const std::int64_t heads = q.size() == 4 ? q[1] : 1, queries = size_from_end(q, 2), width = v.back();
  making.made_form = q.size() == 4 ? Form::view : Form::dense;
  if (q.size() == 4) making.made_strides = {queries * heads * width, width, heads * width, 1};
  return std::make_unique<AttentionStep>(instruction.arguments[0].registers[0], instruction.arguments[1].registers[0], instruction.arguments[2].registers[0],
                                         masked ? instruction.arguments[3].registers[0] : -1, instruction.result, scale, causal);
}

}  // namespace fusible
