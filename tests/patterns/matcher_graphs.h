#pragma once

// The workload of the matcher's cost targets: graphs of any size in which every fifth node is a convolution, and sets of rules of which
// half share the convolution and differ in the last step, a quarter differ only in the groups that they ask for, and a quarter are
// chains without a convolution.

#include <memory>
#include <unordered_map>

#include <torch/csrc/jit/ir/ir.h>

#include "passes/patterns/library.h"

namespace fusible::patterns {

struct Workload {
  std::shared_ptr<torch::jit::Graph> graph;
  std::unordered_map<const Value*, c10::IValue> constants;
  ConstantOf constant() const;
};

// `nodes` operations besides constants. Steps after convolutions are drawn from 1,000 operators, the first ten of them half of the time.
Workload make_workload(int nodes);
// The vocabulary and `count` rules; the rules of a smaller set are the first of each kind of a larger one.
std::shared_ptr<const Library> make_rules(int count);
// `count` pattern texts of the same kinds for torch's SubgraphRewriter.
std::vector<std::string> make_ir_patterns(int count);

}  // namespace fusible::patterns
