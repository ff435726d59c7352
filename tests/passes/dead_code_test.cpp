// What goes and what stays when nothing reads a result.

#include <torch/csrc/jit/ir/irparser.h>

#include "passes/dead_code.h"
#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

using ::testing::AllOf;

// A method with these lines in front of `return x`.
GraphPtr swept(const std::string& body) {
  const auto module = script("def forward(self, x, n: int, f: bool):\n" + body + "    return x\n", conv_and_norm());
  const auto graph = graph_of(module)->copy();
  eliminate_dead_code(graph);
  return graph;
}

// The same of a graph that torch's compiler has not cleaned.
GraphPtr swept_text(const std::string& nodes) {
  const auto graph = std::make_shared<torch::jit::Graph>();
  torch::jit::parseIR("graph(%x : Tensor, %n : int, %f : bool):\n" + nodes + "  return (%x)\n", graph.get());
  eliminate_dead_code(graph);
  return graph;
}

TEST(DeadCode, GoesWithWhatOnlyItReads) {
  EXPECT_THAT(swept_text("  %y : Tensor = aten::neg(%x)\n  %c : int = prim::Constant[value=1]()\n  %z : Tensor = aten::add(%y, %y, %c)\n"),
              AllOf(HasNo("aten::add"), HasNo("aten::neg"), HasNo("prim::Constant")));
}

TEST(DeadCode, StaysWhereItHasAnEffect) {
  EXPECT_THAT(swept_text("  %y : Tensor = aten::neg(%x)\n  %z : Tensor = aten::exp_(%y)\n"), AllOf(Has("aten::exp_"), Has("aten::neg")));
  EXPECT_THAT(swept("    print(torch.neg(x))\n"), Has("aten::neg"));
  EXPECT_THAT(swept("    assert n > 0, \"positive\"\n"), Has("prim::RaiseException"));
  EXPECT_THAT(swept("    self.b = torch.neg(x)\n"), AllOf(Has("prim::SetAttr"), Has("aten::neg")));
}

TEST(DeadCode, KeepsABatchNormThatMayTrain) {
  const std::string norm = "    y = torch.batch_norm(x, self.g, self.h, self.m, self.v, ";
  EXPECT_THAT(swept(norm + "f, 0.1, 1e-5, False)\n"), Has("aten::batch_norm"));
  EXPECT_THAT(swept(norm + "True, 0.1, 1e-5, False)\n"), Has("aten::batch_norm"));
  EXPECT_THAT(swept(norm + "False, 0.1, 1e-5, False)\n"), HasNo("aten::batch_norm"));
}

TEST(DeadCode, GoesFromBranchesResultByResult) {
  const std::string branches = "    if f:\n        a = torch.exp(x)\n        b = torch.neg(x)\n    else:\n        a = torch.cos(x)\n        b = torch.sin(x)\n";
  EXPECT_THAT(swept(branches), HasNo("prim::If"));
  const auto one = swept(branches + "    x = b\n");
  EXPECT_THAT(one, AllOf(Has("prim::If"), Has("aten::neg"), Has("aten::sin"), HasNo("aten::exp"), HasNo("aten::cos")));
  EXPECT_THAT(swept("    if f:\n        x.add_(1)\n"), AllOf(Has("prim::If"), Has("aten::add_")));
}

TEST(DeadCode, GoesFromLoopsThatStay) {
  const auto graph = swept("    a = x\n    b = x\n    for i in range(n):\n        a = torch.exp(a)\n        b = torch.neg(x)\n    x = a\n");
  EXPECT_THAT(graph, AllOf(Has("prim::Loop"), Has("aten::exp"), HasNo("aten::neg")));
  // It may not end.
  EXPECT_THAT(swept_text("  prim::Loop(%n, %f)\n    block0(%i : int):\n      %y : Tensor = aten::neg(%x)\n      -> (%f)\n"),
              AllOf(Has("prim::Loop"), HasNo("aten::neg")));
}

}  // namespace
}  // namespace fusible::testing
