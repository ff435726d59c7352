#include "ops/kernel.h"

#include "ops/cost_model.h"
#include "ops/kernels/try_panels.h"
#include "ops/onednn.h"
#include "ops/trial.h"

namespace fusible {
namespace {

Way take(std::optional<Way> asked, const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const PostOps& chain,
         at::TensorList operands, at::Tensor& y) {
  const auto may = [&](Way way) { return asked.value_or(way) == way; };
  if (may(Way::panels) && try_panels(x, spec, packed, chain, operands, y, asked ? kAnyWork : most_for_panels(spec))) return Way::panels;
  if (may(Way::onednn) && try_onednn(x, spec, packed, chain, operands, y, asked ? 1 : least_for_onednn(spec))) return Way::onednn;
  return Way::aten;
}

}  // namespace

bool try_kernel(std::optional<Way> asked, const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const PostOps& chain,
                at::TensorList operands, at::Tensor& y) {
  const Way taken = take(asked, x, spec, packed, chain, operands, y);
  if (Trial* const trial = Trial::current()) trial->taken = taken;
  return taken != Way::aten;
}

}  // namespace fusible
