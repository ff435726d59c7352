#include <algorithm>
#include <optional>

#include <torch/csrc/jit/ir/ir.h>

#include "passes/patterns/automaton.h"

namespace fusible::patterns {

// One run of the automaton over a graph. Registers hold the nodes matched so far, root first.
class Walk {
 public:
  Walk(const Automaton& automaton, const ConstantOf& constant) : automaton_(automaton), constant_(constant) {}

  Matcher::Result run(torch::jit::Graph& graph) {
    using Iterator = decltype(graph.block()->nodes().begin());
    std::vector<std::pair<Iterator, Iterator>> open{{graph.block()->nodes().begin(), graph.block()->nodes().end()}};
    while (!open.empty()) {
      auto& [next, end] = open.back();
      if (next == end) {
        open.pop_back();
        continue;
      }
      Node* node = *next;
      ++next;
      visit(node);
      auto blocks = node->blocks();
      for (auto block = blocks.rbegin(); block != blocks.rend(); ++block)
        open.emplace_back((*block)->nodes().begin(), (*block)->nodes().end());
    }
    return std::move(result_);
  }

 private:
  void visit(Node* root) {
    auto start = automaton_.roots_.find(key_of(root));
    if (start == automaton_.roots_.end()) return;
    registers_.assign(1, root);
    best_ = nullptr;
    missed_.reset();
    auto matches_before = result_.matches.size();
    go(automaton_.states_[start->second]);
    if (best_) result_.composites.push_back(view_of(*best_));
    if (missed_ && result_.matches.size() == matches_before) result_.near_misses.push_back(*missed_);
  }

  // True when some pattern is accepted here or further on.
  bool go(const State& state) {
    bool reached = false;
    for (auto& accepted : state.accepted) {
      accept(accepted);
      reached = true;
    }
    for (auto& producers : state.producers) reached |= go_producer(producers);
    for (auto& same : state.same) {
      if (at(same.a) == at(same.b)) reached |= go(next(same.next));
    }
    for (auto& constants : state.constants) {
      auto literal = literal_at(constants.path);
      if (!literal) continue;
      auto found = constants.next.find(*literal);
      if (found != constants.next.end()) reached |= go(next(found->second));
    }
    for (auto& tolerant : state.tolerant) {
      auto literal = literal_at(tolerant.path);
      if (literal && equals(tolerant.literal, *literal, tolerant.tolerance)) reached |= go(next(tolerant.next));
    }
    for (auto& overload : state.overloads) {
      if (has_overload(registers_[overload.reg], overload.name)) reached |= go(next(overload.next));
    }
    if (!reached) miss(state);
    return reached;
  }

  // Blocks are borders: what produces the argument must stand beside the root.
  bool go_producer(const State::Switch<ProducerKey, ProducerKeyHash>& producers) {
    Value* value = at(producers.path);
    Node* node = value->node();
    if (node->owningBlock() != registers_[0]->owningBlock()) return false;
    auto found = producers.next.find({key_of(node), value->offset()});
    if (found == producers.next.end()) return false;
    registers_.push_back(node);
    bool reached = go(next(found->second));
    registers_.pop_back();
    return reached;
  }

  const State& next(std::uint32_t state) const { return automaton_.states_[state]; }
  Value* at(Path path) const { return registers_[path.reg]->input(path.input); }

  std::optional<Literal> literal_at(Path path) const {
    auto* value = constant_(at(path));
    return value ? as_literal(*value) : std::nullopt;
  }

  void accept(const Accepted& accepted) {
    if (accepted.entry) {
      auto rank = [](const Accepted& a) { return std::pair(a.order.size(), a.compared); };
      if (!best_ || rank(*best_) < rank(accepted)) {
        best_ = &accepted;
        best_registers_ = registers_;
      }
      return;
    }
    for (auto known = result_.matches.rbegin(); known != result_.matches.rend() && known->root == registers_[0]; ++known) {
      if (*known->rules == accepted.rules) return;  // another order of a commutative operation
    }
    Match match;
    match.rule = accepted.rules.front();
    match.rules = &accepted.rules;
    match.root = registers_[0];
    match.reading = accepted.reading.get();
    match.nodes.reserve(accepted.order.size());
    for (auto reg : accepted.order) match.nodes.push_back(registers_[reg]);
    result_.matches.push_back(std::move(match));
  }

  View view_of(const Accepted& accepted) const {
    View view;
    view.entry = accepted.entry;
    view.root = best_registers_[0];
    view.in_place = accepted.in_place;
    for (auto reg : accepted.order) view.nodes.push_back(best_registers_[reg]);
    for (auto& [role, operation, input] : accepted.reading->arguments) view.roles.emplace_back(role, view.nodes[operation]->input(input));
    return view;
  }

  // The furthest state reached from this root at which some rule still expected something.
  void miss(const State& state) {
    auto& expected = state.expected;
    auto matched = static_cast<int>(registers_.size());
    if (!expected.rule || matched < 2 || (missed_ && missed_->matched >= matched)) return;
    Node* found = expected.producer ? at(expected.path)->node() : registers_[expected.path.reg];
    missed_ = NearMiss{expected.rule, registers_[0], found, matched, expected.text};
  }

  const Automaton& automaton_;
  const ConstantOf& constant_;
  std::vector<Node*> registers_, best_registers_;
  const Accepted* best_ = nullptr;
  std::optional<NearMiss> missed_;
  Matcher::Result result_;
};

Matcher::Result Automaton::match(torch::jit::Graph& graph, const ConstantOf& constant) const { return Walk(*this, constant).run(graph); }

}  // namespace fusible::patterns
