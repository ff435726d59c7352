#pragma once

// All patterns of several operations as one trie of tests, shared from the root operation backwards along its arguments.
//
// A pattern is first a chain of tests in a canonical order: what produces this argument (operator, arity, which output), then which two
// arguments are one value, then which arguments equal which constants, then overloads. Chains with a common beginning share states, and
// all tests of a state that ask about one argument are one hash look-up: cost does not grow with the number of patterns that differ only
// in an operator or a literal.

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "passes/patterns/expand.h"
#include "passes/patterns/library.h"
#include "passes/patterns/literal.h"
#include "passes/patterns/views.h"

namespace fusible::patterns {

// An argument of a node met on the way: `reg` counts the operations matched before it, 0 is the root.
struct Path {
  std::uint32_t reg, input;
  bool operator==(const Path&) const = default;
};

struct ProducerKey {
  NodeKey node;
  std::size_t output;
  bool operator==(const ProducerKey&) const = default;
};
struct ProducerKeyHash {
  std::size_t operator()(const ProducerKey& key) const { return NodeKeyHash{}(key.node) * 7 + key.output; }
};

// Names of a pattern by place: an argument or a result of its n-th operation.
struct Reading {
  struct Place {
    std::string name;
    std::uint32_t operation, index;
    bool operator==(const Place&) const = default;
  };
  std::vector<Place> arguments, results;
  bool operator==(const Reading&) const = default;
};

// What a state accepts. Rules with the same reading share it.
struct Accepted {
  const Entry* entry = nullptr;
  std::vector<const Rule*> rules;
  std::vector<std::uint32_t> order;  // registers in the order of the pattern's operations, root last
  std::unique_ptr<Reading> reading;  // its address is in matches
  bool in_place = false;
  int compared = 0;
};

struct State {
  template <typename Key, typename Hash>
  struct Switch {
    Path path;
    std::unordered_map<Key, std::uint32_t, Hash> next;
  };
  struct Tolerant {
    Path path;
    Literal literal;
    double tolerance;
    std::uint32_t next;
  };
  struct Same {
    Path a, b;
    std::uint32_t next;
  };
  struct Overload {
    std::uint32_t reg;
    std::string name;
    std::uint32_t next;
  };
  // What the first rule that goes on from here expects next.
  struct Expectation {
    const Rule* rule = nullptr;
    Path path;
    bool producer = false;
    std::string text;
  };
  std::vector<Switch<ProducerKey, ProducerKeyHash>> producers;
  std::vector<Same> same;
  std::vector<Switch<Literal, LiteralHash>> constants;
  std::vector<Tolerant> tolerant;
  std::vector<Overload> overloads;
  std::vector<Accepted> accepted;
  Expectation expected;
};

class Automaton {
 public:
  // Every composite spelling and every rule.
  explicit Automaton(const Library& library);
  Matcher::Result match(torch::jit::Graph& graph, const ConstantOf& constant) const;

  std::size_t states() const { return states_.size(); }

 private:
  friend class Walk;
  friend class ChainBuilder;
  std::vector<State> states_;
  std::unordered_map<NodeKey, std::uint32_t, NodeKeyHash> roots_;
};

}  // namespace fusible::patterns
