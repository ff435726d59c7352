#pragma once

#include <map>
#include <string>

#include "passes/decide.h"

namespace fusible {

// The packed weights of a fused module: sequences with the same weight, attributes and folds share one object, over all methods.
class PackedStore {
 public:
  // Name of the root attribute that holds `spec` with `affines` folded in.
  std::string add(const ContractionSpec& spec, const std::vector<Affine>& affines);
  const std::map<std::string, c10::intrusive_ptr<PackedContraction>>& objects() const { return objects_; }

 private:
  std::map<std::string, std::string> names_;  // identity -> attribute
  std::map<std::string, c10::intrusive_ptr<PackedContraction>> objects_;
};

// Applies a decision: every chain becomes one operator at its root, then what it replaced is removed.
void rewrite(MethodGraph& method, const Decision& decision, const Options& options, PackedStore& store);

// stock.cpp: target="aten": the folded contraction by stock operators; returns its output.
Value* emit_stock(Graph& graph, const Chain& chain, Value* input);
// rule_emit.cpp: the operators of a free-form rule, at the match's root, in place of its result.
void emit_rule(Graph& graph, const AcceptedRule& rule);

}  // namespace fusible
