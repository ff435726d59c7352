#include <set>

#include <ATen/core/custom_class.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/symbolic_script.h>

#include "fusible/fusible.h"
#include "ops/kernels/packed_weights.h"
#include "ops/kernels/try_panels.h"
#include "ops/recurrent.h"
#include "ops/region/region.h"
#include "passes/verify.h"

namespace fusible {

namespace {

// The packed objects of a module and its submodules, each once: attributes, and what regions hold.
struct PackedObjects {
  explicit PackedObjects(const torch::jit::Module& module) {
    for (const torch::jit::Module& inner : module.modules()) add(inner);
    contractions.insert(in_regions.begin(), in_regions.end());
  }

  void add(const torch::jit::Module& module) {
    const auto contraction_type = c10::getCustomClassType<c10::intrusive_ptr<PackedContraction>>();
    const auto recurrent_type = c10::getCustomClassType<c10::intrusive_ptr<Recurrent>>();
    const auto region_type = c10::getCustomClassType<c10::intrusive_ptr<Region>>();
    for (const c10::IValue& value : module._ivalue()->slots()) {
      if (!value.isObject()) continue;
      if (value.type() == contraction_type) contractions.insert(value.toCustomClass<PackedContraction>());
      if (value.type() == recurrent_type) recurrents.insert(value.toCustomClass<Recurrent>());
      if (value.type() == region_type)
        for (const auto& contraction : value.toCustomClass<Region>()->contractions()) in_regions.insert(contraction);
    }
  }

  std::set<c10::intrusive_ptr<PackedContraction>> contractions, in_regions;
  std::set<c10::intrusive_ptr<Recurrent>> recurrents;
};

// The executor asks of each operator in its profiled run whether it has a derivative. The first question in a process compiles torch's list of
// derivatives written in TorchScript: 20 ms.
void compile_derivatives() {
  const auto relu = c10::Dispatcher::singleton().findSchemaOrThrow("aten::relu", "");
  torch::jit::hasGradientInfoForSchema(relu.schema());
}

// Outside of a region panels serve rows and images alone (ops/kernels/try_panels.cpp).
bool runs_alone(const ContractionSpec& spec) { return spec.kind == Contraction::linear || spec.spatial_dims() == 2; }

bool wants_panels(const PackedObjects& objects, const c10::intrusive_ptr<PackedContraction>& contraction) {
  const ContractionSpec& spec = contraction->spec();
  return kernels::PackedWeights::takes(spec) && (runs_alone(spec) || objects.in_regions.count(contraction));
}

}  // namespace

WeightBytes weight_bytes(const torch::jit::Module& module) {
  const PackedObjects objects(module);
  WeightBytes bytes;
  const auto add = [&](const WeightValues& values) {
    bytes.dense += values.dense_bytes();
    bytes.packed += values.packed_bytes();
  };
  for (const auto& contraction : objects.contractions) add(*contraction->values());
  for (const auto& recurrent : objects.recurrents)
    for (const auto& matrix : recurrent->values()) add(*matrix);
  return bytes;
}

void warmup(torch::jit::Module& module, const std::vector<c10::IValue>& inputs) {
  const PackedObjects objects(module);
  for (const auto& contraction : objects.contractions)
    if (wants_panels(objects, contraction)) kernels::packed_weights(*contraction).prepare();
  for (const auto& recurrent : objects.recurrents) recurrent->prepare();
  compile_derivatives();
  if (inputs.empty()) return;
  at::NoGradGuard no_grad;
  // One profiled run, one that optimises the plan, one in the steady state.
  for (int call = 0; call < 3; ++call) module(cloned(inputs));
}

}  // namespace fusible
