#pragma once

#include <string>
#include <vector>

#include <torch/csrc/jit/api/module.h>

#include "passes/copies.h"

namespace fusible {

struct Comparison {
  enum class Outcome { equal, different, unverifiable };
  Outcome outcome = Outcome::equal;
  std::string why;  // one clause: what differed, why it cannot be told, or what both raise
};

// With the strides, overlap and sharing of the originals.
std::vector<c10::IValue> cloned(const std::vector<c10::IValue>& inputs, Copier::Numbers numbers = Copier::Numbers::kept);

// Runs copies of both modules on clones of `inputs` with the same random state. The reference is the original in float64 where that
// runs: accepted when err(fused) <= 4 err(original) + 8 eps max|y|, with equal dtypes, shapes, observable strides and NaN masks, equal
// mutation of the inputs, and the same exception type.
Comparison compare(const torch::jit::Module& original, const torch::jit::Module& fused, const std::vector<c10::IValue>& inputs);

}  // namespace fusible
