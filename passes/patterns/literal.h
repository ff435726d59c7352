#pragma once

// Literals of pattern files against constants of a graph.

#include "passes/patterns/library.h"

namespace fusible::patterns {

// The constant as a literal: numbers, None, bool, string, int list, and 0-dim tensors as their number (a traced model writes 0.5 so).
// Integers that a double holds exactly become doubles, so that equal numbers are equal literals. Nothing for anything else.
std::optional<Literal> as_literal(const c10::IValue& value);
Literal normalized(Literal literal);
bool equals(const Literal& normalized_literal, const Literal& normalized_value, double tolerance);
std::string print(const Literal& literal);

struct LiteralHash {
  std::size_t operator()(const Literal& literal) const;
};

}  // namespace fusible::patterns
