#pragma once

// What the stages hand on: the methods of one module as private graphs, their candidates, and the findings so far.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include "fusible/fusible.h"
#include "passes/codes.h"

namespace fusible {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Module;
using torch::jit::Node;
using torch::jit::Value;

template <typename F>
void for_each_node(Block* block, const F& f) {
  for (Node* node : block->nodes()) {
    f(node);
    for (Block* inner : node->blocks()) for_each_node(inner, f);
  }
}

// A contraction or batch_norm of the raw inlined graph (law 2).
bool is_candidate(const Node* node);

struct Candidate {
  int method = 0;
  Site site;
  Node* node = nullptr;  // null once normalize found that it never runs or is never used
};

// Where an attribute lives: root.path[0].path[1]....name
struct Attribute {
  c10::ivalue::Object* owner = nullptr;
  std::vector<std::string> path;
  std::string name;
};

struct MethodGraph {
  std::string name;
  bool treated = true;  // false: kept and inlined, its candidates counted where a treated method inlines it
  std::shared_ptr<Graph> graph;
  std::unordered_map<const Node*, int> candidate_of;             // index into Model::candidates
  std::unordered_map<const Value*, Attribute> tensor_attributes; // prim::Constants that stand for tensor attributes of the module
  std::unordered_set<const Value*> not_dense;                    // reads of tensor attributes that are sparse, quantized or opaque
  enum class Role { method, pre_hook, hook } role = Role::method;  // hooks of the module itself: calls of submodules have theirs inlined
};

using AttributeKey = std::pair<const c10::ivalue::Object*, std::string>;

struct Model {
  Module source;
  std::vector<MethodGraph> methods;
  std::vector<Candidate> candidates;
  std::set<AttributeKey> assigned;   // attributes that some method assigns (prim::SetAttr)
  std::unordered_set<const void*> written_storages;  // of attributes that some method assigns or writes in place
  std::string opaque;                // why the module cannot be taken apart; empty: it can
  std::string origin;                // "scripted", "traced", "frozen"
  bool on_cuda = false;
};

// Of the tensors that a value is or holds.
void add_storages(const c10::IValue& value, std::unordered_set<const void*>& storages);

// The attribute of `owner` that is this tensor or another view of its elements with the same shape and strides; nothing where there is none.
std::optional<std::size_t> slot_of(const c10::ivalue::Object& owner, const at::Tensor& tensor);

// After nodes were removed: their candidates have no node any more, and no map keeps their addresses.
void forget_dead(Model& model, MethodGraph& method);

// Names the treated methods, copies and inlines every method's graph, lists the candidates. Throws Error on unusable input.
Model load(const Module& module, const Options& options);

}  // namespace fusible
