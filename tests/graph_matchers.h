#pragma once

// gMock matchers on TorchScript graphs and reports, so that a test of a pass is a module, a call and one line.

#include <memory>
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include "fusible/report.h"

namespace fusible {

// How gMock prints a report.
inline void PrintTo(const Report& report, std::ostream* out) { *out << report.to_string(); }

}  // namespace fusible

namespace fusible::testing {

using GraphPtr = std::shared_ptr<torch::jit::Graph>;

inline GraphPtr graph_of(const torch::jit::Module& module, const std::string& method = "forward") {
  return torch::jit::toGraphFunction(module.get_method(method).function()).graph();
}

inline int count_nodes(torch::jit::Block* block, const std::string& op) {
  int found = 0;
  for (torch::jit::Node* node : block->nodes()) {
    found += op == node->kind().toQualString();
    for (torch::jit::Block* inner : node->blocks()) found += count_nodes(inner, op);
  }
  return found;
}

// EXPECT_THAT(graph, Has("aten::conv2d", 2)): so many nodes of that operator, in all blocks.
MATCHER_P2(Has, op, count, std::string("has ") + std::to_string(count) + " " + op) {
  const int found = count_nodes(arg->block(), op);
  if (found != count) *result_listener << "which has " << found << ":\n" << *arg;
  return found == count;
}
inline auto Has(const std::string& op) { return Has(op, 1); }
inline auto HasNo(const std::string& op) { return Has(op, 0); }

inline std::string text_of(const torch::jit::Graph& graph) {
  std::ostringstream text;
  text << graph;
  return text.str();
}

// EXPECT_THAT(report, Says("FUS201")): a diagnostic or a verdict with that code.
MATCHER_P(Says, code, std::string("says ") + code) {
  for (const auto& verdict : arg.verdicts) {
    if (verdict.code == code) return true;
  }
  for (const auto& diagnostic : arg.diagnostics) {
    if (diagnostic.code == code) return true;
  }
  *result_listener << arg.to_string();
  return false;
}

// EXPECT_THAT(report, Says("FUS201", "my_rule")): a diagnostic with that code about that pattern.
MATCHER_P2(Says, code, pattern, std::string("says ") + code + " of " + pattern) {
  for (const auto& diagnostic : arg.diagnostics) {
    if (diagnostic.code == code && diagnostic.pattern == pattern) return true;
  }
  *result_listener << arg.to_string();
  return false;
}

// EXPECT_THAT(report, Fused("conv+relu")): a candidate was fused as this sequence.
MATCHER_P(Fused, pattern, std::string("fused ") + pattern) {
  for (const auto& verdict : arg.verdicts) {
    if (verdict.status == Status::fused && verdict.pattern == pattern) return true;
  }
  for (const auto& verdict : arg.verdicts) *result_listener << verdict.site.op << " is " << verdict.pattern << ' ' << verdict.code << "; ";
  return false;
}

}  // namespace fusible::testing
