// normalize by value: constants, branches, lists and None, for models whose meaning hangs on them, called several times.

#include <torch/csrc/jit/ir/irparser.h>

#include "passes/verify.h"
#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

// A module with submodules p and q, which hold a tensor of one name each, and lists.
torch::jit::Module module_of(const std::string& source) {
  torch::jit::Module module("model");
  for (const auto& [name, tensor] : conv_and_norm()) module.register_parameter(name, tensor.clone(), false);
  for (const char* name : {"p", "q"}) {
    torch::jit::Module inner("inner");
    inner.register_parameter("k", seeded({6, 1, 1}, name[0]), false);
    module.register_module(name, inner);
  }
  for (const char* name : {"grown", "asked", "replaced"})
    module.register_attribute(name, c10::ListType::ofInts(), c10::List<std::int64_t>({4, 5}));
  module.register_attribute("nothing", c10::OptionalType::ofTensor(), c10::IValue());
  module.register_attribute("mode", c10::StringType::get(), "twice");
  module.register_attribute("training", c10::BoolType::get(), false);
  module.define("def three(self, x):\n    return torch.conv2d(x, self.w), x, torch.conv2d(x, self.w, self.b)\n");
  module.define("def forward(self, x, z: Optional[Tensor]):\n" + source + "\n");
  return module;
}

class NormalizeOf : public ::testing::TestWithParam<const char*> {};

TEST_P(NormalizeOf, ComputesTheSameAtEveryCall) {
  auto original = module_of(GetParam()), fused = fuse(module_of(GetParam())).module;
  for (int call = 0; call < 2; ++call) {
    for (const auto& z : {c10::IValue(), c10::IValue(seeded({2, 6, 5, 5}, 3))})
      EXPECT_THAT(run(fused, {image(), z}), ComputesLike(run(original, {image(), z}))) << "call " << call;
  }
}

INSTANTIATE_TEST_SUITE_P(All, NormalizeOf, ::testing::Values(
  "    return torch.conv2d(x, self.w) * self.p.k + self.q.k",
  "    y = torch.conv2d(x, self.w)\n    if z is not None:\n        y = y + z\n    return torch.relu(y)",
  "    y = torch.conv2d(x, self.w)\n    if z is None:\n        y = y * 2\n    return torch.relu(y)",
  "    y = torch.conv2d(x, self.w)\n    if self.b is None:\n        y = y * 2\n    return torch.relu(y)",
  "    y = torch.conv2d(x, self.w)\n    if self.b is not None:\n        y = y * 2\n    return torch.relu(y)",
  "    y = torch.conv2d(x, self.w)\n    if x is y:\n        y = y * 2\n    return torch.relu(y)",
  "    sizes = [1, 2]\n    sizes.append(x.size(0))\n    return torch.conv2d(x, self.w) * len(sizes)",
  "    sizes = [0] * 3\n    sizes[0] = sizes[0] + x.size(0)\n    return torch.conv2d(x, self.w) * sizes[0]",
  "    pair = (torch.conv2d(x, self.w), x, torch.conv2d(x, self.w, self.b))\n    return torch.relu(pair[-1]) + pair[-3]",
  "    self.grown.append(1)\n    return torch.conv2d(x, self.w) * len(self.grown)",
  "    n = len(self.grown)\n    self.grown.append(1)\n    return torch.conv2d(x, self.w) * n",
  "    n = len(self.replaced)\n    self.replaced = [1, 2, 3]\n    return torch.conv2d(x, self.w) * n",
  "    return torch.conv2d(x, self.w) * self.asked[1] * len(self.asked)",
  "    y = torch.conv2d(x, self.w)\n    if self.nothing is None:\n        y = y * 2\n    return torch.relu(y)",
  "    y = torch.conv2d(x, self.w)\n    if self.nothing is not None:\n        y = y * 2\n    return torch.relu(y)",
  "    y = torch.conv2d(x, self.w)\n    if self.mode == 'twice':\n        y = y * 2\n    return torch.relu(y)",
  "    triple = self.three(x)\n    return torch.relu(triple[-1]) + triple[0]",
  "    replaced = self.replaced\n    self.replaced = [1, 2, 3]\n    return torch.conv2d(x, self.w) * replaced[0]",
  "    n = self.replaced[0]\n    self.replaced = [1, 2, 3]\n    return torch.conv2d(x, self.w) * n",
  "    y = torch.conv2d(x, self.w)\n    if torch.is_grad_enabled():\n        y = y * 2\n    return torch.relu(y)"));

TEST(Normalize, WhatDependsOnTheProcessIsNotFolded) {
  Stages stages(script("def forward(self, x):\n    if torch.is_grad_enabled():\n        x = x * 2\n    return torch.conv2d(x, self.w)", conv_and_norm()));
  EXPECT_THAT(stages.normalized().methods[0].graph, Has("aten::is_grad_enabled"));
}

