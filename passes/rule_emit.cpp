// The emit lines of a free-form rule: rehearsed on a graph of their own when the rule is proven, then written at the match's root.

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/runtime/operator.h>

#include "fusible/pattern.h"
#include "passes/rewrite.h"

namespace fusible {

namespace {

using patterns::Match;
using patterns::Operation;

std::vector<std::string> results_of(const Operation& operation) {
  std::vector<std::string> names{operation.out};
  names.insert(names.end(), operation.others.begin(), operation.others.end());
  return names;
}

c10::IValue value_of(const patterns::Literal& literal) {
  return std::visit([](const auto& value) -> c10::IValue {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::monostate>) return {};
    else return value;
  }, literal);
}

// What the rule's builders make. Their arguments are literals, results of earlier builders, and constants of the match.
std::map<std::string, c10::IValue> build(const Match& match, const Facts& facts) {
  std::map<std::string, c10::IValue> built;
  for (const auto& operation : match.rule->emit) {
    const auto builder = find_builder(operation.op);
    if (!builder) continue;
    std::vector<c10::IValue> arguments;
    for (const auto& argument : operation.args) {
      if (argument.equals) {
        arguments.push_back(value_of(*argument.equals));
        continue;
      }
      if (auto known = built.find(argument.name); known != built.end()) {
        arguments.push_back(known->second);
        continue;
      }
      Value* value = match[argument.name];
      const auto* constant = value && !facts.is_written(value) ? facts.constant(value) : nullptr;
      if (!constant) throw Error(operation.op + " needs constants, '" + argument.name + "' is computed or written at run time");
      arguments.push_back(*constant);
    }
    const auto results = (*builder)(arguments);
    const auto names = results_of(operation);
    if (results.size() != names.size())
      throw Error(operation.op + " gives " + std::to_string(results.size()) + " results, the emit line names " + std::to_string(names.size()));
    for (std::size_t i = 0; i < names.size(); ++i) built[names[i]] = results[i];
  }
  return built;
}

// The operator as a graph has it: every argument of one overload, those that Python takes by keyword only among them.
Node* write_exactly(Graph& graph, c10::Symbol symbol, const std::optional<std::string>& overload, const std::vector<Value*>& inputs) {
  for (const auto& op : torch::jit::getAllOperatorsFor(symbol)) {
    const auto& schema = op->schema();
    if (schema.arguments().size() != inputs.size() || (overload && schema.overload_name() != *overload)) continue;
    bool fits = true;
    for (std::size_t i = 0; i < inputs.size() && fits; ++i) fits = inputs[i]->type()->isSubtypeOf(*schema.arguments()[i].type());
    if (!fits) continue;
    Node* node = graph.insertNode(graph.create(symbol, inputs, schema.returns().size()));
    for (std::size_t i = 0; i < schema.returns().size(); ++i) node->outputs()[i]->setType(schema.returns()[i].type());
    return node;
  }
  return nullptr;
}

// The operators at the graph's insert point; `outside` gives the value that stands for one of the match's.
Value* write_operators(Graph& graph, const AcceptedRule& rule, const std::function<Value*(Value*)>& outside) {
  std::map<std::string, Value*> made;
  const auto argument_of = [&](const patterns::Arg& argument) -> Value* {
    if (argument.equals) return graph.insertConstant(value_of(*argument.equals));
    if (auto known = made.find(argument.name); known != made.end()) return known->second;
    if (auto known = rule.built.find(argument.name); known != rule.built.end()) return made[argument.name] = graph.insertConstant(known->second);
    if (Value* value = rule.match[argument.name]) return outside(value);
    throw Error("the emit line names '" + argument.name + "', which the match does not bind");
  };
  Value* last = nullptr;
  for (const auto& operation : rule.match.rule->emit) {
    if (find_builder(operation.op)) continue;
    std::vector<Value*> inputs;
    for (const auto& argument : operation.args) inputs.push_back(argument_of(argument));
    const auto dot = operation.op.find('.');
    const auto symbol = c10::Symbol::fromQualString(operation.op.substr(0, dot));
    std::optional<std::string> overload;
    if (dot != std::string::npos) overload = operation.op.substr(dot + 1) == "default" ? "" : operation.op.substr(dot + 1);
    Node* written = write_exactly(graph, symbol, overload, inputs);
    if (!written && !overload) {
      // With defaults for what is left out, and one number for a list of them, as Python has it.
      written = graph.insert(symbol, std::vector<torch::jit::NamedValue>(inputs.begin(), inputs.end()))->node();
      if (written->kind() == torch::jit::prim::TupleConstruct) written = written->input(0)->node();
    }
    if (!written) throw Error("no overload of " + operation.op + " takes these " + std::to_string(inputs.size()) + " arguments");
    const auto outputs = written->outputs();
    written->copyMetadata(rule.match.root);
    const auto names = results_of(operation);
    if (names.size() > outputs.size())
      throw Error(operation.op + " gives " + std::to_string(outputs.size()) + " results, the emit line names " + std::to_string(names.size()));
    for (std::size_t i = 0; i < names.size(); ++i) made[names[i]] = outputs[i];
    last = outputs[0];
  }
  if (!last) throw Error("rule '" + rule.match.rule->name + "' emits no operator");
  return last;
}

}  // namespace

void rehearse(AcceptedRule& rule, const Facts& facts) {
  rule.built = build(rule.match, facts);
  Graph graph;
  std::map<const Value*, Value*> inputs;
  const auto outside = [&](Value* value) {
    Value*& input = inputs[value];
    if (!input) input = graph.addInput()->setType(value->type());
    return input;
  };
  const Value* replaced = rule.match.root->outputs()[0];
  const Value* result = write_operators(graph, rule, outside);
  // A traced model's types say the sizes and the dtype of its example, which no schema gives.
  if (!c10::unshapedType(result->type())->isSubtypeOf(*c10::unshapedType(replaced->type())))
    throw Error("the last emit line gives " + result->type()->repr_str() + ", the match gives " + replaced->type()->repr_str());
  if (rule.match.root->outputs().size() > 1) {
    for (std::size_t i = 1; i < rule.match.root->outputs().size(); ++i) {
      if (rule.match.root->outputs()[i]->hasUses()) throw Error("a second result of the match is used, the emit lines give one");
    }
  }
}

void emit_rule(Graph& graph, const AcceptedRule& rule) {
  torch::jit::WithInsertPoint here(rule.match.root);
  Value* result = write_operators(graph, rule, [](Value* value) { return value; });
  rule.match.root->outputs()[0]->replaceAllUsesWith(result);
}

}  // namespace fusible
