// fusible as a JIT pass: weight-agnostic fusions in the profiled plan of every model of the process. The executor's list of passes is a
// plain vector without a lock, so the pass is registered once, when the library is loaded, and enable/disable flip what it reads.

#include <atomic>
#include <cstdlib>
#include <cstring>

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/passes/pass_manager.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/runtime/profiling_graph_executor_impl.h>

#include "passes/dead_code.h"
#include "passes/decide.h"

namespace fusible {

namespace {

std::atomic<bool>& switched_on() {
  static std::atomic<bool> on{[] {
    const char* value = std::getenv("FUSIBLE_ENABLE");
    return value && std::strcmp(value, "1") == 0;
  }()};
  return on;
}

// The operands of fusible::conv_unpacked or linear_unpacked; nothing when the spelling has a form that they do not take.
std::optional<std::vector<Value*>> unpacked_operands(Graph& graph, const patterns::View& view) {
  Value* weight = view["weight"];
  if (!weight || !view["x"]) return std::nullopt;
  Value* bias = view["bias"] ? view["bias"] : graph.insertConstant(c10::IValue());
  if (view.entry->name == "linear") return std::vector<Value*>{view["x"], weight, bias};
  const auto is_int_list = [](Value* value) { return value && value->type()->isSubtypeOf(*c10::ListType::ofInts()); };
  if (!is_int_list(view["stride"]) || !is_int_list(view["padding"]) || !is_int_list(view["dilation"])) return std::nullopt;
  Value* output_padding = view["output_padding"] ? view["output_padding"] : graph.insertConstant(c10::List<std::int64_t>({0}));
  Value* transposed = graph.insertConstant(view.entry->name == "conv_transpose");
  return std::vector<Value*>{view["x"], weight, bias, view["stride"], view["padding"], view["dilation"], transposed, output_padding, view["groups"]};
}

bool replace_chain(Graph& graph, const Chain& chain, const patterns::View& anchor, std::unordered_map<const Value*, Value*>& results) {
  torch::jit::WithInsertPoint here(chain.root());
  auto operands = unpacked_operands(graph, anchor);
  if (!operands) return false;
  const auto current = [&](Value* value) {
    auto it = results.find(value);
    return it == results.end() ? value : it->second;
  };
  std::string post_ops;
  std::vector<Value*> tensors;
  for (const auto& step : chain.steps) {
    post_ops += (post_ops.empty() ? "" : "|") + step.text;
    for (Value* operand : step.operands) tensors.push_back(current(operand));
  }
  for (Value*& operand : *operands) operand = current(operand);
  operands->push_back(graph.insertConstant(post_ops));
  operands->push_back(graph.insertNode(graph.createList(c10::TensorType::get(), tensors))->output());
  const auto symbol = c10::Symbol::fromQualString(chain.entry->name == "linear" ? "fusible::linear_unpacked" : "fusible::conv_unpacked");
  Node* fused = graph.insertNode(graph.create(symbol, *operands));
  fused->copyMetadata(chain.anchor);
  fused->output()->setType(c10::TensorType::get());
  Value* old = chain.root()->output();
  old->replaceAllUsesWith(fused->output());
  results[old] = fused->output();
  return true;
}

void fuse_plan(const std::shared_ptr<Graph>& graph) {
  const auto held = patterns::matcher();
  const patterns::Matcher& matcher = *held;
  const std::unordered_set<const void*> none;
  MethodGraph method;
  method.graph = graph;
  const Facts facts(method, none);
  const auto constant = facts.constant_of();
  const auto found = matcher.match(*graph, constant);
  std::unordered_multimap<const Value*, const patterns::View*> composites;
  for (const auto& view : found.composites) {
    if (view["x"]) composites.emplace(view["x"], &view);
  }
  std::vector<patterns::View> anchors;
  for_each_node(graph->block(), [&](Node* node) {
    auto view = matcher.view(node, constant);
    if (view && view->entry->kind == patterns::Entry::Kind::contraction) anchors.push_back(std::move(*view));
  });
  std::unordered_set<const Node*> claimed;
  std::vector<std::pair<Chain, const patterns::View*>> chains;
  for (auto it = anchors.rbegin(); it != anchors.rend(); ++it) {
    Chain chain;
    chain.anchor = it->root;
    chain.entry = it->entry;
    chain.input = (*it)["x"];
    extend(chain, {facts, matcher, composites, claimed, /*strict=*/true});
    if (chain.steps.empty()) continue;
    for (Node* node : chain.nodes()) claimed.insert(node);
    chains.emplace_back(std::move(chain), &*it);
  }
  std::unordered_map<const Value*, Value*> results;
  std::vector<Node*> replaced;
  for (auto it = chains.rbegin(); it != chains.rend(); ++it) {
    if (!replace_chain(*graph, it->first, *it->second, results)) continue;
    const auto nodes = it->first.nodes();
    replaced.insert(replaced.end(), nodes.begin(), nodes.end());
  }
  for (auto it = replaced.rbegin(); it != replaced.rend(); ++it) (*it)->destroy();
  eliminate_dead_code(graph);
}

// A graph that cannot be treated runs as it is: the host never sees an exception from here.
void pass(std::shared_ptr<Graph>& graph) {
  if (!switched_on().load(std::memory_order_relaxed)) return;
  auto trial = graph->copy();
  try {
    fuse_plan(trial);
    trial->lint();
  } catch (const std::exception& error) {
    TORCH_WARN("fusible left a graph as it was: ", error.what());
    return;
  }
  graph = trial;
}

const torch::jit::RegisterPostPass registered(pass);

bool has_plan_made_before(torch::jit::Method method) {
  auto& function = torch::jit::toGraphFunction(method.function());
  try {
    const auto state = function.get_executor().getDebugState();
    for (const auto& [spec, plan] : state.execution_plans) {
      bool ours = false;
      for_each_node(plan.graph->block(), [&](Node* node) { ours |= std::strcmp(node->kind().ns().toUnqualString(), "fusible") == 0; });
      if (!ours) return true;
    }
  } catch (const std::exception&) {
    // The executor has made no optimised plan yet.
  }
  return false;
}

}  // namespace

void enable() { switched_on() = true; }
void disable() { switched_on() = false; }
bool enabled() { return switched_on(); }

std::vector<std::string> why_not_running(const torch::jit::Module* module) {
  std::vector<std::string> reasons;
  if (!enabled()) reasons.push_back("the pass is off: call fusible.enable(), or set FUSIBLE_ENABLE=1 before the library is loaded");
  if (at::GradMode::is_enabled())
    reasons.push_back("grad mode is on: the executor calls no pass on plans made now; run the first calls under torch.no_grad()");
  if (!torch::jit::getGraphExecutorOptimize())
    reasons.push_back("optimised execution is off (torch.jit.optimized_execution(False), DISABLE_OPTIMIZED_EXECUTION): no pass is called");
  if (!torch::jit::getProfilingMode() || !torch::jit::getExecutorMode())
    reasons.push_back("the profiling executor is off (getProfilingMode() or getExecutorMode() is false): no pass is called");
  if (module) {
    for (const auto& method : module->get_methods()) {
      if (has_plan_made_before(method))
        reasons.push_back("method '" + method.name() + "' has a plan that was made before: load the model again after enable()");
    }
  }
  return reasons;
}

}  // namespace fusible