// The executor takes the rank of conv2d's result for 4 unless something writes it, through a view too. Of an image alone it is 3.
TEST(Normalize, ARankIsAskedOfAResultThatAViewMayWrite) {
  const auto module = script("def forward(self, x):\n    y = torch.conv2d(x, self.w)\n    v = y.transpose(0, 1)\n    n = y.dim()\n    v.mul_(2)\n    return torch.relu(y) * n", conv_and_norm());
  const auto fused = fuse(module).module;
  for (int call = 0; call < 3; ++call)
    for (const auto& x : {image(), image()[0]}) EXPECT_THAT(run(fused, {x}), ComputesLike(run(module, {x}))) << x.sizes();
}

// The executor finds that a loop overwrites what it starts with, and drops what made that, with what it would raise.
TEST(Normalize, WhatALoopStartsWithAndOverwritesIsNotRead) {
  const auto module = script("def forward(self, x):\n    y = torch.linear(x, self.p)\n    y = torch.linear(y, self.q)\n    assert y.dim() == 3\n"
                             "    for i in range(3):\n        y = x\n    return y", {{"p", seeded({9, 7}, 1)}, {"q", seeded({5, 9}, 2)}});
  const auto fused = fuse(module).module;
  for (const auto& x : {seeded({2, 3, 7}, 3), seeded({2, 3, 8}, 4)})
    for (int call = 0; call < 3; ++call) EXPECT_EQ(compare(module, fused, {x}).outcome, Comparison::Outcome::equal) << x.sizes();
}

// What lies in a dict, or in a list inside of another value, is for the executor written by most of what writes anything.
TEST(Normalize, ARankIsAskedOfAResultThatAContainerHolds) {
  for (const char* returned : {"{\"z\": z, \"y\": y}", "(z, [y])", "(z, y)", "[z, y]"}) {
    for (const char* write : {"self.b.add_(0)", "x.add_(0)", "w = [y]\n    w[0].add_(0)", "pass"}) {
      const auto module = script(std::string("def forward(self, x):\n    y = torch.conv2d(x, self.w)\n    z = torch.zeros(1) + y.dim()\n    ") + write + "\n    return " + returned,
                                 conv_and_norm());
      const auto fused = fuse(module).module;
      for (const auto& x : {image(), image()[0]}) EXPECT_EQ(compare(module, fused, {x}).outcome, Comparison::Outcome::equal) << returned << write << x.sizes();
    }
  }
}

// What is computed from constants is a constant only where it is small and nobody can write to it.
TEST(Normalize, ListsAndLongStringsAreNotFolded) {
  Graph graph;
  const auto constant = [&](const c10::IValue& value) { return graph.insertConstant(value); };
  EXPECT_FALSE(folded(graph.insert(torch::jit::aten::mul, {constant(c10::List<std::int64_t>({0})), 3})->node()));
  EXPECT_EQ(folded(graph.insert(torch::jit::aten::mul, {constant(3), 3})->node())->toInt(), 9);
  const auto joined = [&](std::size_t a, std::size_t b) {
    return folded(graph.insert(torch::jit::aten::add, {constant(std::string(a, 'a')), constant(std::string(b, 'a'))})->node());
  };
  EXPECT_EQ(joined(1, 2)->toStringRef(), "aaa");
  EXPECT_FALSE(joined(200, 200));
}

// As a trace computes with sizes: on tensors without dimensions.
TEST(Normalize, ANumberThatIsWrittenIsNotTheOneThatItWasMadeOf) {
  for (const char* sum : {"aten::add(", "aten::add_("}) {
    const auto graph = std::make_shared<Graph>();
    torch::jit::parseIR(R"(
graph(%x : Tensor):
  %one : int = prim::Constant[value=1]()
  %size : int = aten::size(%x, %one)
  %n : Tensor = prim::NumToTensor(%size)
  %m : Tensor = )" + std::string(sum) + R"(%n, %one, %one)
  %i : int = aten::Int(%n)
  %j : int = aten::Int(%m)
  return (%i, %j))", graph.get());
    compute_with_integers(graph);
    const bool written = std::string(sum) == "aten::add_(";
    EXPECT_EQ(graph->outputs()[0]->node()->kind() == torch::jit::aten::Int, written) << *graph;
    EXPECT_EQ(graph->outputs()[1]->node()->kind() == torch::jit::aten::Int, written) << *graph;
  }
}

TEST(Normalize, ASparseAttributeIsNoConstant) {
  torch::jit::Module sparse("model");
  sparse.register_buffer("sparse", at::eye(4).to_sparse());
  sparse.register_attribute("training", c10::BoolType::get(), false);
  sparse.define("def forward(self, x):\n    return torch.linear(x, self.sparse)\n");
  Stages stages(sparse);
  EXPECT_THAT(stages.decided().chains, ::testing::IsEmpty());
  EXPECT_EQ(stages.verdicts().at(0).code, codes::device_or_layout.id);
}

}  // namespace
}  // namespace fusible::testing
