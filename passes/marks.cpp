#include "passes/marks.h"

#include <chrono>

#include <torch/csrc/jit/runtime/custom_operator.h>

#include "ops/trial.h"

namespace fusible {

namespace {

thread_local Stopwatches* current = nullptr;

// Stands still in operators of a region that are no contraction.
double now() {
  const double time = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  const Trial* const trial = Trial::current();
  return trial ? time - trial->elsewhere : time;
}

// With side effects, so that no pass removes or moves it.
const torch::jit::RegisterOperators registered({torch::jit::Operator(
    "fusible::mark(int owner) -> ()", [](torch::jit::Stack& stack) { Stopwatches::pass(torch::jit::pop(stack).toInt()); },
    c10::AliasAnalysisKind::CONSERVATIVE)});

void insert_mark(Node* before, int owner) {
  Graph& graph = *before->owningGraph();
  const torch::jit::WithInsertPoint here(before);
  Value* const number = graph.insertConstant(owner);
  graph.insertNode(graph.create(c10::Symbol::fromQualString("fusible::mark"), {number}, 0));
}

void mark_block(Block* block, const std::function<int(const Node*)>& owner) {
  static const std::unordered_set<torch::jit::Symbol> free{torch::jit::prim::Constant, torch::jit::prim::GetAttr, torch::jit::prim::ListConstruct};
  int running = kNobody;
  const std::vector<Node*> nodes(block->nodes().begin(), block->nodes().end());
  const auto hand_over = [&](Node* before, int to) {
    if (to != running) insert_mark(before, to);
    running = to;
  };
  for (Node* node : nodes) {
    if (free.count(node->kind())) continue;
    hand_over(node, node->blocks().empty() ? owner(node) : kNobody);
    for (Block* inner : node->blocks()) mark_block(inner, owner);
  }
  hand_over(block->return_node(), kNobody);
}

}  // namespace

void mark(Graph& graph, const std::function<int(const Node*)>& owner) { mark_block(graph.block(), owner); }

Stopwatches::Stopwatches(std::size_t owners) : seconds_(owners, 0.0), outer_(std::exchange(current, this)) {}

Stopwatches::~Stopwatches() { current = outer_; }

void Stopwatches::pass(std::int64_t owner) {
  if (!current) return;
  const double at = now();
  if (current->running_ >= 0 && current->running_ < static_cast<std::int64_t>(current->seconds_.size()))
    current->seconds_[current->running_] += at - current->since_;
  current->running_ = owner;
  current->since_ = at;
}

}  // namespace fusible
