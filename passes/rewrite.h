#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "passes/decide.h"

namespace fusible {

// The packed weights of a fused module: sequences with the same weight, attributes and folds share one object, over all methods.
class PackedStore {
 public:
  // Name of the root attribute that holds `spec` with `affines` folded in.
  std::string add(const ContractionSpec& spec, const std::vector<Affine>& affines);
  // The same for an LSTM or GRU.
  std::string add(c10::intrusive_ptr<Recurrent> weights);
  const std::map<std::string, c10::intrusive_ptr<PackedContraction>>& objects() const { return objects_; }
  const std::map<std::string, c10::intrusive_ptr<Recurrent>>& recurrents() const { return recurrents_; }

 private:
  std::map<std::string, std::string> names_;  // identity -> attribute
  std::map<std::string, c10::intrusive_ptr<PackedContraction>> objects_;
  std::map<std::string, c10::intrusive_ptr<Recurrent>> recurrents_;
};

// A sequence whose operator could not be made: its weights do not fit in memory, mostly.
struct SequenceFailed : std::runtime_error {
  SequenceFailed(std::string which, const std::string& reason) : std::runtime_error(reason), sequence(std::move(which)) {}
  std::string sequence;  // "conv+batch_norm (layers.0.conv, model.py:12)"
};

// Applies a decision: every chain becomes one operator at its root, then what it replaced is removed. Throws SequenceFailed.
void rewrite(MethodGraph& method, const Decision& decision, const Options& options, PackedStore& store);

// The affine steps of a chain, which are folded into its weights.
std::vector<Affine> affines_of(const Chain& chain);

// What stands for the results of the chains that were rewritten already: inputs and operands of others.
class Results {
 public:
  Value* current(Value* value) const;
  void replace(Value* old, Value* result);

 private:
  std::unordered_map<const Value*, Value*> results_;
};

// The operator `name` ("fusible::conv") at the chain's root, in place of its result: `operands`, then the steps that are not folded,
// as text (str post_ops) and as tensors (Tensor[] operands). The chain's own nodes stay; the caller removes them.
void emit_operator(Graph& graph, const std::string& name, std::vector<Value*> operands, const Chain& chain, Results& results);

// self.NAME, read at the top of the graph.
Value* root_attribute(Graph& graph, const std::string& name, const c10::TypePtr& type);
// Which attribute of the root `value` is; null: it is none. A submodule that was fused by itself has attributes of the same names.
const std::string* name_of_root_attribute(const Value* value);

// Removes those of `nodes` that nothing uses any more, last first.
void remove_nodes(const std::vector<Node*>& nodes);

// stock.cpp: target="aten": the folded contraction by stock operators; returns its output.
Value* emit_stock(Graph& graph, const Chain& chain, Value* input);
// rule_emit.cpp: the operators of a free-form rule, at the match's root, in place of its result.
void emit_rule(Graph& graph, const AcceptedRule& rule);

}  // namespace fusible
