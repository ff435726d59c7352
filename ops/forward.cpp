#include "ops/forward.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include "ops/kernel.h"
#include "ops/post_op.h"
#include "ops/post_op_in_place.h"
#include "ops/reference.h"

namespace fusible {

namespace {

// One channel: the strides fit contiguous and channels_last alike. Operators read them differently, and the next convolution takes its
// format from what they made of them, which only the sequence of single operators can tell.
bool has_two_formats(const at::Tensor& y) {
  return y.dim() >= 4 && y.size(1) == 1 && y.stride(1) == 1 && y.is_contiguous() && y.numel() > y.size(0);
}

}  // namespace

at::Tensor forward(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, std::string_view post_ops,
                   at::TensorList operands) {
  const PostOps& chain = parse_post_ops(post_ops);
  // Autocast casts before each operator, which only the sequence of single operators can follow.
  if (x.layout() != at::kStrided || at::autocast::is_autocast_enabled(at::kCPU) || !fold_is_valid(x, spec))
    return reference(x, spec, chain, operands);
  check_rank(x, spec);
  at::Tensor y;
  const bool kernel = try_kernel(x, spec, packed, chain, operands, y);
  if (!kernel) y = contract(x, spec, spec.weight, spec.bias);
  if (has_two_formats(y) && !(chain.empty() && spec.folded_ops.empty())) return one_by_one(x, spec, chain, operands);
  return kernel ? y : apply_post_ops_in_place(y, chain, operands);
}

const ContractionSpec& spec_for(Contraction kind, const PackedContraction& weight) {
  TORCH_CHECK(weight.spec().kind == kind, "the operator needs weights packed for it, found those of ", weight.describe());
  return weight.spec();
}

}  // namespace fusible
