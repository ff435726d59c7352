#include "passes/patterns/automaton.h"

#include <algorithm>
#include <map>

#include "passes/patterns/operations.h"

namespace fusible::patterns {

// Adds one variant of one pattern: walks its chain of tests down the trie, making the states that are missing.
class ChainBuilder {
 public:
  ChainBuilder(Automaton& automaton, const Variant& variant, const Entry* entry, const Rule* rule)
      : automaton_(automaton), states_(automaton.states_), variant_(variant), entry_(entry), rule_(rule) {
    for (std::size_t i = 0; i < operations().size(); ++i) {
      define(operations()[i].out, i, 0);
      for (std::size_t k = 0; k < operations()[i].others.size(); ++k) define(operations()[i].others[k], i, k + 1);
    }
  }

  void add() {
    auto root = operations().size() - 1;
    state_ = edge(automaton_.roots_, node_key(root));
    visit(root);
    for (auto& [a, b] : same_) step_same(a, b);
    for (auto reg : registers_in_order_) step_constants(reg);
    for (auto reg : registers_in_order_) step_overload(reg);
    accept();
  }

 private:
  const std::vector<Operation>& operations() const { return variant_.operations; }
  void define(const std::string& name, std::size_t operation, std::size_t output) {
    if (name != "_") results_[name] = {operation, output};
  }

  NodeKey node_key(std::size_t operation) const {
    return {c10::Symbol::fromQualString(split_overload(operations()[operation].op).op), operations()[operation].args.size()};
  }

  template <typename Map, typename Key>
  std::uint32_t edge(Map& map, const Key& key) {
    auto [place, fresh] = map.try_emplace(key, static_cast<std::uint32_t>(states_.size()));
    auto next = place->second;  // a new state may move the map
    if (fresh) states_.emplace_back();
    return next;
  }

  // Depth first from the root: a register per operation, a test per argument that another operation of the pattern makes.
  void visit(std::size_t operation) {
    auto reg = static_cast<std::uint32_t>(registers_in_order_.size());
    registers_in_order_.push_back(reg);
    operation_of_.push_back(operation);
    register_of_[operation] = reg;
    auto& args = operations()[operation].args;
    for (std::uint32_t i = 0; i < args.size(); ++i) {
      auto& name = args[i].name;
      if (name.empty()) continue;
      auto [first, fresh] = paths_.try_emplace(name, Path{reg, i});
      if (!fresh) {
        same_.emplace_back(first->second, Path{reg, i});
        continue;
      }
      auto result = results_.find(name);
      if (result == results_.end()) continue;
      step_producer({reg, i}, operation, result->second.first, result->second.second);
      visit(result->second.first);
    }
  }

  // Remembers, for near misses, what the first rule through this state is waiting for.
  template <typename Text>
  void expect(Path path, bool producer, Text&& text) {
    auto& expected = states_[state_].expected;
    if (rule_ && !expected.rule) expected = {rule_, path, producer, text()};
  }

  template <typename Switches>
  auto& switch_on(Switches& switches, Path path) {
    auto found = std::find_if(switches.begin(), switches.end(), [&](auto& s) { return s.path == path; });
    if (found != switches.end()) return *found;
    switches.push_back({path, {}});
    return switches.back();
  }

  std::string describe(const Operation& operation, std::uint32_t input) const {
    return argument_name(operation, input) + " of " + operation.op;
  }

  std::string describe_at(Path path) const { return describe(operations()[operation_of_[path.reg]], path.input); }

  void step_producer(Path path, std::size_t consumer, std::size_t producer, std::size_t output) {
    expect(path, true, [&] { return operations()[producer].op + " as " + describe(operations()[consumer], path.input); });
    state_ = edge(switch_on(states_[state_].producers, path).next, ProducerKey{node_key(producer), output});
  }

  void step_same(Path a, Path b) {
    expect(b, false, [&] { return describe_at(b) + " to be " + describe_at(a); });
    for (auto& same : states_[state_].same) {
      if (same.a == a && same.b == b) {
        state_ = same.next;
        return;
      }
    }
    auto next = static_cast<std::uint32_t>(states_.size());
    states_[state_].same.push_back({a, b, next});
    states_.emplace_back();
    state_ = next;
  }

