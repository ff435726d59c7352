#include "passes/normalize/normalize.h"
#include "passes/dead_code.h"

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/remove_mutation.h>

namespace fusible {

namespace {

namespace prim = torch::jit::prim;

void replace_by_constant(Node* node, const c10::IValue& value) {
  torch::jit::WithInsertPoint here(node);
  node->output()->replaceAllUsesWith(node->owningGraph()->insertConstant(value));
  node->destroy();
}

// if True: A else: B  ->  A.  The chosen block's nodes move in front of the If; returns the first node to go on with.
Node* splice_constant_branch(Node* node, Node* next) {
  auto condition = torch::jit::toIValue(node->input());
  if (!condition || !condition->isBool()) return next;
  Block* chosen = node->blocks()[condition->toBool() ? 0 : 1];
  Node* first = nullptr;
  for (auto it = chosen->nodes().begin(); it != chosen->nodes().end();) {
    Node* moved = *it++;
    moved->moveBefore(node);
    if (!first) first = moved;
  }
  for (std::size_t i = 0; i < node->outputs().size(); ++i) node->outputs()[i]->replaceAllUsesWith(chosen->outputs()[i]);
  node->destroy();
  return first ? first : next;
}

// Elements taken from a tuple that was just built are the elements.
bool forward_tuple(Node* node) {
  if (node->kind() == prim::TupleUnpack && node->input()->node()->kind() == prim::TupleConstruct) {
    const auto elements = node->input()->node()->inputs();
    for (std::size_t i = 0; i < elements.size(); ++i) node->outputs()[i]->replaceAllUsesWith(elements[i]);
    node->destroy();
    return true;
  }
  if (node->kind() == prim::TupleIndex && node->input(0)->node()->kind() == prim::TupleConstruct) {
    const auto elements = node->input(0)->node()->inputs();
    auto index = torch::jit::toIValue(node->input(1));
    if (!index || !index->isInt()) return false;
    const std::int64_t i = index->toInt() < 0 ? index->toInt() + static_cast<std::int64_t>(elements.size()) : index->toInt();
    if (i < 0 || i >= static_cast<std::int64_t>(elements.size())) return false;
    node->output()->replaceAllUsesWith(elements[i]);
    node->destroy();
    return true;
  }
  return false;
}

bool lies_in_loop(const Node* node) {
  for (node = node->owningBlock()->owningNode(); node; node = node->owningBlock()->owningNode())
    if (node->kind() == prim::Loop) return true;
  return false;
}

bool forward_transparent(Node* node, const patterns::Matcher& matcher) {
  if (node->outputs().size() != 1 || !node->kind().is_aten()) return false;
  // The executor keeps a loop that writes, read or not, and with it what raises before it.
  const auto* schema = node->maybeSchema();
  if (schema && schema->is_mutable() && lies_in_loop(node)) return false;
  static const patterns::ConstantOf constant = [](const Value* value) -> const c10::IValue* {
    thread_local c10::IValue held;
    auto found = torch::jit::toIValue(value);
    if (!found) return nullptr;
    held = std::move(*found);
    return &held;
  };
  auto view = matcher.view(node, constant);
  if (!view || view->entry->kind != patterns::Entry::Kind::transparent) return false;
  node->output()->replaceAllUsesWith((*view)["x"]);
  node->destroy();
  return true;
}

bool is_same_constant(const Value* a, const Value* b) {
  const auto left = torch::jit::toIValue(a), right = torch::jit::toIValue(b);
  if (!left || !right) return false;
  return (left->isNone() && right->isNone()) || (left->isInt() && right->isInt() && left->toInt() == right->toInt()) ||
         (left->isBool() && right->isBool() && left->toBool() == right->toBool()) ||
         (left->isString() && right->isString() && left->toStringRef() == right->toStringRef());
}

// What both branches give is known whichever runs.
void forward_agreed(Node* node) {
  for (std::size_t i = 0; i < node->outputs().size(); ++i) {
    Value *const first = node->blocks()[0]->outputs()[i], *const second = node->blocks()[1]->outputs()[i];
    if (first == second) {
      node->output(i)->replaceAllUsesWith(first);
    } else if (is_same_constant(first, second)) {
      torch::jit::WithInsertPoint here(node);
      node->output(i)->replaceAllUsesWith(node->owningGraph()->insertConstant(*torch::jit::toIValue(first)));
    }
  }
}

// One pass in program order: what a node depends on is in canonical form when the node is reached.
void walk(Block* block, const patterns::Matcher& matcher, const std::unordered_map<const Node*, std::int64_t>& ranks) {
  for (Node* node = *block->nodes().begin(); node != block->return_node();) {
    Node* next = node->next();
    if (node->kind() == prim::If) {
      Node* resumed = splice_constant_branch(node, next);
      if (resumed != next || next->prev() != node) {
        node = resumed;
        continue;
      }
    }
    if (auto value = folded(node)) {
      replace_by_constant(node, *value);
    } else if (!forward_tuple(node) && !fold_rank_query(node, ranks) && !forward_transparent(node, matcher)) {
      for (Block* inner : node->blocks()) walk(inner, matcher, ranks);
      if (node->kind() == prim::If) forward_agreed(node);
    }
    node = next;
  }
}

// features = [x]; features.append(y); cat(features)  ->  cat([x, y]), where the list is local.
void spell_out_lists(const std::shared_ptr<Graph>& graph) {
  bool appends = false;
  for_each_node(graph->block(), [&](Node* node) { appends |= node->kind() == torch::jit::aten::append; });
  if (appends) torch::jit::RemoveListMutation(graph);
}

}  // namespace

void normalize(Model& model, const patterns::Matcher& matcher) {
  if (!model.opaque.empty()) return;
  std::vector<std::unordered_map<const Node*, std::int64_t>> ranks;
  for (const auto& method : model.methods) ranks.push_back(ranks_taken_for_granted(method.graph));
  resolve_attributes(model);
  for (std::size_t i = 0; i < model.methods.size(); ++i) {
    auto& method = model.methods[i];
    walk(method.graph->block(), matcher, ranks[i]);
    spell_out_lists(method.graph);
    compute_with_integers(method.graph);
    eliminate_dead_code(method.graph);
    spell_out_attention(method.graph->block());
    forward_rank_queries(method.graph->block());
  }
  for (auto& method : model.methods) forget_dead(model, method);
}

}  // namespace fusible
