#pragma once

// What can be fuzzed: fusible, and torch's own ways to fuse a TorchScript module.

#include <string>

#include "tests/fuzz/program.h"
#include "tests/fuzz/session.h"

namespace fuzz {

enum class Target {
  fusible,
  freeze,                  // torch.jit.freeze
  optimize_for_inference,  // "ofi", on top of freeze
  llga,                    // oneDNN Graph on a frozen module: torch.jit.enable_onednn_fusion
  rewriter,                // the passes that torch built with its SubgraphRewriter: FuseAddRelu, FuseLinear
};

Target target_of(const std::string& name);  // throws std::runtime_error
std::string name_of(Target target);

torch::jit::Module rewritten(const torch::jit::Module& module, Target target);
// A session of a rewritten module: LLGA rewrites while a module runs, in this process alone.
Session run_rewritten(const torch::jit::Module& ours, Target target, const Program& program);
// Whether a tool of torch changed anything: a batch_norm or a spelled out linear is gone, or an operator of the tool is there.
bool has_fused(const torch::jit::Module& original, const torch::jit::Module& ours);

}  // namespace fuzz
