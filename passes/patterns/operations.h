#pragma once

// `y = aten::add(lhs, rhs, alpha=1) commutative; z = relu(y)`: the operations of spellings and rules.

#include <vector>

#include "passes/patterns/cursor.h"
#include "passes/patterns/library.h"

namespace fusible::patterns {

// The matcher recurses once per test of a pattern.
inline constexpr std::size_t kMaxOperations = 64;

// Reads operations joined by ";" (after which a line may end). Operators are checked against the schemas of the running torch.
// `emits`: names of builders and "c.stride" arguments are allowed.
std::vector<Operation> parse_operations(Cursor& cursor, bool emits = false);

// Whether the running torch has the operator (with that overload when one is written) with so many arguments; "" or what was found instead.
std::string schema_mismatch(const std::string& op, std::size_t arguments);

// "aten::add.Tensor" is the operator "aten::add" and the overload "Tensor"; "aten::add" has none; "default" names the nameless one.
struct OperatorName {
  std::string op;
  std::optional<std::string> overload;
};
OperatorName split_overload(const std::string& op);
inline bool is_operator(const std::string& op) { return op.find("::") != std::string::npos; }

}  // namespace fusible::patterns
