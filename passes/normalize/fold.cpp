#include <torch/csrc/jit/ir/constants.h>

#include "passes/normalize/normalize.h"

namespace fusible {

namespace {

namespace aten = torch::jit::aten;
namespace prim = torch::jit::prim;

// Pure, and bounded by the size of their operands. torch's own constant propagation is not used: it runs any operator without a
// schema-declared effect, among them from_file, and materialises zeros of any size.
const std::unordered_set<c10::Symbol>& foldable() {
  static const std::unordered_set<c10::Symbol> kinds{
      aten::eq, aten::ne, aten::lt, aten::le, aten::gt, aten::ge, aten::__not__, aten::__and__, aten::__or__, aten::__xor__,
      aten::__is__, aten::__isnot__, aten::add, aten::sub, aten::mul, aten::div, aten::neg, aten::floordiv, aten::remainder, aten::len,
      aten::Int, aten::Float, aten::Bool, aten::__getitem__, c10::Symbol::fromQualString("prim::min"),
      c10::Symbol::fromQualString("prim::max"), c10::Symbol::fromQualString("prim::abs"), aten::__contains__,
      prim::unchecked_unwrap_optional, aten::_unwrap_optional};
  return kinds;
}

bool is_small(const c10::IValue& value) {
  if (value.isIntList() || value.isDoubleList() || value.isBoolList()) return value.toListRef().size() <= 64;
  return value.isNone() || value.isBool() || value.isInt() || value.isDouble() || (value.isString() && value.toStringRef().size() <= 256);
}

std::optional<c10::IValue> constant_list(const Value* value) {
  const Node* node = value->node();
  if (node->kind() != prim::ListConstruct || node->inputs().size() > 64) return std::nullopt;
  auto type = value->type()->cast<c10::ListType>();
  if (!type || type->getElementType()->kind() != c10::TypeKind::IntType) return std::nullopt;
  // A list is mutable: it is the constant it was built as only while every user reads it.
  for (const auto& use : value->uses()) {
    const auto* schema = use.user->maybeSchema();
    if (!schema || schema->is_mutable() || (use.user->kind() != aten::len && use.user->kind() != aten::__getitem__)) return std::nullopt;
  }
  c10::List<std::int64_t> list;
  for (const Value* element : node->inputs()) {
    auto item = torch::jit::toIValue(element);
    if (!item || !item->isInt()) return std::nullopt;
    list.push_back(item->toInt());
  }
  return c10::IValue(std::move(list));
}

// None is decided by the type: a value whose type has no None in it never is None.
std::optional<bool> is_none(const Value* value) {
  if (value->type()->kind() == c10::TypeKind::NoneType) return true;
  const auto kind = value->type()->kind();
  if (kind == c10::TypeKind::OptionalType || kind == c10::TypeKind::AnyType || kind == c10::TypeKind::UnionType) return std::nullopt;
  return false;
}

}  // namespace

std::optional<c10::IValue> folded(Node* node) {
  if (!foldable().count(node->kind()) || node->outputs().size() != 1) return std::nullopt;
  if (node->output()->type()->kind() == c10::TypeKind::ListType) return std::nullopt;  // [0] * n is as large as n says
  if (node->kind() == aten::__is__ || node->kind() == aten::__isnot__) {
    auto left = is_none(node->input(0)), right = is_none(node->input(1));
    if (left && right && (*left || *right)) return c10::IValue((*left == *right) == (node->kind() == aten::__is__));
    return std::nullopt;
  }
  torch::jit::Stack stack;
  for (const Value* input : node->inputs()) {
    auto value = torch::jit::toIValue(input);
    if (!value) value = constant_list(input);
    if (!value || !is_small(*value)) return std::nullopt;
    stack.push_back(std::move(*value));
  }
  try {
    node->getOperation()(stack);
  } catch (const std::exception&) {
    return std::nullopt;  // 1 // 0 stays where it was, and raises when it is reached
  }
  if (stack.size() != 1 || !is_small(stack[0])) return std::nullopt;
  return stack[0];
}

}  // namespace fusible
