#pragma once

// What is known of one canonical graph, read-only: constants, aliases, order. One alias database; no query after the first edit (S22).

#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <torch/csrc/jit/ir/alias_analysis.h>

#include "passes/model.h"
#include "passes/patterns/library.h"

namespace fusible {

// The begin or the end of a `with`.
bool is_with(const Node* node);

class Facts {
 public:
  // `written_elsewhere`: storages that any method of the module writes; it is filled once the facts of all methods exist.
  Facts(const MethodGraph& method, const std::unordered_set<const void*>& written_elsewhere);

  // The compile-time constant of a value: prim::Constant, a list of constants, or a pure view of a constant tensor. Null: not constant.
  const c10::IValue* constant(const Value* value) const;
  patterns::ConstantOf constant_of() const;

  // A tensor attribute that is sparse, quantized or opaque: its numbers are not looked at.
  bool is_not_dense(const Value* value) const { return not_dense_.count(value) != 0; }

  // A constant tensor that nothing in the graph writes to.
  const at::Tensor* constant_tensor(const Value* value) const;
  bool is_written(const Value* value) const;

  // Inside of a `with torch.autocast(...)`: torch's executor casts the operands of its own operators there, as it finds autocast when it runs.
  bool is_autocast(const Node* node) const { return in_autocast_.count(node) != 0; }

  // Position in program order over all blocks.
  int order(const Node* node) const { return order_.at(node); }

  // The first node strictly between `from` and `to` (same block) that may write what `values` refer to, or what the caller still sees
  // when the node that moves raises, or begins or ends a `with`; ignores `matched`; null: none.
  Node* writer_between(const Node* from, const Node* to, const std::vector<Value*>& values, const std::vector<Node*>& matched) const;
  // Whether `node` may write what `values` refer to.
  bool may_write(Node* node, const std::vector<Value*>& values) const;

 private:
  std::optional<c10::IValue> evaluate(const Value* value) const;
  void find_autocast(const Block* block, int depth);

  std::shared_ptr<Graph> graph_;
  const std::unordered_set<const void*>& written_elsewhere_;
  std::unordered_set<const Value*> not_dense_;
  std::optional<torch::jit::AliasDb> aliases_;  // none where no node of the graph writes
  torch::jit::ValueSet outside_;  // memory that outlives a call: inputs and attributes
  std::unordered_map<const Node*, int> order_;
  std::unordered_set<const Node*> in_autocast_;
  std::unordered_map<const Block*, std::vector<Node*>> writers_;  // per block, in program order
  mutable std::unordered_map<const Value*, std::optional<c10::IValue>> constants_;
};

}  // namespace fusible
