#include "passes/dependence.h"

namespace fusible {

namespace {

namespace prim = torch::jit::prim;

// Walks from `value` to what it is computed from; `enter` says whether to go on behind a node. True: `is_found` was met.
bool search(const Value* value, const std::function<bool(const Value*)>& is_found, const std::function<bool(const Node*)>& enter) {
  std::vector<const Value*> open{value};
  std::unordered_set<const Value*> seen;
  while (!open.empty()) {
    const Value* current = open.back();
    open.pop_back();
    if (!seen.insert(current).second) continue;
    if (is_found(current)) return true;
    const Node* node = current->node();
    if (node->kind() == prim::Param) node = node->owningBlock()->owningNode();  // of a loop's body
    if (!node || !enter(node)) continue;
    for (const Value* input : node->inputs()) open.push_back(input);
    for (const Block* block : node->blocks()) {
      for (const Value* output : block->outputs()) open.push_back(output);
    }
  }
  return false;
}

}  // namespace

bool is_computed_from(const Value* value, const Value* source, const Facts& facts) {
  const int start = facts.order(source->node());
  return search(value, [&](const Value* found) { return found == source; },
                [&](const Node* node) { return !node->blocks().empty() || facts.order(node) > start; });
}

bool depends_on_inputs(const Value* value) {
  const Graph& graph = *value->owningGraph();
  const auto is_input = [&](const Value* found) {
    return found->node() == graph.param_node() && found != graph.inputs()[0];
  };
  return search(value, is_input, [](const Node*) { return true; });
}

}  // namespace fusible
