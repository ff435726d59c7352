#pragma once

// A pattern's case as a module: weights are its parameters, the other arguments the inputs of forward.

#include <vector>

#include <torch/csrc/jit/api/module.h>

#include "passes/patterns/library.h"

namespace fusible::patterns {

struct CaseModule {
  torch::jit::Module module;         // in eval mode, not frozen
  std::vector<c10::IValue> inputs;
};

// Random numbers from `seed`. Throws what TorchScript's compiler throws.
CaseModule module_of(const Case& one, std::uint64_t seed);

}  // namespace fusible::patterns
