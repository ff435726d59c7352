#include "passes/dead_code.h"

namespace fusible {

namespace aten = torch::jit::aten;
namespace prim = torch::jit::prim;

bool may_train(const Node* node) {
  if (node->kind() != aten::batch_norm && node->kind() != aten::instance_norm) return false;
  const auto training = torch::jit::toIValue(node->input(5));
  return !training || !training->isBool() || training->toBool();
}

namespace {

// Anything that somebody could see beside the results. What writes to a tensor stays: who else reads that tensor is not asked here;
// and so does a loop, which may not end.
bool has_effect(const Node* node) {
  if (node->kind() == prim::Constant || node->kind() == prim::GetAttr) return false;
  if (node->kind() == prim::SetAttr || node->kind() == prim::Loop || node->hasAttribute(torch::jit::attr::Subgraph)) return true;
  if (node->hasSideEffects() || may_train(node)) return true;
  const auto* schema = node->maybeSchema();
  return schema && schema->is_mutable();
}

void sweep(Block* block);

// Results of branches that nothing reads.
void trim_if(Node* node) {
  for (std::size_t i = node->outputs().size(); i-- > 0;) {
    if (node->output(i)->hasUses()) continue;
    node->eraseOutput(i);
    for (Block* branch : node->blocks()) branch->eraseOutput(i);
  }
  for (Block* branch : node->blocks()) sweep(branch);
}

// Values carried round a loop that neither its body nor anything behind it reads.
void trim_loop(Node* node) {
  Block* body = node->blocks()[0];
  sweep(body);
  bool trimmed = false;
  for (std::size_t i = node->outputs().size(); i-- > 0;) {
    if (node->output(i)->hasUses() || body->inputs()[i + 1]->hasUses()) continue;
    node->eraseOutput(i);
    node->removeInput(i + 2);
    body->eraseOutput(i + 1);
    body->eraseInput(i + 1);
    trimmed = true;
  }
  if (trimmed) sweep(body);
}

bool is_pure(const Block* block) {
  return std::all_of(block->nodes().begin(), block->nodes().end(), [](const Node* node) {
    return !has_effect(node) && std::all_of(node->blocks().begin(), node->blocks().end(), is_pure);
  });
}

// From the last node to the first: whoever reads a value has gone before its producer is looked at.
void sweep(Block* block) {
  for (Node* node = block->return_node()->prev(); node != block->param_node();) {
    Node* const previous = node->prev();
    if (node->kind() == prim::If) trim_if(node);
    if (node->kind() == prim::Loop) trim_loop(node);
    const auto blocks = node->blocks();
    if (!node->hasUses() && !has_effect(node) && std::all_of(blocks.begin(), blocks.end(), is_pure)) node->destroy();
    node = previous;
  }
}

}  // namespace

void eliminate_dead_code(const std::shared_ptr<Graph>& graph) { sweep(graph->block()); }

}  // namespace fusible
