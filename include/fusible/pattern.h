#pragma once

// The vocabulary of pattern files, open to everyone: conditions that a `need` line names and builders that an `emit` line calls.
// Register before the file that uses them is read by fusible::load_patterns. All functions are thread-safe.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include "fusible/export.h"

namespace fusible {

// What is known of a matched rule's variables, read-only. Every function takes a variable as the file names it ("x", "c.stride").
class FUSIBLE_API Matched {
 public:
  virtual ~Matched() = default;
  // Its value when it is known at compile time (a frozen weight, a literal), or null.
  virtual const c10::IValue* constant(const std::string& variable) const = 0;
  // Element type and sizes of a tensor that is such a constant. What tracing recorded of others holds for its example alone.
  virtual std::optional<at::ScalarType> dtype(const std::string& variable) const = 0;
  virtual std::optional<std::vector<std::int64_t>> sizes(const std::string& variable) const = 0;
};

// Why a condition does not hold: both become part of the finding.
struct Unmet {
  std::string variable;  // the blocking variable
  std::string needed;    // "a weight known when the model is fused"
  std::string found;     // "an input of the method"
};

// Nothing when it holds. `arguments` as written: variables or literals.
using Condition = std::function<std::optional<Unmet>(const Matched& match, const std::vector<std::string>& arguments)>;
// Computes constants from constants, in the order in which an `emit` line names its results. May throw: the match is then declined.
using Builder = std::function<std::vector<c10::IValue>(const std::vector<c10::IValue>& arguments)>;

// `code` is the diagnostic code that a failed need reports unless its line says `else CODE`. Throws fusible::Error when the name is taken.
FUSIBLE_API void register_condition(const std::string& name, const std::string& code, Condition condition);
FUSIBLE_API void register_builder(const std::string& name, Builder builder);

struct RegisteredCondition {
  std::string code;
  Condition check;
};
// Nothing when no such name is registered.
FUSIBLE_API std::optional<RegisteredCondition> find_condition(const std::string& name);
FUSIBLE_API std::optional<Builder> find_builder(const std::string& name);

}  // namespace fusible
