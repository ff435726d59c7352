#include <ATen/core/custom_class.h>
#include <torch/csrc/jit/api/module.h>

#include "fusible/fusible.h"
#include "ops/kernels/packed_weights.h"
#include "ops/kernels/try_panels.h"
#include "ops/recurrent.h"
#include "ops/region/region.h"

namespace fusible {

namespace {

void pack(const PackedContraction& contraction) {
  if (kernels::PackedWeights::takes(contraction.spec())) kernels::packed_weights(contraction).prepare();
}

}  // namespace

void warmup(torch::jit::Module& module, const std::vector<c10::IValue>& inputs) {
  const auto contraction_type = c10::getCustomClassType<c10::intrusive_ptr<PackedContraction>>();
  const auto recurrent_type = c10::getCustomClassType<c10::intrusive_ptr<Recurrent>>();
  const auto region_type = c10::getCustomClassType<c10::intrusive_ptr<Region>>();
  for (const c10::IValue& value : module._ivalue()->slots()) {
    if (!value.isObject()) continue;
    if (value.type() == contraction_type) pack(*value.toCustomClass<PackedContraction>());
    if (value.type() == recurrent_type) value.toCustomClass<Recurrent>()->prepare();
    if (value.type() == region_type)
      for (const auto& contraction : value.toCustomClass<Region>()->contractions()) pack(*contraction);
  }
  if (inputs.empty()) return;
  at::NoGradGuard no_grad;
  // One profiled run, one that optimises the plan, one in the steady state.
  for (int call = 0; call < 3; ++call) module.forward(inputs);
}

}  // namespace fusible
