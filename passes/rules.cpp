// Free-form rules of a user's pattern file: proved by the same laws as the vocabulary's chains, emitted at the match's root.

#include <torch/csrc/jit/ir/constants.h>

#include "fusible/pattern.h"
#include "passes/rewrite.h"

namespace fusible {

namespace {

using patterns::Match;
using patterns::Operation;

class MatchedFacts : public Matched {
 public:
  MatchedFacts(const Match& match, const Facts& facts) : match_(match), facts_(facts) {}

  const c10::IValue* constant(const std::string& variable) const override {
    Value* value = match_[variable];
    if (!value || facts_.is_written(value)) return nullptr;
    return facts_.constant(value);
  }
  std::optional<at::ScalarType> dtype(const std::string& variable) const override {
    if (const auto* known = constant(variable); known && known->isTensor()) return known->toTensor().scalar_type();
    const auto type = tensor_type(variable);
    return type ? type->scalarType() : std::nullopt;
  }
  std::optional<std::vector<std::int64_t>> sizes(const std::string& variable) const override {
    if (const auto* known = constant(variable); known && known->isTensor()) return known->toTensor().sizes().vec();
    const auto type = tensor_type(variable);
    return type ? type->sizes().concrete_sizes() : std::nullopt;
  }

 private:
  c10::TensorTypePtr tensor_type(const std::string& variable) const {
    Value* value = match_[variable];
    return value ? value->type()->cast<c10::TensorType>() : nullptr;
  }

