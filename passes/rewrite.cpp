#include "passes/rewrite.h"
#include "passes/dead_code.h"

#include <sstream>

#include <ATen/core/custom_class.h>

namespace fusible {

namespace {

namespace prim = torch::jit::prim;

std::vector<Affine> affines_of(const Chain& chain) {
  std::vector<Affine> affines;
  for (const auto& step : chain.steps) {
    if (step.affine) affines.push_back(*step.affine);
  }
  return affines;
}

// self.NAME at the top of the graph, once.
Value* packed_attribute(Graph& graph, const std::string& name, std::map<std::string, Value*>& known) {
  Value*& value = known[name];
  if (value) return value;
  // The module that will own the attribute is built later (install.cpp), so the node is spelled out.
  Node* node = graph.create(prim::GetAttr, {graph.inputs()[0]});
  node->s_(torch::jit::attr::name, name);
  value = node->output()->setDebugName("packed" + name);
  value->setType(c10::getCustomClassType<c10::intrusive_ptr<PackedContraction>>());
  graph.prependNode(node);
  return value;
}

// A chain's input or operand may be the result of a chain that is rewritten already.
using Results = std::unordered_map<const Value*, Value*>;
Value* current(Value* value, const Results& results) {
  auto it = results.find(value);
  return it == results.end() ? value : it->second;
}

Value* emit_fused(Graph& graph, const Chain& chain, const Results& results, const std::string& attribute, std::map<std::string, Value*>& known) {
  Value* packed = packed_attribute(graph, attribute, known);
  std::string post_ops;
  std::vector<Value*> operands;
  for (const auto& step : chain.steps) {
    if (step.affine) continue;
    post_ops += (post_ops.empty() ? "" : "|") + step.text;
    for (Value* operand : step.operands) operands.push_back(current(operand, results));
  }
  torch::jit::WithInsertPoint here(chain.root());
  Node* list = graph.insertNode(graph.createList(c10::TensorType::get(), operands));
  Value* text = graph.insertConstant(post_ops);
  Node* fused = graph.insertNode(graph.create(c10::Symbol::fromQualString("fusible::" + chain.entry->name), {current(chain.input, results), packed, text, list->output()}));
  fused->copyMetadata(chain.anchor);
  list->copyMetadata(chain.anchor);
  fused->output()->setType(c10::TensorType::get());
  return fused->output();
}

}  // namespace

std::string PackedStore::add(const ContractionSpec& spec, const std::vector<Affine>& affines) {
  std::ostringstream identity;
  const auto put = [&](const at::Tensor& t) {
    if (t.defined()) identity << t.data_ptr() << t.sizes() << t.strides();
    identity << ';';
  };
  identity << static_cast<int>(spec.kind) << spec.stride << spec.padding << spec.dilation << spec.output_padding << spec.padding_mode << spec.groups << ':'
           << spec.expected_rank;
  put(spec.weight);
  put(spec.bias);
  for (const auto& affine : affines) {
    identity << affine.text;
    for (const auto& operand : affine.operands) put(operand);
  }
  std::string& name = names_[identity.str()];
  if (name.empty()) {
    name = "_fusible_" + std::to_string(objects_.size());
    objects_[name] = make_packed(fold(spec, affines));
  }
  return name;
}

void rewrite(MethodGraph& method, const Decision& decision, const Options& options, PackedStore& store) {
  Graph& graph = *method.graph;
  std::map<std::string, Value*> known;
  Results results;
  for (const auto& chain : decision.chains) {
    Value* old = chain.root()->output();
    Value* result = options.target == "aten" ? emit_stock(graph, chain, current(chain.input, results))
                                             : emit_fused(graph, chain, results, store.add(chain.spec, affines_of(chain)), known);
    old->replaceAllUsesWith(result);
    results[old] = result;
  }
  for (const auto& rule : decision.rules) emit_rule(graph, rule);
  const auto remove = [](const std::vector<Node*>& nodes) {
    for (auto it = nodes.rbegin(); it != nodes.rend(); ++it) (*it)->destroy();
  };
  for (const auto& chain : decision.chains) remove(chain.nodes());
  // What emit lines still read (the "c" of a match) stays.
  for (const auto& rule : decision.rules) {
    for (auto it = rule.match.nodes.rbegin(); it != rule.match.nodes.rend(); ++it) {
      if (std::none_of((*it)->outputs().begin(), (*it)->outputs().end(), [](const Value* output) { return output->hasUses(); })) (*it)->destroy();
    }
  }
  eliminate_dead_code(method.graph);
}

}  // namespace fusible
