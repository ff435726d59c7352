#include "passes/rewrite.h"

#include "passes/dead_code.h"
#include "passes/findings.h"

#include <new>
#include <sstream>

#include <ATen/core/custom_class.h>

namespace fusible {

namespace {

namespace prim = torch::jit::prim;

// self.NAME at the top of the graph, once.
Value* packed_attribute(Graph& graph, const std::string& name, std::map<std::string, Value*>& known) {
  Value*& value = known[name];
  if (value) return value;
  value = root_attribute(graph, name, c10::getCustomClassType<c10::intrusive_ptr<PackedContraction>>())->setDebugName("packed" + name);
  return value;
}

std::string place_of(const Chain& chain, const MethodGraph& method) {
  const Site site = site_of(chain.anchor, method.name);
  std::string where = site.module_path.empty() ? method.name : site.module_path;
  if (site.location.line) where += ", " + site.location.file + ":" + std::to_string(site.location.line);
  return chain.pattern() + " (" + where + ")";
}

// fusible::lstm(input, hx, packed) in the place of aten::lstm(input, hx, params, ...).
void emit_recurrence(Graph& graph, const AcceptedRecurrence& recurrence, PackedStore& store) {
  Node* const node = recurrence.node;
  Value* const packed = root_attribute(graph, store.add(recurrence.weights), c10::getCustomClassType<c10::intrusive_ptr<Recurrent>>());
  const std::string name = std::string("fusible::") + node->kind().toUnqualString();
  Node* const fused = graph.create(c10::Symbol::fromQualString(name), {node->input(0), node->input(1), packed}, node->outputs().size())->insertBefore(node);
  fused->copyMetadata(node);
  for (std::size_t i = 0; i < node->outputs().size(); ++i) fused->output(i)->setType(c10::TensorType::get());
  node->replaceAllUsesWith(fused);
  node->destroy();
}

}  // namespace

std::vector<Affine> affines_of(const Chain& chain) {
  std::vector<Affine> affines;
  for (const auto& step : chain.steps) {
    if (step.affine) affines.push_back(*step.affine);
  }
  return affines;
}

// The module that will own the attribute is built later (install.cpp), so the node is spelled out.
Value* root_attribute(Graph& graph, const std::string& name, const c10::TypePtr& type) {
  Node* node = graph.prependNode(graph.create(prim::GetAttr, {graph.inputs()[0]}));
  node->s_(torch::jit::attr::name, name);
  return node->output()->setType(type);
}

const std::string* name_of_root_attribute(const Value* value) {
  const Node* node = value->node();
  return node->kind() == prim::GetAttr && node->input(0) == value->owningGraph()->inputs()[0] ? &node->s(torch::jit::attr::name) : nullptr;
}

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

std::string PackedStore::add(c10::intrusive_ptr<Recurrent> weights) {
  std::ostringstream identity;
  identity << weights->describe();
  for (const auto& tensor : weights->dense_weights()) identity << ';' << tensor.data_ptr() << tensor.strides();
  std::string& name = names_[identity.str()];
  if (name.empty()) {
    name = "_fusible_recurrent_" + std::to_string(recurrents_.size());
    recurrents_[name] = std::move(weights);
  }
  return name;
}

Value* Results::current(Value* value) const {
  auto it = results_.find(value);
  return it == results_.end() ? value : it->second;
}

void Results::replace(Value* old, Value* result) {
  old->replaceAllUsesWith(result);
  results_[old] = result;
}

void emit_operator(Graph& graph, const std::string& name, std::vector<Value*> operands, const Chain& chain, Results& results) {
  for (Value*& operand : operands) operand = results.current(operand);
  std::string post_ops;
  std::vector<Value*> tensors;
  for (const auto& step : chain.steps) {
    if (step.affine) continue;
    post_ops += (post_ops.empty() ? "" : "|") + step.text;
    for (Value* operand : step.operands) tensors.push_back(results.current(operand));
  }
  torch::jit::WithInsertPoint here(chain.root());
  Node* list = graph.insertNode(graph.createList(c10::TensorType::get(), tensors));
  operands.insert(operands.end(), {graph.insertConstant(post_ops), list->output()});
  Node* fused = graph.insertNode(graph.create(c10::Symbol::fromQualString(name), operands));
  fused->copyMetadata(chain.anchor);
  list->copyMetadata(chain.anchor);
  fused->output()->setType(c10::TensorType::get());
  results.replace(chain.root()->output(), fused->output());
}

void remove_nodes(const std::vector<Node*>& nodes) {
  for (auto it = nodes.rbegin(); it != nodes.rend(); ++it) {
    if (std::none_of((*it)->outputs().begin(), (*it)->outputs().end(), [](const Value* output) { return output->hasUses(); })) (*it)->destroy();
  }
}

void rewrite(MethodGraph& method, const Decision& decision, const Options& options, PackedStore& store) {
  Graph& graph = *method.graph;
  std::map<std::string, Value*> known;
  Results results;
  const auto emit = [&](const Chain& chain) {
    if (options.target == "aten") {
      results.replace(chain.root()->output(), emit_stock(graph, chain, results.current(chain.input)));
    } else {
      Value* packed = packed_attribute(graph, store.add(chain.spec, affines_of(chain)), known);
      emit_operator(graph, "fusible::" + chain.entry->name, {chain.input, packed}, chain, results);
    }
  };
  for (const auto& chain : decision.chains) {
    try {
      emit(chain);
    } catch (const c10::Error& error) {
      throw SequenceFailed(place_of(chain, method), error.what_without_backtrace());
    } catch (const std::bad_alloc&) {
      throw SequenceFailed(place_of(chain, method), "out of memory");
    }
  }
  for (const auto& rule : decision.rules) emit_rule(graph, rule);
  for (const auto& recurrence : decision.recurrences) emit_recurrence(graph, recurrence, store);
  for (const auto& chain : decision.chains) remove_nodes(chain.nodes());
  // What emit lines still read (the "c" of a match) stays.
  for (const auto& rule : decision.rules) remove_nodes(rule.match.nodes);
  eliminate_dead_code(method.graph);
}

}  // namespace fusible
