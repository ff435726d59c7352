// facts: constants, order, writers. walk and decide: chains that are proven, one verdict per candidate, one finding per obstacle.

#include <torch/csrc/jit/ir/irparser.h>

#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

const char* const kConvNormRelu = R"(
def forward(self, x):
    return torch.relu(torch.batch_norm(torch.conv2d(x, self.w, self.b), self.g, self.h, self.m, self.v, False, 0.1, 1e-5, False))
)";

TEST(Facts, AParameterIsAConstantTensor) {
  Stages stages(script("def forward(self, x):\n    return torch.conv2d(x, self.w)", conv_and_norm()));
  const auto& facts = stages.facts();
  const auto* weight = facts.constant_tensor(stages.only("aten::conv2d")->input(1));
  ASSERT_NE(weight, nullptr);
  EXPECT_TRUE(weight->equal(seeded({6, 4, 3, 3}, 1)));
  EXPECT_EQ(facts.constant(stages.only("aten::conv2d")->input(0)), nullptr);
}

TEST(Facts, AViewOfAConstantIsAConstant) {
  Stages stages(script("def forward(self, x):\n    return torch.matmul(x, self.a.t())", {{"a", seeded({5, 3}, 1)}}));
  const auto& facts = stages.facts();
  const auto* weight = facts.constant_tensor(stages.only("aten::matmul")->input(1));
  ASSERT_NE(weight, nullptr);
  EXPECT_EQ(weight->sizes(), at::IntArrayRef({3, 5}));
}

TEST(Facts, AListOfPartsIsAConstantUnlessItIsWritten) {
  for (const std::string write : {"", "    parts[0] = z\n", "    parts.reverse()\n"}) {
    Stages stages(script("def forward(self, x, z):\n    parts = torch.chunk(self.w, 2)\n" + write + "    a, b = parts\n    return torch.conv2d(x, a)", conv_and_norm()));
    EXPECT_EQ(stages.facts().constant(stages.only("aten::chunk")->output()) != nullptr, write.empty()) << write;
  }
}

TEST(Facts, AWrittenParameterIsNoConstantTensor) {
  Stages stages(script("def forward(self, x):\n    self.w.mul_(2)\n    return torch.conv2d(x, self.w)", conv_and_norm()));
  const auto& facts = stages.facts();
  EXPECT_TRUE(facts.is_written(stages.only("aten::conv2d")->input(1)));
  EXPECT_EQ(facts.constant_tensor(stages.only("aten::conv2d")->input(1)), nullptr);
}

TEST(Facts, AListOfNumbersIsAConstantAndOneWithAComputedNumberIsNot) {
  Stages stages(script("def forward(self, x, n: int):\n    return torch.conv2d(x, self.w, None, [1, 1], [n, 1])", conv_and_norm()));
  const auto& facts = stages.facts();
  EXPECT_NE(facts.constant(stages.only("aten::conv2d")->input(3)), nullptr);
  EXPECT_EQ(facts.constant(stages.only("aten::conv2d")->input(4)), nullptr);
}

// Without a database where nothing writes, and with one everywhere else: what torch says of the graph.
class FactsWrites : public ::testing::TestWithParam<const char*> {};

TEST_P(FactsWrites, AreThoseOfTorchsAliasAnalysis) {
  MethodGraph method{"forward", true, std::make_shared<Graph>(), {}, {}, {}};
  torch::jit::parseIR(GetParam(), method.graph.get());
  const std::unordered_set<const void*> written_elsewhere;
  const Facts facts(method, written_elsewhere);
  const torch::jit::AliasDb aliases(method.graph);
  const auto check = [&](const Value* value) { EXPECT_EQ(facts.is_written(value), aliases.hasWriters(value)) << value->debugName() << "\n" << GetParam(); };
  for (const Value* input : method.graph->inputs()) check(input);
  for_each_node(method.graph->block(), [&](Node* node) {
    for (const Value* output : node->outputs()) check(output);
  });
}

