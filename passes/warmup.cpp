#include <torch/csrc/jit/api/module.h>

#include "fusible/fusible.h"

namespace fusible {

void warmup(torch::jit::Module& module, const std::vector<c10::IValue>& inputs) {
  if (inputs.empty()) return;
  at::NoGradGuard no_grad;
  // One profiled run, one that optimises the plan, one in the steady state.
  for (int call = 0; call < 3; ++call) module.forward(inputs);
}

}  // namespace fusible