  const Match& match_;
  const Facts& facts_;
};

Finding finding_of(const Match& match, const Code& code, const std::string& needed, const std::string& found) {
  Finding finding{code};
  finding.pattern = match.rule->name;
  finding.message = match.rule->name + " not fused: " + found;
  finding.needed = needed;
  finding.found = found;
  finding.did = "left as it is";
  finding.help = "see the rule '" + match.rule->name + "' in " + match.rule->file;
  finding.matched = static_cast<int>(match.nodes.size());
  finding.steps = finding.matched;
  finding.producer = match.nodes.front();
  return finding;
}

Finding silent() { return Finding{codes::pattern_failed}; }

const Code* code_named(const std::string& id) {
  static const std::vector<const Code*> usable{
      &codes::second_use, &codes::training_batch_norm, &codes::no_running_statistics, &codes::weight_not_constant, &codes::operand_not_constant,
      &codes::dtype, &codes::channel_mismatch, &codes::broadcast_enlarges, &codes::not_per_channel, &codes::alpha_not_one,
      &codes::unsupported_attribute, &codes::dynamic_attribute, &codes::unprofitable, &codes::operator_missing, &codes::strict_numerics};
  for (const Code* code : usable) {
    if (id == code->id) return code;
  }
  return nullptr;
}

std::optional<Finding> prove_dataflow(const Match& match, const Facts& facts) {
  const auto inside = [&](const Node* node) { return std::find(match.nodes.begin(), match.nodes.end(), node) != match.nodes.end(); };
  for (Node* node : match.nodes) {
    if (node->owningBlock() != match.root->owningBlock())
      return finding_of(match, codes::block_boundary, "the whole sequence in one block", std::string(node->kind().toQualString()) + " stands in another block");
    const auto* schema = node->maybeSchema();
    if (!schema || schema->is_mutable() || node->hasSideEffects())
      return finding_of(match, codes::mutation_between, "operators without effects", std::string(node->kind().toQualString()) + " writes or has effects");
    std::vector<Value*> reads;
    for (Value* input : node->inputs()) {
      if (!inside(input->node())) reads.push_back(input);
    }
    if (node == match.root) continue;
    for (const Value* output : node->outputs()) {
      for (const auto& use : output->uses()) {
        if (inside(use.user)) continue;
        const bool returned = use.user->kind() == torch::jit::prim::Return;
        return finding_of(match, returned ? codes::graph_output : codes::second_use, "inner values that only the sequence uses",
                          std::string("the result of ") + node->kind().toQualString() + (returned ? " is returned" : " is used by ") +
                          (returned ? "" : use.user->kind().toQualString()));
      }
    }
    if (Node* writer = facts.writer_between(node, match.root, reads, match.nodes))
      return finding_of(match, codes::mutation_between, "operands that nothing writes inside the sequence", std::string(writer->kind().toQualString()) + " may write one");
  }
  return std::nullopt;
}

// A literal or a variable of an emit line, as a graph value.
Value* emitted_argument(Graph& graph, const Match& match, const std::map<std::string, Value*>& made, const patterns::Arg& argument) {
  if (argument.equals) {
    return std::visit([&](const auto& literal) -> Value* {
      using T = std::decay_t<decltype(literal)>;
      if constexpr (std::is_same_v<T, std::monostate>) return graph.insertConstant(c10::IValue());
      else return graph.insertConstant(c10::IValue(literal));
    }, *argument.equals);
  }
  if (auto it = made.find(argument.name); it != made.end()) return it->second;
  if (Value* value = match[argument.name]) return value;
  throw Error("rule '" + match.rule->name + "': the emit line names '" + argument.name + "', which the match does not bind");
}

void build_constants(Graph& graph, const Match& match, const Operation& operation, const Builder& builder, const Facts& facts,
                     std::map<std::string, Value*>& made) {
  std::vector<c10::IValue> arguments;
  for (const auto& argument : operation.args) {
    Value* value = emitted_argument(graph, match, made, argument);
    const auto* known = facts.constant(value);
    auto constant = known ? std::optional<c10::IValue>(*known) : torch::jit::toIValue(value);
    if (!constant) throw Error("rule '" + match.rule->name + "': " + operation.op + " needs constants, '" + argument.name + "' is computed at run time");
    arguments.push_back(std::move(*constant));
  }
  const auto results = builder(arguments);
  std::vector<std::string> names{operation.out};
  names.insert(names.end(), operation.others.begin(), operation.others.end());
  for (std::size_t i = 0; i < names.size() && i < results.size(); ++i) made[names[i]] = graph.insertConstant(results[i]);
}

}  // namespace

std::optional<Finding> prove_rule(const Match& match, const Facts& facts, const std::unordered_set<const Node*>& claimed) {
  for (Node* node : match.nodes) {
    if (claimed.count(node)) return silent();
  }
  if (auto finding = prove_dataflow(match, facts)) return finding;
  const MatchedFacts matched(match, facts);
  for (const auto& need : match.rule->needs) {
    const auto condition = find_condition(need.condition);
    if (!condition) return finding_of(match, codes::pattern_failed, "a registered condition", "'" + need.condition + "' is not registered");
    std::optional<Unmet> unmet;
    try {
      unmet = condition->check(matched, need.args);
    } catch (const std::exception& error) {
      return finding_of(match, codes::pattern_failed, "condition " + need.condition + " to be decided", error.what());
    }
    if (!unmet) continue;
    const Code* code = code_named(need.code.empty() ? condition->code : need.code);
    return finding_of(match, code ? *code : codes::pattern_failed, unmet->needed, unmet->found);
  }
  return std::nullopt;
}

void emit_rule(Graph& graph, const Match& match, const Facts& facts) {
  torch::jit::WithInsertPoint here(match.root);
  std::map<std::string, Value*> made;
  Node* last = nullptr;
  for (const auto& operation : match.rule->emit) {
    if (const auto builder = find_builder(operation.op)) {
      build_constants(graph, match, operation, *builder, facts, made);
      continue;
    }
    std::vector<torch::jit::NamedValue> arguments;
    for (const auto& argument : operation.args) arguments.emplace_back(emitted_argument(graph, match, made, argument));
    const std::string op = operation.op.substr(0, operation.op.find('.'));
    Value* result = graph.insert(c10::Symbol::fromQualString(op), arguments);
    result->node()->copyMetadata(match.root);
    made[operation.out] = result;
    last = result->node();
  }
  if (!last) throw Error("rule '" + match.rule->name + "' emits no operator");
  match.root->output()->replaceAllUsesWith(last->output());
  for (auto it = match.nodes.rbegin(); it != match.nodes.rend(); ++it) {
    if (!(*it)->hasUses()) (*it)->destroy();
  }
}

}  // namespace fusible
