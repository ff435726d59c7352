#include "tests/patterns/graphs.h"

#include <stdexcept>

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/runtime/operator.h>

#include "passes/patterns/check.h"
#include "passes/patterns/operations.h"

namespace fusible::patterns {

using torch::jit::Graph;

const c10::IValue* Constants::operator()(const Value* value) {
  auto [place, fresh] = known_.try_emplace(value);
  if (fresh) place->second = torch::jit::toIValue(value);
  return place->second ? &*place->second : nullptr;
}

namespace {

const c10::FunctionSchema& schema_of(const Operation& operation) {
  auto name = split_overload(operation.op);
  for (auto& candidate : torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(name.op))) {
    auto& schema = candidate->schema();
    bool first_is_tensor =
        !schema.arguments().empty() && schema.arguments()[0].type()->isSubtypeOf(*c10::OptionalType::create(c10::TensorType::get()));
    if (first_is_tensor && schema.arguments().size() == operation.args.size() &&
        (!name.overload || schema.overload_name() == *name.overload)) {
      return schema;
    }
  }
  throw std::logic_error("no schema for " + operation.op);
}

c10::IValue as_ivalue(const Literal& literal) {
  return std::visit([](const auto& value) -> c10::IValue {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::monostate>) return {};
    else return value;
  }, literal);
}

class Maker {
 public:
  Maker(const Library& library, Graph& graph) : library_(library), graph_(graph) {}

  void make(const std::vector<Operation>& operations) {
    for (auto& operation : operations) {
      if (is_operator(operation.op)) make_node(operation);
      else make_entry(*library_.entry(operation.op), operation);
    }
    graph_.registerOutput(values_.at(operations.back().out));
  }

 private:
  void make_entry(const Entry& entry, const Operation& operation) {
    auto spelled = entry.spellings.front().operations.front();
    auto roles = roles_of(entry);
    for (std::size_t i = 0; i < operation.args.size(); ++i) {
      auto& role = operation.args[i].role.empty() ? roles[i] : operation.args[i].role;
      for (auto& arg : spelled.args) {
        if (arg.name == role) arg = operation.args[i];
      }
    }
    spelled.out = operation.out;
    make_node(spelled);
  }

  void make_node(const Operation& operation) {
    auto& schema = schema_of(operation);
    auto* node = graph_.create(c10::Symbol::fromQualString(schema.name()), 0);
    for (std::size_t i = 0; i < operation.args.size(); ++i) {
      auto& arg = operation.args[i];
      if (arg.equals) {
        node->addInput(graph_.insertConstant(as_ivalue(*arg.equals)));
        continue;
      }
      auto& value = values_[arg.name.empty() ? operation.out + "_ignored" + std::to_string(i) : arg.name];
      if (!value) value = graph_.addInput()->setType(schema.arguments()[i].type());
      node->addInput(value);
    }
    graph_.insertNode(node);
    for (auto& result : schema.returns()) node->addOutput()->setType(result.type());
    values_[operation.out] = node->outputs()[0];
  }

  const Library& library_;
  Graph& graph_;
  std::unordered_map<std::string, Value*> values_;
};

}  // namespace

std::shared_ptr<Graph> graph_of(const Library& library, const std::vector<Operation>& operations) {
  auto graph = std::make_shared<Graph>();
  Maker(library, *graph).make(operations);
  return graph;
}

Node* root_of(Graph& graph) { return graph.outputs()[0]->node(); }

}  // namespace fusible::patterns
