#pragma once

// The single-node half of the matcher: one hash look-up by operator and number of arguments, then the few spellings that share them.

#include <unordered_map>

#include "passes/patterns/library.h"
#include "passes/patterns/literal.h"

namespace fusible::patterns {

// An operator and its number of arguments: what the first test of every pattern switches on.
struct NodeKey {
  c10::Symbol op;
  std::size_t arguments;
  bool operator==(const NodeKey&) const = default;
};
struct NodeKeyHash {
  std::size_t operator()(const NodeKey& key) const { return static_cast<c10::unique_t>(key.op) * 31 + key.arguments; }
};
NodeKey key_of(const Node* node);
bool has_overload(const Node* node, const std::string& overload);

class Views {
 public:
  explicit Views(const Library& library);
  std::optional<View> find(Node* node, const ConstantOf& constant) const;

 private:
  struct Compared {
    std::size_t input;
    Literal literal;
    double tolerance;
  };
  struct Candidate {
    const Entry* entry;
    std::optional<std::string> overload;
    std::vector<Compared> compared;
    std::vector<std::pair<std::size_t, std::size_t>> same;  // inputs that must be one value
    std::vector<std::pair<std::string, std::size_t>> roles;
    bool in_place;
  };
  void add(const Entry& entry, const Operation& operation);
  static bool fits(const Candidate& candidate, Node* node, const ConstantOf& constant);

  std::unordered_map<NodeKey, std::vector<Candidate>, NodeKeyHash> candidates_;
};

// The operator writes to its first argument, as aten names say it: "aten::relu_".
bool writes_first_argument(const std::string& op);

}  // namespace fusible::patterns
