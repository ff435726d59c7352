#pragma once

// Patterns as sequences of plain operators: names of the vocabulary become each of their spellings, commutative operations both orders.

#include <string>
#include <vector>

#include "passes/patterns/library.h"

namespace fusible::patterns {

struct Variant {
  std::vector<Operation> operations;  // operators only; the last one is the root
  // Arguments that have a second name: "c.stride" of a rule, the role of an entry.
  struct Named {
    std::string name;
    std::size_t operation, argument;
  };
  std::vector<Named> named;
};

// `wanted`: the dotted names ("c.stride") that the rule uses. Throws fusible::Error, naming `file`, when there are more than 4096 variants.
std::vector<Variant> expand(const Library& library, const std::vector<Operation>& operations, const std::vector<std::string>& wanted,
                            const std::string& file);
// The dotted names in needs and emit.
std::vector<std::string> dotted_names(const Rule& rule);

// The argument's name in the operator's schema with that arity, or "argument 3".
std::string argument_name(const Operation& operation, std::size_t argument);

}  // namespace fusible::patterns
