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

  // The integer that `tensor` holds, computed before `where`; null: not known to be one.
  Value* of(const Value* tensor, Node* where) {
    torch::jit::WithInsertPoint here(where);
    const Plan plan = planned(tensor, 0);
    return plan.ok ? emitted(plan) : nullptr;
  }

 private:
  struct Plan {
    bool ok = false;
    bool negative = true;                 // may be
    Value* known = nullptr;               // an int value
    std::optional<std::int64_t> literal;
    c10::Symbol op;                       // else: of the two parts
    std::vector<Plan> parts;
  };
  static constexpr int kDeepest = 16;

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

  Plan planned(const Value* value, int depth) const {
    Plan plan;
    if ((plan.literal = literal_of(value))) {
      plan.ok = true;
      plan.negative = *plan.literal < 0;
      return plan;
    }
    const Node* node = value->node();
    if (depth > kDeepest || node->inputs().empty() || is_written(value)) return plan;
    if (node->kind() == prim::NumToTensor && node->input()->type()->kind() == c10::TypeKind::IntType) {
      plan.ok = true;
      plan.known = const_cast<Value*>(node->input());
      plan.negative = plan.known->node()->kind() != aten::size;
      return plan;
    }
    const bool scaled = node->inputs().size() == 3 && literal_of(node->input(2)) == 1;  // alpha
    if (node->kind() == aten::add && scaled) plan.op = aten::add;
    else if (node->kind() == aten::sub && scaled) plan.op = aten::sub;
    else if (node->kind() == aten::mul && node->inputs().size() == 2) plan.op = aten::mul;
    else if (const auto rounding = rounding_of(node); !rounding.empty() && literal_of(node->input(1)).value_or(0) > 0) plan.op = aten::floordiv;
    else return plan;
    plan.parts = {planned(node->input(0), depth + 1), planned(node->input(1), depth + 1)};
    plan.negative = plan.parts[0].negative || plan.parts[1].negative || plan.op == aten::sub;
    plan.ok = plan.parts[0].ok && plan.parts[1].ok && !(rounding_of(node) == "trunc" && plan.negative);
    return plan;
  }

  Value* emitted(const Plan& plan) {
    if (plan.literal) return graph_.insertConstant(*plan.literal);
    if (plan.known) return plan.known;
    Node* node = graph_.insertNode(graph_.create(plan.op, {emitted(plan.parts[0]), emitted(plan.parts[1])}));
    return node->output()->setType(c10::IntType::get());
  }

  Graph& graph_;
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
