#include "ops/forward.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include "ops/kernel.h"
#include "ops/post_op.h"
#include "ops/post_op_in_place.h"
#include "ops/reference.h"
#include "ops/trial.h"

namespace fusible {

at::Tensor forward_by(std::optional<Way> way, const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed,
                      std::string_view post_ops, at::TensorList operands) {
  const PostOps& chain = parse_post_ops(post_ops);
  // Autocast casts before each operator, which only the sequence of single operators can follow. Attributes that no call may have are theirs to refuse.
  if (x.layout() != at::kStrided || !spec.has_usable_attributes() || at::autocast::is_autocast_enabled(at::kCPU) || !fold_is_valid(x, spec))
    return reference(x, spec, packed, chain, operands);
  check_rank(x, spec);
  const PostOps& folded = parse_post_ops(spec.folded_ops);
  at::Tensor y;
  if (try_kernel(way, x, spec, packed, chain, operands, y)) {
    y = with_strides_after_fold(std::move(y), folded, spec.folded_operands);
  } else {
    y = with_strides_after_fold(contract(x, spec, dense_weight(spec, packed), spec.bias), folded, spec.folded_operands);
    y = apply_post_ops_in_place(std::move(y), chain, operands);
  }
  return with_strides_after(std::move(y), chain, operands);
}

at::Tensor forward(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, std::string_view post_ops,
                   at::TensorList operands) {
  Trial* const trial = packed ? Trial::current() : nullptr;
  const auto shape = trial ? call_shape(x) : std::nullopt;
  if (!shape) return forward_by(packed ? packed->choice(x) : std::nullopt, x, spec, packed, post_ops, operands);
  at::Tensor y;
  trial->watch({{packed, *shape}}, [&] {
    y = forward_by(trial->asked ? trial->asked : packed->choice(*shape), x, spec, packed, post_ops, operands);
  });
  return y;
}

const ContractionSpec& spec_for(Contraction kind, const PackedContraction& weight) {
  TORCH_CHECK(weight.spec().kind == kind, "the operator needs weights packed for it, found those of ", weight.describe());
  return weight.spec();
}

}  // namespace fusible
