#include "passes/fixes.h"

#include <torch/csrc/jit/ir/constants.h>

namespace fusible {

namespace {

namespace prim = torch::jit::prim;

bool known_at(const Node* node, const Node* place) { return node->kind() == prim::Param || node->isBefore(place); }

// y = op(x); z = next(y)  ->  y = next(x); z = op(y)
bool swap(Node* op, Node* next) {
  if (op->outputs().size() != 1 || next->outputs().size() != 1 || op->owningBlock() != next->owningBlock() || op->inputs().empty()) return false;
  Value *x = op->input(0), *y = op->output(), *z = next->output();
  if (y->uses().size() != 1 || y->uses()[0].user != next) return false;
  for (const Value* input : next->inputs()) {
    if (input != y && !known_at(input->node(), op)) return false;
  }
  z->replaceAllUsesWith(y);
  next->replaceInputWith(y, x);
  op->replaceInput(0, z);
  next->moveBefore(op);
  return true;
}

bool swap_with_producer(const Finding& there) { return swap(there.producer, there.blocked[0]); }
bool swap_with_between(const Finding& there) { return !there.related.empty() && swap(there.related[0].second, there.blocked[0]); }

// Who else reads the value reads the sequence's result.
bool share_the_result(const Finding& there) {
  Node* next = there.blocked[0];
  Value* value = there.producer->output();
  if (next->outputs().size() != 1) return false;
  const auto uses = value->uses();
  const bool late = std::any_of(uses.begin(), uses.end(), [&](const torch::jit::Use& use) { return use.user != next && !use.user->isAfter(next); });
  if (late) {
    for (const Value* input : next->inputs()) {
      if (input != value && !known_at(input->node(), value->node())) return false;
    }
    if (next->owningBlock() != value->node()->owningBlock()) return false;
    next->moveAfter(value->node());
  }
  for (const auto& use : uses) {
    if (use.user != next) use.user->replaceInput(use.offset, next->output());
  }
  return true;
}

// other.add_(y)  ->  y.add_(other)
bool swap_operands(const Finding& there) {
  Node* sum = there.blocked[0];
  Value *left = sum->input(0), *right = sum->input(1);
  sum->replaceInput(0, right);
  sum->replaceInput(1, left);
  return true;
}

bool scale_before(const Finding& there) {
  Node* sum = there.blocked[0];
  const auto* schema = sum->maybeSchema();
  const auto index = schema ? schema->argumentIndexWithName("alpha") : std::nullopt;
  if (!index) return false;
  torch::jit::WithInsertPoint here(sum);
  Value* scaled = sum->owningGraph()->insert(torch::jit::aten::mul, {sum->input(1), sum->input(*index)});
  sum->replaceInput(1, scaled);
  sum->replaceInput(*index, sum->owningGraph()->insertConstant(1));
  return true;
}

bool write_later(const Finding& there) {
  Node *writer = there.related.empty() ? nullptr : there.related.back().second, *next = there.blocked[0];
  if (!writer || writer->owningBlock() != next->owningBlock()) return false;
  for (const Value* output : writer->outputs()) {
    for (const auto& use : output->uses()) {
      if (!use.user->isAfter(next)) return false;
    }
  }
  writer->moveAfter(next);
  return true;
}

std::vector<Node*> nodes_of(const MethodGraph& method) {
  std::vector<Node*> nodes;
  for_each_node(method.graph->block(), [&](Node* node) { nodes.push_back(node); });
  nodes.push_back(method.graph->return_node());
  return nodes;
}

}  // namespace

std::optional<FixTrial> trial_of(const Finding& finding) {
  const std::string code = finding.code.id;
  if (code == codes::training_batch_norm.id) return FixTrial{true, nullptr, nullptr};
  if (code == codes::strict_numerics.id) return FixTrial{false, [](Options& options) { options.strict = false; }, nullptr};
  if (code == codes::target_lacks_operator.id) return FixTrial{false, [](Options& options) { options.target = "cpu"; }, nullptr};
  if (finding.blocked.empty()) return std::nullopt;
  static const std::map<std::string, bool (*)(const Finding&)> edits{
      {codes::second_use.id, share_the_result}, {codes::graph_output.id, share_the_result}, {codes::wrong_order.id, swap_with_producer},
      {codes::view_between.id, swap_with_between}, {codes::intervening_op.id, swap_with_between}, {codes::unknown_op.id, swap_with_between},
      {codes::in_place_on_other.id, swap_operands}, {codes::alpha_not_one.id, scale_before}, {codes::mutation_between.id, write_later}};
  const auto edit = edits.find(code);
  return edit == edits.end() ? std::nullopt : std::make_optional(FixTrial{false, nullptr, edit->second});
}

std::optional<Finding> same_place(const Finding& finding, const MethodGraph& here, const MethodGraph& there) {
  const auto old = nodes_of(here), fresh = nodes_of(there);
  if (old.size() != fresh.size()) return std::nullopt;
  std::unordered_map<const Node*, Node*> place;
  for (std::size_t i = 0; i < old.size(); ++i) {
    if (old[i]->kind() != fresh[i]->kind()) return std::nullopt;
    place[old[i]] = fresh[i];
  }
  Finding moved = finding;
  moved.producer = place.at(finding.producer);
  for (auto& [label, node] : moved.related) {
    auto it = place.find(node);  // a return node of an inner block has no place of its own
    if (it == place.end()) return std::nullopt;
    node = it->second;
  }
  for (Node*& node : moved.blocked) node = place.at(node);
  return moved;
}

}  // namespace fusible
