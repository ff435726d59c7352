#include <torch/csrc/jit/ir/alias_analysis.h>

#include "passes/normalize/normalize.h"

namespace fusible {

namespace {

namespace aten = torch::jit::aten;

// A convolution's result has a fixed rank in the ScriptModule itself: the executor's peephole folds conv2d(...).dim() to 4
// (pytorch PR#50221), so folding it here is what the original computes. It does not see through any operator after the convolution.
std::optional<std::int64_t> rank_of(const Value* value) {
  static const std::unordered_map<c10::Symbol, std::int64_t> ranks{
      {aten::conv1d, 3}, {aten::conv2d, 4}, {aten::conv3d, 5}};
  auto it = ranks.find(value->node()->kind());
  return it == ranks.end() ? std::nullopt : std::make_optional(it->second);
}

// Whether an operator may write `value`, make a view of it or hold it, through which another may: if one does, the executor does not take its rank
// for granted (resize_), nor may it be done here.
bool is_shared(const Value* value) {
  static const std::unordered_set<c10::Symbol> containers{torch::jit::prim::ListConstruct, torch::jit::prim::DictConstruct, torch::jit::prim::TupleConstruct};
  return std::any_of(value->uses().begin(), value->uses().end(), [](const torch::jit::Use& use) {
    if (containers.count(use.user->kind()) != 0) return true;
    if (use.user->kind() == torch::jit::prim::Return) return use.user->owningBlock()->owningNode() != nullptr;
    const auto* schema = use.user->maybeSchema();
    if (!schema || use.offset >= schema->arguments().size()) return use.user->kind().is_aten() || !use.user->blocks().empty();
    return schema->arguments()[use.offset].alias_info() != nullptr;
  });
}

bool is_read(const torch::jit::Use& use, int depth = 0);

// Whether the operator that uses a value writes what it computes from it to another one that somebody may read: a tensor, a list.
bool is_written_where_read(const torch::jit::Use& use, int depth) {
  const auto* schema = use.user->maybeSchema();
  for (std::size_t i = 0; schema && i < schema->arguments().size(); ++i) {
    const auto* alias = schema->arguments()[i].alias_info();
    if (!alias || !alias->isWrite() || i == use.offset) continue;
    const Value* const target = use.user->input(i);
    const auto* made = target->node()->maybeSchema();
    if (!made || made->returns().size() != 1 || made->returns()[0].alias_info()) return true;
    const auto reads = [&](const torch::jit::Use& other) { return other.user != use.user && other.user->kind() != aten::dim && is_read(other, depth + 1); };
    if (std::any_of(target->uses().begin(), target->uses().end(), reads)) return true;
  }
  return false;
}

// Whether somebody may want to know what a use makes of a value: not where only writes lead on from it, at once or behind other operators. A loop
// may overwrite what it is started with; the executor finds out when it unrolls it.
bool is_read(const torch::jit::Use& use, int depth) {
  constexpr int kDeepest = 8;
  const Node* const user = use.user;
  if (user->kind() == torch::jit::prim::Loop) return false;
  if (user->outputs().empty() || depth == kDeepest || is_written_where_read(use, depth)) return true;
  return std::any_of(user->outputs().begin(), user->outputs().end(), [&](const Value* output) {
    return std::any_of(output->uses().begin(), output->uses().end(), [&](const torch::jit::Use& next) { return is_read(next, depth + 1); });
  });
}

// Contractions that take inputs of several ranks and give results of the same rank.
bool keeps_rank(const Node* node) {
  static const std::unordered_set<c10::Symbol> kinds{aten::linear, aten::conv_transpose1d, aten::conv_transpose2d, aten::conv_transpose3d};
  return kinds.count(node->kind()) != 0;
}

// Operators whose result has the sizes of their first operand.
bool keeps_sizes(const Node* node) {
  static const std::unordered_set<std::string> kinds{
      "aten::batch_norm", "aten::relu", "aten::relu_", "aten::relu6", "aten::relu6_", "aten::hardtanh", "aten::hardtanh_", "aten::clamp",
      "aten::clamp_", "aten::leaky_relu", "aten::leaky_relu_", "aten::sigmoid", "aten::sigmoid_", "aten::tanh", "aten::tanh_", "aten::silu",
      "aten::silu_", "aten::hardswish", "aten::hardswish_", "aten::hardsigmoid", "aten::hardsigmoid_", "aten::gelu", "aten::elu", "aten::elu_",
      "aten::mish", "aten::mish_", "aten::softplus", "aten::prelu"};
  return kinds.count(node->kind().toQualString()) != 0;
}

// The value whose rank is that of `value`, beyond the contractions that it comes from; null when there is none.
Value* same_rank_before(Value* value) {
  Value* before = nullptr;
  for (;;) {
    const bool contraction = rank_of(value) || keeps_rank(value->node());
    if (!contraction && !keeps_sizes(value->node())) return before;
    value = value->node()->input(0);
    // Stop only past a contraction: a result between a contraction and its post-ops must not get one more use.
    if (contraction) before = value;
  }
}

}  // namespace

std::unordered_map<const Node*, std::int64_t> ranks_taken_for_granted(const std::shared_ptr<Graph>& graph) {
  std::optional<torch::jit::AliasDb> aliases;
  std::unordered_map<const Node*, std::int64_t> ranks;
  for_each_node(graph->block(), [&](Node* node) {
    if (node->kind() != aten::dim) return;
    const Value* const asked = node->input(0);
    const auto rank = rank_of(asked);
    if (!rank) return;
    if (is_shared(asked)) {
      if (!aliases) aliases.emplace(graph);
      if (aliases->hasWriters(asked)) return;
    }
    ranks.emplace(node, *rank);
  });
  return ranks;
}

bool fold_rank_query(Node* node, const std::unordered_map<const Node*, std::int64_t>& ranks) {
  const auto found = node->kind() == aten::dim ? ranks.find(node) : ranks.end();
  if (found == ranks.end()) return false;
  torch::jit::WithInsertPoint here(node);
  node->output()->replaceAllUsesWith(node->owningGraph()->insertConstant(found->second));
  node->destroy();
  return true;
}

void forward_rank_queries(Block* block) {
  for_each_node(block, [](Node* node) {
    if (node->kind() != aten::dim) return;
    // What only rank queries read would be dead afterwards, and no longer raise; so would what is only written.
    const auto& uses = node->input(0)->uses();
    if (std::none_of(uses.begin(), uses.end(), [](const torch::jit::Use& use) { return use.user->kind() != aten::dim && is_read(use); })) return;
    if (Value* before = same_rank_before(node->input(0))) node->replaceInput(0, before);
  });
}

}  // namespace fusible