INSTANTIATE_TEST_SUITE_P(Graphs, FactsWrites, ::testing::Values(R"(
graph(%x : Tensor):
  %y : Tensor = aten::relu(%x)
  return (%y))", R"(
graph(%x : Tensor):
  %y : Tensor = aten::relu_(%x)
  return (%y))", R"(
graph(%x : Tensor, %flag : bool):
  %y : Tensor = aten::relu(%x)
  %z : Tensor = prim::If(%flag)
    block0():
      %a : Tensor = aten::relu_(%y)
      -> (%a)
    block1():
      -> (%y)
  return (%z))", R"(
graph(%x : Tensor, %other : Future(Tensor)):
  %y : Tensor = aten::wait(%other)
  %z : Tensor = aten::relu(%x)
  return (%y, %z))", R"(
graph(%x : Tensor, %w : Tensor, %m : Tensor, %training : bool, %e : float, %c : bool):
  %y : Tensor = aten::batch_norm(%x, %w, %w, %m, %m, %training, %e, %e, %c)
  return (%y))", R"(
graph(%x : Tensor, %list : Tensor[]):
  %y : Tensor[] = aten::append(%list, %x)
  return (%y))", R"(
graph(%x : Tensor, %other : Await(Tensor)):
  %y : Tensor = prim::awaitable_wait(%other)
  %z : Tensor = aten::relu(%x)
  return (%y, %z))"));

TEST(Facts, OrderIsProgramOrderOverBlocks) {
  Stages stages(script(R"(
def forward(self, x, flag: bool):
    y = torch.tanh(x)
    if flag:
        y = torch.relu(y)
    return torch.sigmoid(y)
)"));
  const auto& facts = stages.facts();
  EXPECT_LT(facts.order(stages.only("aten::tanh")), facts.order(stages.only("aten::relu")));
  EXPECT_LT(facts.order(stages.only("aten::relu")), facts.order(stages.only("aten::sigmoid")));
}

TEST(Facts, TheWriterBetweenIsTheOneThatWritesWhatIsRead) {
  Stages stages(script(R"(
def forward(self, x, z):
    y = torch.conv2d(x, self.w)
    x.mul_(2)
    return torch.relu(y) + z
)", conv_and_norm()));
  const auto& facts = stages.facts();
  Node* conv = stages.only("aten::conv2d");
  EXPECT_EQ(facts.writer_between(conv, stages.only("aten::relu"), {conv->input(0)}, {}), stages.only("aten::mul_"));
  EXPECT_EQ(facts.writer_between(conv, stages.only("aten::relu"), {conv->input(0)}, {stages.only("aten::mul_")}), nullptr);
}

TEST(Facts, AWriteToLocalMemoryIsNoWriterBetween) {
  Stages stages(script(R"(
def forward(self, x):
    y = torch.conv2d(x, self.w)
    t = torch.tanh(x)
    t.mul_(2)
    return torch.relu(y) + t
)", conv_and_norm()));
  const auto& facts = stages.facts();
  Node* conv = stages.only("aten::conv2d");
  EXPECT_EQ(facts.writer_between(conv, stages.only("aten::relu"), {conv->input(0)}, {}), nullptr);
}

TEST(Decide, AChainHasItsStepsInOrderAndTheFoldedOneIsAffine) {
  Stages stages(script(kConvNormRelu, conv_and_norm()));
  const auto& decision = stages.decided();
  ASSERT_THAT(decision.chains, SizeIs(1));
  const Chain& chain = decision.chains[0];
  EXPECT_EQ(chain.pattern(), "conv+batch_norm+relu");
  EXPECT_TRUE(chain.steps[0].affine);
  EXPECT_EQ(chain.steps[1].text, "relu");
  EXPECT_EQ(chain.root(), stages.only("aten::relu"));
  EXPECT_THAT(decision.findings, IsEmpty());
}

TEST(Decide, EveryCandidateOfTheChainIsFused) {
  Stages stages(script(kConvNormRelu, conv_and_norm()));
  stages.decided();
  ASSERT_THAT(stages.verdicts(), SizeIs(2));
  for (const auto& verdict : stages.verdicts()) {
    EXPECT_EQ(verdict.status, Status::fused);
    EXPECT_EQ(verdict.pattern, "conv+batch_norm+relu");
  }
  EXPECT_THAT(stages.verdicts()[0].absorbed, SizeIs(2));
  EXPECT_THAT(stages.verdicts()[1].absorbed, IsEmpty());
}

TEST(Decide, TheFoldOfABatchNormIsItsAlgebra) {
  Stages stages(script(kConvNormRelu, conv_and_norm()));
  const auto& affine = *stages.decided().chains[0].steps[0].affine;
  const auto wide = [](std::uint64_t seed) { return seeded({6}, seed).to(at::kDouble); };
  const at::Tensor scale = wide(3) / (seeded({6}, 6).abs() + 0.3).to(at::kDouble).add(1e-5).sqrt();
  EXPECT_TRUE(at::allclose(affine.scale, scale, 1e-12, 1e-12));
  EXPECT_TRUE(at::allclose(affine.shift, wide(4) - wide(5) * scale, 1e-12, 1e-12));
}

TEST(Decide, FoldsComposeInProgramOrder) {
  Stages stages(script("def forward(self, x):\n    return (torch.conv2d(x, self.w, self.b) + 0.5) * 3", conv_and_norm()));
  const Chain chain = stages.decided().chains.at(0);
  const auto folded = fold(chain.spec, {*chain.steps[0].affine, *chain.steps[1].affine});
  EXPECT_TRUE(at::allclose(folded.weight, seeded({6, 4, 3, 3}, 1) * 3));
  EXPECT_TRUE(at::allclose(folded.bias, (seeded({6}, 2) + 0.5) * 3));
}

TEST(Decide, ANumberMinusTheResultIsFoldedInEitherSpelling) {
  for (const char* expression : {"2 - y", "torch.rsub(y, 2)", "-y + 2"}) {
    SCOPED_TRACE(expression);
    Stages stages(script(std::string("def forward(self, x):\n    y = torch.conv2d(x, self.w, self.b)\n    return ") + expression, conv_and_norm()));
    const auto& chain = stages.decided().chains.at(0);
    ASSERT_EQ(chain.pattern(), "conv+sub");
    ASSERT_TRUE(chain.steps[0].affine);
    EXPECT_TRUE(chain.steps[0].affine->scale.equal(-at::ones({6}, at::kDouble)));
    EXPECT_TRUE(chain.steps[0].affine->shift.equal(at::full({6}, 2, at::kDouble)));
  }
}

TEST(Decide, ATensorPlusTheNegatedResultIsLeftToTheOperators) {
  Stages stages(script("def forward(self, x, z):\n    return -torch.conv2d(x, self.w) + z", conv_and_norm()));
  EXPECT_EQ(stages.decided().chains.at(0).pattern(), "conv");
}

TEST(Decide, OfTwoContractionsTheLaterOneTakesTheSum) {
  Stages stages(script("def forward(self, x):\n    return torch.relu(torch.conv2d(x, self.w) + torch.conv2d(x, self.w, self.b))", conv_and_norm()));
  const auto& chains = stages.decided().chains;
  ASSERT_THAT(chains, SizeIs(2));
  EXPECT_EQ(chains[0].pattern(), "conv");
  EXPECT_EQ(chains[1].pattern(), "conv+add+relu");
}

TEST(Decide, ChainsAreDisjoint) {
  Stages stages(script(R"(
def forward(self, x):
    a = torch.relu(torch.conv2d(x, self.s))
    b = torch.sigmoid(torch.conv2d(a, self.s))
    return torch.tanh(torch.conv2d(b, self.s) + a)
)", {{"s", seeded({4, 4, 1, 1}, 1)}}));
  std::set<const Node*> seen;
  for (const auto& chain : stages.decided().chains) {
    for (const Node* node : chain.nodes()) EXPECT_TRUE(seen.insert(node).second);
  }
  EXPECT_EQ(seen.size(), 7u);
}

TEST(Decide, AStrictDecisionFoldsNothing) {
  Options options;
  options.strict = true;
  Stages stages(script(kConvNormRelu, conv_and_norm()), options);
  const auto& decision = stages.decided();
  EXPECT_EQ(decision.chains.at(0).pattern(), "conv");
  EXPECT_EQ(decision.findings.at(0).code.id, std::string(codes::strict_numerics.id));
}

TEST(Decide, AnIgnoredPatternIsSuppressedAndItsNodesAreNotTaken) {
  Options options;
  options.ignore = {"conv+batch_norm"};
  Stages stages(script(kConvNormRelu, conv_and_norm()), options);
  EXPECT_THAT(stages.decided().chains, IsEmpty());
  for (const auto& verdict : stages.verdicts()) EXPECT_EQ(verdict.status, Status::suppressed);
}

TEST(Decide, AChainThatVerifyFoundGuiltyIsDeclined) {
  Stages first(script(kConvNormRelu, conv_and_norm()));
  first.decided();
  const int anchor = first.facts().order(first.only("aten::conv2d"));
  Stages second(script(kConvNormRelu, conv_and_norm()));
  EXPECT_THAT(second.decided({{{"forward", anchor}, {codes::verification_failed, "equal results", "different ones", ""}}}).chains, IsEmpty());
  EXPECT_EQ(second.verdicts()[0].code, codes::verification_failed.id);
}

struct Obstacle {
  const char* body;
  const Code& code;
};

class DecideFinds : public ::testing::TestWithParam<Obstacle> {};

TEST_P(DecideFinds, TheObstacle) {
  const Weights odd{{"short", seeded({4}, 7)}, {"wide", seeded({6}, 8).to(at::kDouble).abs()}, {"zero", at::zeros({6})}, {"row", seeded({6, 4, 3}, 9)}};
  Stages stages(script("def forward(self, x, flag: bool):\n" + std::string(GetParam().body), conv_and_norm(), odd));
  std::vector<std::string> found;
  for (const auto& finding : stages.decided().findings) found.push_back(finding.code.id);
  EXPECT_THAT(found, ::testing::ElementsAre(std::string(GetParam().code.id)));
}

INSTANTIATE_TEST_SUITE_P(All, DecideFinds, ::testing::Values(
  Obstacle{"    y = torch.conv2d(x, self.w)\n    return torch.relu(y) * y.mean()", codes::second_use},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    return torch.relu(y), y", codes::graph_output},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    x.mul_(2)\n    return torch.relu(y)", codes::mutation_between},
  Obstacle{"    return torch.relu(torch.conv2d(x, self.w).flatten(1))", codes::view_between},
  Obstacle{"    return torch.relu(torch.cumsum(torch.conv2d(x, self.w), 1))", codes::intervening_op},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    if flag:\n        y = torch.relu(y)\n    return y", codes::block_boundary},
  Obstacle{"    y = torch.relu(torch.conv2d(x, self.w))\n"
           "    return torch.batch_norm(y, self.g, self.h, self.m, self.v, False, 0.1, 1e-5, False)", codes::wrong_order},
  Obstacle{"    return torch.batch_norm(torch.conv2d(x, self.w), self.g, self.h, self.m, self.v, True, 0.1, 1e-5, False)", codes::training_batch_norm},
  Obstacle{"    return torch.batch_norm(torch.conv2d(x, self.w), self.g, self.h, None, None, True, 0.1, 1e-5, False)", codes::no_running_statistics},
  Obstacle{"    return torch.add(torch.conv2d(x, self.w), torch.conv2d(x, self.w).detach(), alpha=2)", codes::alpha_not_one},
  Obstacle{"    return torch.conv2d(x, x)", codes::nothing_to_fuse},
  Obstacle{"    return torch.batch_norm(torch.conv2d(x, self.w), self.g, self.h, self.m, None, True, 0.1, 1e-5, False)", codes::no_running_statistics},
  Obstacle{"    return torch.batch_norm(torch.conv2d(x, self.w), None, None, self.short, self.short, False, 0.1, 1e-5, False)", codes::channel_mismatch},
  Obstacle{"    return torch.batch_norm(torch.conv2d(x, self.w), None, None, self.wide, self.wide, False, 0.1, 1e-5, False)", codes::dtype},
  Obstacle{"    return torch.batch_norm(torch.conv2d(x, self.w), self.g * 2, self.h, self.m, self.v, False, 0.1, 1e-5, False)", codes::operand_not_constant},
  Obstacle{"    return torch.batch_norm(torch.conv2d(x, self.w), self.g, self.h, self.m, self.zero, False, 0.1, 0., False)", codes::unsupported_attribute},
  Obstacle{"    return torch.conv2d(x, self.w) * self.wide.view([6, 1, 1])", codes::dtype},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    if flag:\n        x.mul_(2)\n    return torch.relu(y)", codes::mutation_between},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    print(1)\n    return torch.relu(y)", codes::mutation_between},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    self.short = x\n    return torch.relu(y)", codes::mutation_between},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    if flag:\n        self.short = x\n    return torch.relu(y)", codes::mutation_between},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    if flag:\n        print(1)\n    return torch.relu(y)", codes::mutation_between},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    if flag:\n        y = torch.conv2d(x, self.w)\n    return torch.relu(y)", codes::block_boundary},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    return torch.leaky_relu(y, x.size(0) * 0.1)", codes::dynamic_attribute},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    return y * (x.size(0) * 0.5)", codes::dynamic_attribute},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    return torch.add(torch.relu(y), y.detach(), alpha=x.size(0))", codes::second_use},
  Obstacle{"    y = torch.relu(torch.conv2d(x, self.w))\n    return torch.add(y, x, alpha=x.size(0))", codes::alpha_not_one},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    return torch.prelu(y, self.g * 2)", codes::operand_not_constant},
  Obstacle{"    x += torch.conv2d(x, self.w)\n    return x", codes::in_place_on_other},
  Obstacle{"    y = torch.conv2d(x, self.w)\n    return torch.relu(y), (y, x)", codes::graph_output},
  Obstacle{"    strides = [1, 1]\n    strides[0] = 2\n    return torch.conv2d(x, self.w, None, strides)", codes::dynamic_attribute},
  Obstacle{"    return torch.conv2d(x, self.w, None, [1, 1], [-1, 0])", codes::unsupported_attribute},
  Obstacle{"    return torch.conv2d(x, self.w, None, [1, 0])", codes::unsupported_attribute},
  Obstacle{"    return torch.conv2d(x, self.w, None, [1, 1], [0, 0], [0, 1])", codes::unsupported_attribute},
  Obstacle{"    return torch.conv2d(x, self.w, None, [1, 1], \"full\")", codes::unsupported_attribute},
  Obstacle{"    return torch.conv_transpose2d(x, self.w, None, [2, 2], [0, 0], [-1, 0])", codes::unsupported_attribute},
  Obstacle{"    return torch.matmul(x, self.g)", codes::weight_not_constant},
  Obstacle{"    return torch.conv2d(x, self.row)", codes::unsupported_attribute},
  Obstacle{"    return torch.conv2d(x, self.w, self.wide)", codes::dtype},
  Obstacle{"    y = x\n    z = x\n    if flag:\n        y = torch.conv2d(x, self.w)\n        z = torch.relu(y)\n    return y, z", codes::second_use}));

}  // namespace
}  // namespace fusible::testing
