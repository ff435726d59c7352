#include <torch/csrc/jit/api/module.h>

#include "fusible/fusible.h"
#include "ops/kernels/packed_weights.h"
#include "ops/kernels/try_panels.h"
#include "ops/region/region.h"

namespace fusible {

namespace {

void pack(const PackedContraction& contraction) {
  if (kernels::PackedWeights::takes(contraction.spec())) kernels::packed_weights(contraction);
}

}  // namespace

void warmup(torch::jit::Module& module, const std::vector<c10::IValue>& inputs) {
  for (const c10::IValue& value : module._ivalue()->slots()) {
    if (!value.isCustomClass()) continue;
    const auto object = value.toCapsule();
    if (const auto* contraction = dynamic_cast<const PackedContraction*>(object.get())) pack(*contraction);
    if (const auto* region = dynamic_cast<const Region*>(object.get()))
      for (const auto& contraction : region->contractions()) pack(*contraction);
  }
  if (inputs.empty()) return;
  at::NoGradGuard no_grad;
  // One profiled run, one that optimises the plan, one in the steady state.
  for (int call = 0; call < 3; ++call) module.forward(inputs);
}

}  // namespace fusible
