#include "tests/fuzz/targets.h"

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/codegen/onednn/interface.h>
#include <torch/csrc/jit/passes/fuse_linear.h>
#include <torch/csrc/jit/passes/fuse_relu.h>
#include <torch/csrc/jit/passes/inliner.h>

#include "fusible/fusible.h"

namespace fuzz {

namespace {

constexpr std::pair<const char*, Target> kTargets[]{{"fusible", Target::fusible},
                                                    {"freeze", Target::freeze},
                                                    {"ofi", Target::optimize_for_inference},
                                                    {"llga", Target::llga},
                                                    {"rewriter", Target::rewriter}};

std::string text_of(const torch::jit::Module& module) {
  auto graph = torch::jit::toGraphFunction(module.get_method("forward").function()).graph()->copy();
  torch::jit::Inline(*graph);
  return graph->toString(/*print_source_locations=*/false);
}

// What its executor made of forward in the calls so far.
std::string optimized_text_of(const torch::jit::Module& module) {
  auto& function = torch::jit::toGraphFunction(module.get_method("forward").function());
  std::string text;
  if (!function.get_executor().isOptimized()) return text;  // every call raised
  for (const auto& [spec, plan] : function.get_executor().getDebugState().execution_plans) text += plan.graph->toString(false);
  return text;
}

int count(const std::string& text, const std::string& word) {
  int found = 0;
  for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++found;
  return found;
}

}  // namespace

Target target_of(const std::string& name) {
  std::string names;
  for (const auto& [known, target] : kTargets) {
    if (name == known) return target;
    names += (names.empty() ? "" : ", ") + std::string(known);
  }
  throw std::runtime_error("--target: one of " + names + " was needed, found " + name);
}

std::string name_of(Target target) { return kTargets[static_cast<std::size_t>(target)].first; }

torch::jit::Module rewritten(const torch::jit::Module& module, Target target) {
  if (target == Target::fusible) return fusible::fuse(module).module;
  if (target == Target::rewriter) {
    auto ours = module.deepcopy();
    torch::jit::FuseAddRelu(ours);
    auto graph = torch::jit::toGraphFunction(ours.get_method("forward").function()).graph();
    torch::jit::FuseLinear(graph);
    return ours;
  }
  const std::vector<std::string> kept = module.find_method("state") ? std::vector<std::string>{"state"} : std::vector<std::string>{};
  auto frozen = torch::jit::freeze(module, kept);
  return target == Target::optimize_for_inference ? torch::jit::optimize_for_inference(frozen, kept) : frozen;
}

Session run_rewritten(const torch::jit::Module& ours, Target target, const Program& program) {
  if (target == Target::llga) torch::jit::RegisterLlgaFuseGraph::setEnabled(true);
  Session session = run(ours.deepcopy(), program);
  if (target == Target::llga) torch::jit::RegisterLlgaFuseGraph::setEnabled(false);
  return session;
}

bool has_fused(const torch::jit::Module& original, const torch::jit::Module& ours) {
  const std::string before = text_of(original), after = text_of(ours), run = optimized_text_of(ours);
  for (const char* mark : {"mkldnn", "MKLDNN", "oneDNNFusionGroup", "_add_relu"})
    if (count(after + run, mark) > count(before, mark)) return true;
  return count(after, "aten::batch_norm") < count(before, "aten::batch_norm") || count(after, "aten::linear") > count(before, "aten::linear");
}

}  // namespace fuzz
