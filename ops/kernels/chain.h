#pragma once

// A post-op chain as the kernels run it: the shapes are settled once, the addresses of the operands are bound for each call.

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "fusible/export.h"
#include "ops/kernels/isa.h"
#include "ops/post_op.h"

namespace fusible::kernels {

// The result seen as images x rows x channels, channels dense: NHWC memory (pixels are rows), or a matrix (no images when rank is 2).
struct View {
  std::vector<std::int64_t> sizes;  // logical shape
  std::int64_t channel_dim = 1;     // 1: convolution in NHWC memory; rank - 1: linear

  std::int64_t images() const { return sizes.size() > 2 ? sizes[0] : 1; }
  std::int64_t channels() const { return sizes[channel_dim]; }
  std::int64_t rows() const;  // per image
};

struct Operand {
  at::IntArrayRef sizes, strides;
  at::ScalarType dtype = at::kFloat;
  bool defined = true;
  const at::Tensor* constant = nullptr;  // where its values are known: batch_norm needs them
};

class FUSIBLE_API Chain {
 public:
  // Nothing when a step needs what the kernels do not do: an operand that is not float, that enlarges the result or whose channels are not
  // dense.
  static std::optional<Chain> plan(const PostOps& steps, const std::vector<Operand>& operands, const View& y);

  // Whether image and row can be counted as one row number.
  bool rows_collapse(std::int64_t rows_per_image) const;

  // `data`: one address per operand of the plan, in order; one for an undefined or constant operand is not read. Thread-safe: writes
  // `steps` only.
  void bind(const float* const* data, std::vector<Step>& steps) const;

  size_t size() const { return steps_.size(); }

 private:
  bool add(const PostOp& op, const Operand* operands, size_t index, const View& y);
  bool add_operand(StepKind kind, const Operand& operand, size_t index, const View& y);
  bool add_batch_norm(const PostOp& op, const Operand* operands, const View& y);

  std::vector<Step> steps_;
  std::vector<std::int64_t> operand_of_;  // per step; -1: none or constant
  std::vector<at::Tensor> constants_;
};

}  // namespace fusible::kernels
