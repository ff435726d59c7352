#include "passes/facts.h"

#include <torch/csrc/jit/ir/constants.h>

#include "passes/dead_code.h"

namespace fusible {

namespace {

namespace aten = torch::jit::aten;
namespace prim = torch::jit::prim;

bool has_writes(Node* node) {
  if (node->kind() == prim::Constant || node->kind() == prim::GetAttr || node->kind() == prim::ListConstruct) return false;
  for (Block* block : node->blocks()) {
    for (Node* inner : block->nodes()) {
      if (has_writes(inner)) return true;
    }
  }
  if (!node->blocks().empty()) return false;
  const auto* schema = node->maybeSchema();
  return !schema ? node->hasSideEffects() || !node->kind().is_prim() : schema->is_mutable() || node->hasSideEffects();
}

// False: the alias database would have no write of this node on record. What a node with blocks does is asked of the nodes in them.
bool may_write_something(Node* node) {
  static const std::unordered_set<c10::Symbol> harmless{
      prim::Constant, prim::GetAttr, prim::ListConstruct, prim::ListUnpack, prim::TupleConstruct, prim::TupleUnpack, prim::TupleIndex,
      prim::DictConstruct, prim::NumToTensor, prim::dtype, prim::device, prim::If, prim::Loop, prim::RaiseException, prim::Print};
  if (harmless.count(node->kind())) return false;
  const auto* schema = node->maybeSchema();
  const bool reads_only = node->kind().is_aten() && schema && !schema->is_mutable() && !node->hasSideEffects();
  return !reads_only || may_train(node);
}

// Assignments and prints, which an exception raised before them would have prevented. A raise itself leaves nothing behind. What stands in a
// `with` (no_grad, autocast) stays there.
bool has_effect(const Node* node) {
  if (node->kind() == prim::SetAttr || node->kind() == prim::Print || is_with(node)) return true;
  for (const Block* block : node->blocks()) {
    for (const Node* inner : block->nodes()) {
      if (has_effect(inner)) return true;
    }
  }
  return false;
}

// Pure views and copies whose result is no larger than their operand: folded when the operand is a constant tensor.
bool is_foldable_view(const Node* node) {
  static const std::unordered_set<c10::Symbol> kinds{
      aten::t, aten::transpose, aten::permute, aten::view, aten::reshape, aten::unsqueeze, aten::squeeze, aten::flatten,
      aten::contiguous, aten::detach, aten::numpy_T, aten::chunk, aten::split, aten::unbind, aten::select, aten::narrow};
  return kinds.count(node->kind()) != 0;
}

}  // namespace

bool is_with(const Node* node) { return node->kind() == prim::Enter || node->kind() == prim::Exit; }

void Facts::find_autocast(const Block* block, int depth) {
  for (const Node* node : block->nodes()) {
    if (is_with(node)) {
      const auto type = node->input(0)->type()->cast<c10::ClassType>();
      const bool casts = type && type->name() && type->name()->qualifiedName().find("autocast") != std::string::npos;
      if (casts) depth += node->kind() == prim::Enter ? 1 : -1;
    }
    if (depth > 0) in_autocast_.insert(node);
    for (const Block* inner : node->blocks()) find_autocast(inner, depth);
  }
}

Facts::Facts(const MethodGraph& method, const std::unordered_set<const void*>& written_elsewhere)
    : graph_(method.graph), written_elsewhere_(written_elsewhere), not_dense_(method.not_dense) {
  int position = 0;
  bool any_writes = false;
  for (Value* input : graph_->inputs()) outside_.insert(input);
  for_each_node(graph_->block(), [&](Node* node) {
    order_[node] = position++;
    if (node->kind() == prim::GetAttr || (node->kind() == prim::Constant && node->output()->type()->kind() == c10::TypeKind::TensorType))
      outside_.insert(node->output());
    any_writes = any_writes || may_write_something(node);
    if (has_writes(node) || has_effect(node)) writers_[node->owningBlock()].push_back(node);
  });
  order_[graph_->return_node()] = position;
  if (any_writes) aliases_.emplace(graph_);
  find_autocast(graph_->block(), 0);
}

std::optional<c10::IValue> Facts::evaluate(const Value* value) const {
  Node* node = const_cast<Node*>(value->node());
  if (node->kind() == prim::Constant) return torch::jit::toIValue(value);
  if (node->kind() == prim::ListConstruct) {
    if (is_written(value)) return std::nullopt;
    c10::impl::GenericList elements(value->type()->expectRef<c10::ListType>().getElementType());
    for (const Value* input : node->inputs()) {
      const auto* element = constant(input);
      if (!element || !element->type()->isSubtypeOf(*elements.elementType())) return std::nullopt;
      elements.push_back(*element);
    }
    return c10::IValue(std::move(elements));
  }
  // q, k, v = weight.chunk(3)
  if (node->kind() == prim::ListUnpack) {
    const auto* list = constant(node->input());
    const auto index = static_cast<std::size_t>(value->offset());
    return list && list->isTensorList() && index < list->toTensorVector().size() ? std::make_optional<c10::IValue>(list->toTensorVector()[index])
                                                                                 : std::nullopt;
  }
  if (!is_foldable_view(node) || node->outputs().size() != 1) return std::nullopt;
  torch::jit::Stack stack;
  for (const Value* input : node->inputs()) {
    const auto* element = constant(input);
    if (!element) return std::nullopt;
    stack.push_back(*element);
  }
  // torch takes who writes the view, or the list of parts, to write what it shows.
  if (stack.empty() || !stack[0].isTensor() || is_written(node->input(0))) return std::nullopt;
  try {
    node->getOperation()(stack);
  } catch (const std::exception&) {
    return std::nullopt;
  }
  return stack.at(0);
}

bool Facts::is_written(const Value* value) const {
  if (aliases_ && aliases_->hasWriters(value)) return true;
  if (value->node()->kind() != prim::Constant || written_elsewhere_.empty()) return false;
  const auto held = torch::jit::toIValue(value);
  return held && held->isTensor() && held->toTensor().has_storage() &&
         written_elsewhere_.count(held->toTensor().storage().unsafeGetStorageImpl()) != 0;
}

const c10::IValue* Facts::constant(const Value* value) const {
  auto known = constants_.find(value);
  if (known == constants_.end()) known = constants_.emplace(value, evaluate(value)).first;
  return known->second ? &*known->second : nullptr;
}

patterns::ConstantOf Facts::constant_of() const {
  // A pattern takes a tensor of rank 0 for its number: not one that another call may have written.
  return [this](const Value* value) {
    const auto* known = constant(value);
    return known && known->isTensor() && is_written(value) ? nullptr : known;
  };
}

const at::Tensor* Facts::constant_tensor(const Value* value) const {
  const auto* found = constant(value);
  if (!found || !found->isTensor() || is_written(value)) return nullptr;
  return &found->toTensor();
}

Node* Facts::writer_between(const Node* from, const Node* to, const std::vector<Value*>& values, const std::vector<Node*>& matched) const {
  auto writers = writers_.find(from->owningBlock());
  if (writers == writers_.end()) return nullptr;
  const auto before = [this](int position, const Node* node) { return position < order(node); };
  torch::jit::ValueSet asked(values.begin(), values.end());
  auto it = std::upper_bound(writers->second.begin(), writers->second.end(), order(from), before);
  for (; it != writers->second.end() && order(*it) < order(to); ++it) {
    if (std::find(matched.begin(), matched.end(), *it) != matched.end()) continue;
    if (aliases_ && (aliases_->writesToAlias(*it, asked) || aliases_->writesToAlias(*it, outside_))) return *it;
    if (has_effect(*it)) return *it;
  }
  return nullptr;
}

bool Facts::may_write(Node* node, const std::vector<Value*>& values) const {
  return aliases_ && aliases_->writesToAlias(node, torch::jit::ValueSet(values.begin(), values.end()));
}

}  // namespace fusible
