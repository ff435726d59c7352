#include "passes/model.h"

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/inline_fork_wait.h>
#include <torch/csrc/jit/passes/inliner.h>

#include "passes/provenance.h"

namespace fusible {

namespace {

const std::unordered_set<c10::Symbol>& candidate_kinds() {
  namespace aten = torch::jit::aten;
  static const std::unordered_set<c10::Symbol> kinds{
      aten::conv1d, aten::conv2d, aten::conv3d, aten::conv_transpose1d, aten::conv_transpose2d, aten::conv_transpose3d,
      aten::convolution, aten::_convolution, aten::_convolution_mode, aten::linear, aten::matmul, aten::addmm, aten::bmm, aten::batch_norm};
  return kinds;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

std::set<std::string> methods_called_by(const Module& module, const torch::jit::Method& method) {
  std::set<std::string> called;
  auto graph = torch::jit::toGraphFunction(method.function()).graph();
  for_each_node(graph->block(), [&](Node* node) {
    if (node->kind() == torch::jit::prim::CallMethod && node->input(0) == graph->inputs()[0]) called.insert(node->s(torch::jit::attr::name));
  });
  return called;
}

// Default: forward, and every method that no other method of the root calls. The rest is kept, and counted where it is inlined.
std::set<std::string> treated_methods(const Module& module, const std::vector<std::string>& asked) {
  std::vector<std::string> names;
  for (const auto& method : module.get_methods()) names.push_back(method.name());
  if (names.empty())
    throw Error("a module with at least one method was needed, this one has none: script a module that defines forward or an exported method");
  for (const auto& name : asked) {
    if (std::find(names.begin(), names.end(), name) == names.end())
      throw Error("methods: '" + name + "' was asked for, the module has: " + joined(names));
  }
  if (!asked.empty()) return {asked.begin(), asked.end()};
  std::set<std::string> called;
  for (const auto& method : module.get_methods()) {
    for (const auto& callee : methods_called_by(module, method)) {
      if (callee != method.name()) called.insert(callee);
    }
  }
  std::set<std::string> treated;
  for (const auto& name : names) {
    if (name == "forward" || !called.count(name)) treated.insert(name);
  }
  return treated;
}

// A fork whose future is only waited for runs in line: same values, and the sequence through it can be fused.
bool forks_are_plain(const std::shared_ptr<Graph>& graph) {
  bool plain = true;
  for_each_node(graph->block(), [&](Node* node) {
    if (node->kind() != torch::jit::prim::fork) return;
    for (const auto& use : node->output()->uses()) plain &= use.user->kind() == torch::jit::aten::wait;
  });
  return plain;
}

bool has_forks(const std::shared_ptr<Graph>& graph) {
  bool found = false;
  for_each_node(graph->block(), [&](Node* node) { found |= node->kind() == torch::jit::prim::fork; });
  return found;
}

// A module value may only be asked for an attribute; anything else keeps the module's own type alive and we cannot give it another.
std::string opaque_use(const std::shared_ptr<Graph>& graph) {
  std::string why;
  const auto check = [&](const Value* value) {
    auto type = value->type()->cast<c10::ClassType>();
    if (!type || !type->is_module()) return;
    for (const auto& use : value->uses()) {
      const auto kind = use.user->kind();
      const bool plain = (kind == torch::jit::prim::GetAttr || kind == torch::jit::prim::SetAttr) && use.offset == 0;
      if (!plain && why.empty()) why = "a module is used as a value by " + std::string(kind.toQualString());
    }
  };
  for (const Value* input : graph->inputs()) check(input);
  for_each_node(graph->block(), [&](Node* node) {
    for (const Value* output : node->outputs()) check(output);
  });
  return why;
}

using Role = MethodGraph::Role;

void add_hooks(Model& model, const std::vector<torch::jit::Function*>& hooks, Role role) {
  for (auto* hook : hooks) {
    auto graph = torch::jit::toGraphFunction(*hook).graph()->copy();
    torch::jit::Inline(*graph);
    model.methods.push_back({hook->name(), false, graph, {}, {}, {}, role});
  }
}

void list_candidates(Model& model, int method_index) {
  MethodGraph& method = model.methods[method_index];
  std::map<std::string, int> ordinals;
  for_each_node(method.graph->block(), [&](Node* node) {
    if (!is_candidate(node)) return;
    const std::string op = node->kind().toQualString();
    Site site{method.name, module_path_of(node), op, ++ordinals[op], location_of(node)};
    method.candidate_of[node] = static_cast<int>(model.candidates.size());
    model.candidates.push_back({method_index, std::move(site), node});
  });
}

std::string origin_of(const Module& module, const Model& model) {
  const auto name = module.type()->name();
  bool constants = false, scoped = false;
  for (const auto& method : model.methods) {
    for_each_node(method.graph->block(), [&](Node* node) {
      if (node->kind() == torch::jit::prim::Constant && node->output()->type()->kind() == c10::TypeKind::TensorType) {
        constants |= node->hasAttribute(torch::jit::attr::value) && node->kindOf(torch::jit::attr::value) == torch::jit::AttributeKind::t &&
                     node->t(torch::jit::attr::value).dim() > 1;
      }
      scoped |= node->kind() == torch::jit::aten::_convolution || !node->scopeName().empty();
    });
  }
  if (constants && module.parameters().size() == 0) return "frozen";
  return scoped ? "traced" : "scripted";
}

}  // namespace

bool is_candidate(const Node* node) { return candidate_kinds().count(node->kind()) != 0; }

void forget_dead(Model& model, MethodGraph& method) {
  // A removed node cannot be asked for anything: what the maps hold is looked for among the nodes that are left.
  decltype(method.candidate_of) candidates;
  decltype(method.tensor_attributes) tensor_attributes;
  decltype(method.not_dense) not_dense;
  const auto keep = [](auto& all, auto& left, const auto* key) {
    if (auto entry = all.extract(key)) left.insert(std::move(entry));
  };
  for_each_node(method.graph->block(), [&](Node* node) {
    if (is_candidate(node)) keep(method.candidate_of, candidates, node);
    if (node->kind() != torch::jit::prim::Constant && node->kind() != torch::jit::prim::GetAttr) return;
    keep(method.tensor_attributes, tensor_attributes, node->output());
    keep(method.not_dense, not_dense, node->output());
  });
  for (const auto& [dead, index] : method.candidate_of) model.candidates[index].node = nullptr;
  method.candidate_of = std::move(candidates);
  method.tensor_attributes = std::move(tensor_attributes);
  method.not_dense = std::move(not_dense);
}

Model load(const Module& module, const Options& options) {
  if (options.target != "cpu" && options.target != "aten")
    throw Error("target: \"cpu\" or \"aten\" was needed, found \"" + options.target + "\"");
  if (module.hasattr("training") && module.is_training())
    throw Error("a module in eval mode was needed, found one in training mode: call module.eval() before fuse, and before it is scripted or saved");
  Model model;
  model.source = module;
  const auto treated = treated_methods(module, options.methods);
  for (const auto& method : module.get_methods()) {
    auto graph = torch::jit::toGraphFunction(method.function()).graph()->copy();
    torch::jit::Inline(*graph);
    model.methods.push_back({method.name(), treated.count(method.name()) != 0, graph, {}, {}, {}, Role::method});
  }
  std::stable_sort(model.methods.begin(), model.methods.end(), [](const auto& a, const auto& b) {
    return std::make_pair(a.name != "forward", a.name) < std::make_pair(b.name != "forward", b.name);
  });
  add_hooks(model, module.type()->getForwardPreHooks(), Role::pre_hook);
  add_hooks(model, module.type()->getForwardHooks(), Role::hook);
  for (std::size_t i = 0; i < model.methods.size(); ++i) {
    auto& method = model.methods[i];
    if (method.treated) list_candidates(model, static_cast<int>(i));
    if (!has_forks(method.graph)) continue;
    if (forks_are_plain(method.graph)) {
      // Inlining moves the fork's own nodes into the graph; the candidates listed so far keep their addresses.
      torch::jit::InlineForkWait(method.graph);
      torch::jit::Inline(*method.graph);
    } else {
      model.opaque = "a future is passed on without being waited for";
    }
  }
  for (const auto& method : model.methods) {
    if (model.opaque.empty()) model.opaque = opaque_use(method.graph);
  }
  for (const auto& method : model.methods) {
    for_each_node(method.graph->block(), [&](Node* node) {
      if (node->outputs().size() != 1 || node->output()->type()->kind() != c10::TypeKind::DeviceObjType) return;
      const bool spelled = node->kind() == torch::jit::aten::device && node->inputs().size() == 1;
      const auto device = torch::jit::toIValue(spelled ? node->input() : node->output());
      model.on_cuda |= device && ((device->isDevice() && device->toDevice().is_cuda()) ||
                                  (device->isString() && device->toStringRef().rfind("cuda", 0) == 0));
    });
  }
  model.on_cuda |= options.mapped_from_cuda;
  model.origin = origin_of(module, model);
  return model;
}

}  // namespace fusible