  void step_constants(std::uint32_t reg) {
    auto& operation = operations()[operation_of_[reg]];
    for (std::uint32_t i = 0; i < operation.args.size(); ++i) {
      auto& arg = operation.args[i];
      if (!arg.equals) continue;
      ++compared_;
      auto literal = normalized(*arg.equals);
      Path path{reg, i};
      expect(path, false, [&] { return describe(operation, i) + " equal to " + print(literal); });
      if (arg.tolerance > 0) step_tolerant(path, literal, arg.tolerance);
      else state_ = edge(switch_on(states_[state_].constants, path).next, literal);
    }
  }

  void step_tolerant(Path path, const Literal& literal, double tolerance) {
    for (auto& known : states_[state_].tolerant) {
      if (known.path == path && known.literal == literal && known.tolerance == tolerance) {
        state_ = known.next;
        return;
      }
    }
    auto next = static_cast<std::uint32_t>(states_.size());
    states_[state_].tolerant.push_back({path, literal, tolerance, next});
    states_.emplace_back();
    state_ = next;
  }

  void step_overload(std::uint32_t reg) {
    auto& operation = operations()[operation_of_[reg]];
    auto overload = split_overload(operation.op).overload;
    if (!overload) return;
    expect({reg, 0}, false, [&] { return operation.op; });
    for (auto& known : states_[state_].overloads) {
      if (known.reg == reg && known.name == *overload) {
        state_ = known.next;
        return;
      }
    }
    auto next = static_cast<std::uint32_t>(states_.size());
    states_[state_].overloads.push_back({reg, *overload, next});
    states_.emplace_back();
    state_ = next;
  }

  void accept() {
    Accepted accepted;
    accepted.entry = entry_;
    accepted.compared = compared_;
    for (std::size_t i = 0; i < operations().size(); ++i) accepted.order.push_back(register_of_.at(i));
    accepted.reading = std::make_unique<Reading>(reading());
    auto& root = operations().back();
    accepted.in_place = writes_first_argument(root.op) && (root.args[0].name == "x" || root.args[0].name == "lhs");
    for (auto& known : states_[state_].accepted) {
      if (known.entry == entry_ && known.order == accepted.order && *known.reading == *accepted.reading) {
        if (rule_ && known.rules.back() != rule_) known.rules.push_back(rule_);
        return;
      }
    }
    if (rule_) accepted.rules.push_back(rule_);
    states_[state_].accepted.push_back(std::move(accepted));
  }

  // Names that expansion made up contain "/".
  Reading reading() const {
    Reading reading;
    for (auto& [name, path] : paths_) {
      if (results_.count(name) || name.find('/') != std::string::npos) continue;
      reading.arguments.push_back({name, static_cast<std::uint32_t>(operation_of_[path.reg]), path.input});
    }
    for (auto& named : variant_.named) {
      reading.arguments.push_back({named.name, static_cast<std::uint32_t>(named.operation), static_cast<std::uint32_t>(named.argument)});
    }
    for (auto& [name, result] : results_) {
      if (!rule_ || name.find('/') != std::string::npos) continue;
      reading.results.push_back({name, static_cast<std::uint32_t>(result.first), static_cast<std::uint32_t>(result.second)});
    }
    return reading;
  }

  Automaton& automaton_;
  std::vector<State>& states_;
  const Variant& variant_;
  const Entry* entry_;
  const Rule* rule_;
  std::uint32_t state_ = 0;
  int compared_ = 0;
  std::map<std::string, std::pair<std::size_t, std::size_t>> results_;  // name -> operation, output
  std::map<std::string, Path> paths_;                                   // name -> where it was met first
  std::vector<std::pair<Path, Path>> same_;
  std::vector<std::uint32_t> registers_in_order_;
  std::vector<std::size_t> operation_of_;                               // register -> operation
  std::map<std::size_t, std::uint32_t> register_of_;
};

Automaton::Automaton(const Library& library) {
  for (auto& entry : library.entries) {
    for (auto& spelling : entry.spellings) {
      bool composite = spelling.is_composite() || !is_operator(spelling.operations.front().op);
      if (!composite) continue;
      for (auto& variant : expand(library, spelling.operations, {}, spelling.file)) ChainBuilder(*this, variant, &entry, nullptr).add();
    }
  }
  for (auto& rule : library.rules) {
    for (auto& variant : expand(library, rule.match, dotted_names(rule), rule.file)) ChainBuilder(*this, variant, nullptr, &rule).add();
  }
}

}  // namespace fusible::patterns
