#pragma once

// Graphs made from spellings, and constants read off them.

#include <memory>
#include <unordered_map>

#include <torch/csrc/jit/ir/ir.h>

#include "passes/patterns/library.h"

namespace fusible::patterns {

// prim::Constant and lists of them, as facts knows them.
class Constants {
 public:
  const c10::IValue* operator()(const Value* value);
  ConstantOf function() { return [this](const Value* value) { return (*this)(value); }; }

 private:
  std::unordered_map<const Value*, std::optional<c10::IValue>> known_;
};

// The operations as a graph: literals are constants, other variables are inputs of the type that the operator's schema has there.
// Operations of the vocabulary stand for their entry's first spelling.
std::shared_ptr<torch::jit::Graph> graph_of(const Library& library, const std::vector<Operation>& operations);

// The node that computes the graph's (first) output.
Node* root_of(torch::jit::Graph& graph);

}  // namespace fusible::patterns
