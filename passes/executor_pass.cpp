// fusible as a JIT pass: weight-agnostic fusions in the profiled plan of every model of the process. The executor's list of passes is a
// plain vector without a lock, so the pass is registered once, when the library is loaded, and enable/disable flip what it reads.

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/passes/pass_manager.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/runtime/profiling_graph_executor_impl.h>

#include "passes/dead_code.h"
#include "passes/rewrite.h"

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

void fuse_plan(const std::shared_ptr<Graph>& graph) {
  const auto held = patterns::matcher();
  const patterns::Matcher& matcher = *held;
  const std::unordered_set<const void*> none;
  MethodGraph method;
  method.graph = graph;
  const Facts facts(method, none);
  const auto found = matcher.match(*graph, facts.constant_of());
  const Composites composites = by_start(found.composites);
  const auto anchors = contractions_of(*graph, matcher, facts);
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
  Results results;
  std::vector<Node*> replaced;
  for (auto it = chains.rbegin(); it != chains.rend(); ++it) {
    const auto& [chain, anchor] = *it;
    torch::jit::WithInsertPoint here(chain.root());
    auto operands = unpacked_operands(*graph, *anchor);
    if (!operands) continue;
    emit_operator(*graph, chain.entry->name == "linear" ? "fusible::linear_unpacked" : "fusible::conv_unpacked", std::move(*operands), chain, results);
    const auto nodes = chain.nodes();
    replaced.insert(replaced.end(), nodes.begin(), nodes.end());
  }
  remove_nodes(replaced);
  eliminate_dead_code(graph);
}

// The plans that the executor showed us, for as long as it keeps them. A plan's graph is the one that the pass leaves behind.
class Plans {
 public:
  void add(const std::shared_ptr<Graph>& graph, bool on) {
    std::lock_guard lock(mutex_);
    std::erase_if(seen_, [](const auto& plan) { return plan.first.expired(); });
    seen_[graph] = on;
  }
  // Whether the plan was made while the pass was on; a plan that was never shown was not.
  bool made_while_on(const std::shared_ptr<Graph>& graph) const {
    std::lock_guard lock(mutex_);
    auto it = seen_.find(graph);
    return it != seen_.end() && it->second;
  }
  std::size_t made_while_off() const {
    std::lock_guard lock(mutex_);
    return std::count_if(seen_.begin(), seen_.end(), [](const auto& plan) { return !plan.second && !plan.first.expired(); });
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::weak_ptr<Graph>, bool, std::owner_less<>> seen_;
};

Plans& plans() {
  static Plans known;
  return known;
}

// A graph that cannot be treated runs as it is: the host never sees an exception from here.
void pass(std::shared_ptr<Graph>& graph) {
  const bool on = switched_on().load(std::memory_order_relaxed);
  if (on) {
    auto trial = graph->copy();
    try {
      fuse_plan(trial);
      trial->lint();
      graph = trial;
    } catch (const std::exception& error) {
      TORCH_WARN("fusible left a graph as it was: ", error.what());
    }
  }
  plans().add(graph, on);
}

const torch::jit::RegisterPostPass registered(pass);

bool is_trainable(const torch::jit::Module& module) {
  for (const at::Tensor& parameter : module.parameters()) {
    if (parameter.defined() && parameter.requires_grad()) return true;
  }
  return false;
}

// A first call without optimised execution leaves submodules called, not inlined, for good: there is nothing to fuse in the plan.
bool calls_modules(const std::shared_ptr<Graph>& graph) {
  bool found = false;
  for_each_node(graph->block(), [&](Node* node) {
    found |= node->kind() == torch::jit::prim::CallMethod && node->input(0)->type()->kind() == c10::TypeKind::ClassType;
  });
  return found;
}

bool has_plan_of_another_kind(torch::jit::Method method) {
  auto& function = torch::jit::toGraphFunction(method.function());
  try {
    const auto made = function.get_executor().getDebugState().execution_plans;
    return std::any_of(made.begin(), made.end(), [](const auto& plan) {
      return !plans().made_while_on(plan.second.graph) || calls_modules(plan.second.graph);
    });
  } catch (const std::exception&) {
    return false;  // the executor has made no plan yet
  }
}

}  // namespace

void enable() { switched_on() = true; }
void disable() { switched_on() = false; }
bool enabled() { return switched_on(); }

std::vector<std::string> why_not_running(const torch::jit::Module* module) {
  std::vector<std::string> reasons;
  if (!enabled()) reasons.push_back("the pass is off: call fusible.enable(), or set FUSIBLE_ENABLE=1 before the library is loaded");
  if (at::GradMode::is_enabled() && (!module || is_trainable(*module)))
    reasons.push_back("grad mode is on: no pass is called for a model whose parameters require grad in its first call; make it under torch.no_grad()");
  if (!torch::jit::getGraphExecutorOptimize())
    reasons.push_back("optimised execution is off: no pass is called; leave torch.jit.optimized_execution(False) (Triton: DISABLE_OPTIMIZED_EXECUTION)");
  // The older executor, which getExecutorMode() = false chooses, calls passes and does not profile.
  if (torch::jit::getExecutorMode() && !torch::jit::getProfilingMode())
    reasons.push_back("profiling is off: no pass is called; set torch::jit::getProfilingMode() to true before the first call");
  if (!module) {
    if (const auto older = plans().made_while_off())
      reasons.push_back("plans made before enable(): " + std::to_string(older) + "; they stay as they are, load those models again");
    return reasons;
  }
  for (const auto& method : module->get_methods()) {
    if (has_plan_of_another_kind(method))
      reasons.push_back("method '" + method.name() + "' has a plan that was made before enable(), in grad mode or without optimised execution: " +
                        "load the model again");
  }
  return reasons;
}

}  // namespace fusible
