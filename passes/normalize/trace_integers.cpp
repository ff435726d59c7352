#include <torch/csrc/jit/ir/constants.h>

#include "passes/normalize/normalize.h"

namespace fusible {

namespace {

namespace aten = torch::jit::aten;
namespace prim = torch::jit::prim;

// A trace computes with sizes as tensors without dimensions: Int(floor_divide(NumToTensor(size(x, 1)), 2)). The same on integers.
class Integers {
 public:
  explicit Integers(Graph& graph) : graph_(graph) {}

  // The integer that `tensor` holds, computed before `where`; null: not known to be one. What was written on the way to a null is dead code.
  Value* of(const Value* tensor, Node* where) {
    torch::jit::WithInsertPoint here(where);
    computed_.clear();
    return computed(tensor, 0);
  }

 private:
  static constexpr int kDeepest = 12;

  // Or seen through a view, by which it may be.
  static bool is_written(const Value* value) {
    return std::any_of(value->uses().begin(), value->uses().end(), [](const torch::jit::Use& use) {
      const auto* schema = use.user->maybeSchema();
      if (!schema || use.offset >= schema->arguments().size()) return use.user->kind() != prim::Return;
      return schema->arguments()[use.offset].alias_info() != nullptr;
    });
  }

  static std::optional<std::int64_t> literal_of(const Value* value) {
    const auto constant = torch::jit::toIValue(value);
    if (!constant) return std::nullopt;
    if (constant->isInt()) return constant->toInt();
    if (!constant->isTensor()) return std::nullopt;
    const auto& t = constant->toTensor();
    const bool whole = t.defined() && t.dim() == 0 && t.scalar_type() == at::kLong && t.device().is_cpu() && t.layout() == at::kStrided;
    return whole ? std::optional(t.item<std::int64_t>()) : std::nullopt;
  }

  // Of a division that gives an integer: "floor", "trunc", or nothing where it is none.
  static std::string rounding_of(const Node* node) {
    if (node->kind() == aten::floor_divide && node->inputs().size() == 2) return "floor";
    if (node->kind() != aten::div || node->inputs().size() != 3) return "";
    const auto mode = torch::jit::toIValue(node->input(2));
    return mode && mode->isString() ? mode->toStringRef() : "";
  }

  static std::optional<c10::Symbol> operation_of(const Node* node) {
    const bool scaled = node->inputs().size() == 3 && literal_of(node->input(2)) == 1;  // alpha
    if ((node->kind() == aten::add || node->kind() == aten::sub) && scaled) return node->kind();
    if (node->kind() == aten::mul && node->inputs().size() == 2) return aten::mul;
    if (!rounding_of(node).empty() && literal_of(node->input(1)).value_or(0) > 0) return aten::floordiv;
    return std::nullopt;
  }

  // Of an integer: where it is not, floor and trunc are not the same.
  static bool is_nonnegative(const Value* integer, int depth = 0) {
    if (const auto literal = literal_of(integer)) return *literal >= 0;
    const Node* node = integer->node();
    if (node->kind() == aten::size) return true;
    const bool keeps_sign = depth < kDeepest && (node->kind() == aten::add || node->kind() == aten::mul || node->kind() == aten::floordiv);
    return keeps_sign && is_nonnegative(node->input(0), depth + 1) && (node->input(1) == node->input(0) || is_nonnegative(node->input(1), depth + 1));
  }

  Value* computed(const Value* tensor, int depth) {
    const auto [found, is_new] = computed_.emplace(tensor, nullptr);
    if (!is_new) return found->second;
    return computed_[tensor] = emitted(tensor, depth);
  }

  Value* emitted(const Value* tensor, int depth) {
    if (const auto literal = literal_of(tensor)) return graph_.insertConstant(*literal);
    Node* node = const_cast<Node*>(tensor->node());
    if (depth > kDeepest || node->inputs().empty() || is_written(tensor)) return nullptr;
    if (node->kind() == prim::NumToTensor) return node->input()->type()->kind() == c10::TypeKind::IntType ? node->input() : nullptr;
    const auto operation = operation_of(node);
    if (!operation) return nullptr;
    Value* const left = computed(node->input(0), depth + 1);
    Value* const right = left ? computed(node->input(1), depth + 1) : nullptr;
    if (!right || (rounding_of(node) == "trunc" && !is_nonnegative(left))) return nullptr;
    return graph_.insertNode(graph_.create(*operation, {left, right}))->output()->setType(c10::IntType::get());
  }

  Graph& graph_;
  std::unordered_map<const Value*, Value*> computed_;
};

}  // namespace

void compute_with_integers(const std::shared_ptr<Graph>& graph) {
  Integers integers(*graph);
  std::vector<Node*> conversions;
  for_each_node(graph->block(), [&](Node* node) {
    if (node->kind() == aten::Int && node->input()->type()->isSubtypeOf(*c10::TensorType::get())) conversions.push_back(node);
  });
  for (Node* node : conversions) {
    Value* const value = integers.of(node->input(), node);
    if (!value) continue;
    node->output()->replaceAllUsesWith(value);
    node->destroy();
  }
}

}  // namespace fusible
