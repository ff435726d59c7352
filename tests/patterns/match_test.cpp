#include <cmath>

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/irparser.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include "fusible/fusible.h"
#include "tests/patterns/graphs.h"

namespace fusible::patterns {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// What the matcher finds in a graph in IR text; `rules` is pattern text beside the vocabulary.
struct Found {
  explicit Found(const std::string& ir, const std::string& rules = "") {
    auto grown = std::make_shared<Library>(*fusible::patterns::library());
    parse_into(*grown, rules, "mine.fus");
    matcher = std::make_unique<Matcher>(grown);
    torch::jit::parseIR(ir, &graph);
    result = matcher->match(graph, constants.function());
  }
  std::string composite() const { return result.composites.size() == 1 ? result.composites[0].entry->name : ""; }

  std::unique_ptr<Matcher> matcher;
  torch::jit::Graph graph;
  Constants constants;
  Matcher::Result result;
};

TEST(Match, EveryCompositeSpellingIsFoundAtItsRoot) {
  auto library = fusible::patterns::library();
  Matcher matcher(library);
  int composites = 0;
  for (auto& entry : library->entries) {
    for (auto& spelling : entry.spellings) {
      if (!spelling.is_composite()) continue;
      auto graph = graph_of(*library, spelling.operations);
      Constants constants;
      auto result = matcher.match(*graph, constants.function());
      ASSERT_FALSE(result.composites.empty()) << entry.name << " at " << spelling.operations[0].line;
      auto& view = result.composites.back();
      EXPECT_EQ(view.entry->name, entry.name) << spelling.operations[0].line;
      EXPECT_EQ(view.root, root_of(*graph));
      EXPECT_THAT(view.nodes, SizeIs(spelling.operations.size()));
      EXPECT_EQ(view[entry.kind == Entry::Kind::binary ? "rhs" : "x"], graph->inputs()[0]);
      ++composites;
    }
  }
  EXPECT_GT(composites, 20);
}

// Law of the vocabulary: all spellings of an entry compute what its first one computes, NaN included; infinities and the ends of the
// range are left out for composites, whose intermediate results overflow earlier or later than the operator's own.
TEST(Match, EverySpellingComputesWhatTheFirstComputes) {
  auto library = fusible::patterns::library();
  auto x = at::cat({at::linspace(-12, 12, 4001), at::tensor({-0.0f, 0.0f, 1e-30f, -1e-30f, 1e10f, -1e10f, 1e18f, -1e18f}),
                    at::full({3}, std::nan(""))});
  auto run = [&](const std::vector<Operation>& operations) {
    auto graph = graph_of(*library, operations);
    torch::jit::Stack stack;
    for (auto* input : graph->inputs()) {
      if (input == graph->inputs()[0]) stack.emplace_back(x.clone());
      else if (input->type()->kind() == c10::TypeKind::TensorType) stack.emplace_back(at::full({1}, 0.1f));
      else stack.emplace_back(0.1);
    }
    torch::jit::GraphExecutor(graph, "spelling").run(stack);
    return stack.back().toTensor();
  };
  for (auto& entry : library->entries) {
    if (entry.kind != Entry::Kind::activation) continue;
    for (auto& spelling : entry.spellings) {
      if (&spelling == &entry.spellings.front()) continue;
      auto first = entry.spellings.front().operations;
      for (auto* role : {"lo", "hi"}) {  // clamp_min has no hi: compare with the first spelling's hi as none
        auto has = [&](const Spelling& s) {
          for (auto& arg : s.operations[0].args) if (arg.name == role) return true;
          return false;
        };
        if (!has(entry.spellings.front()) || has(spelling)) continue;
        for (auto& arg : first[0].args) {
          if (arg.name == role) arg = Arg{"", Literal(std::monostate{}), 0, ""};
        }
      }
      auto expected = run(first), got = run(spelling.operations);
      EXPECT_TRUE(at::allclose(got, expected, 2e-6, 1e-6, /*equal_nan=*/true))
          << entry.name << " at line " << spelling.operations[0].line << ": " << (got - expected).abs().nan_to_num().max().item<float>();
      EXPECT_EQ(got.scalar_type(), expected.scalar_type());
    }
  }
}

const char* kSilu = R"(graph(%x : Tensor, %z : Tensor):
  %s : Tensor = aten::sigmoid(%x)
  %y : Tensor = aten::mul(LEFT, RIGHT)
  return (%y))";

std::string silu(const char* left, const char* right) {
  std::string text = kSilu;
  text.replace(text.find("LEFT"), 4, left);
  return text.replace(text.find("RIGHT"), 5, right);
}

TEST(Match, CommutativeOperationsInBothOrdersAndSameValuesOnly) {
  EXPECT_EQ(Found(silu("%x", "%s")).composite(), "silu");
  EXPECT_EQ(Found(silu("%s", "%x")).composite(), "silu");
  EXPECT_EQ(Found(silu("%s", "%z")).composite(), "");
  EXPECT_EQ(Found(silu("%s", "%s")).composite(), "");
}

// Both end at one root; the shorter one is the end of the longer one.
TEST(Match, TheLongestCompositeIsTaken) {
  const char* const entries = "activation brief\n  step relu\n  spelling b = aten::neg(x); y = aten::tanh(b)\n"
                              "activation lengthy\n  step relu\n  spelling a = aten::abs(x); b = aten::neg(a); y = aten::tanh(b)\n";
  const auto found = [&](const std::string& first) {
    return Found("graph(%x : Tensor):\n  %a : Tensor = " + first + "(%x)\n  %b : Tensor = aten::neg(%a)\n  %y : Tensor = aten::tanh(%b)\n  return (%y)", entries).composite();
  };
  EXPECT_EQ(found("aten::abs"), "lengthy");
  EXPECT_EQ(found("aten::exp"), "brief");
}

TEST(Match, AVariableOfOneOperationIsOneValue) {
  const auto seen = [](const std::string& right) {
    Found found("graph(%x : Tensor, %z : Tensor):\n  %y : Tensor = aten::maximum(%x, " + right + ")\n  return (%y)",
                "activation itself\n  step relu\n  spelling y = aten::maximum(x, x)\n");
    return found.matcher->view(root_of(found.graph), found.constants.function()).has_value();
  };
  EXPECT_TRUE(seen("%x"));
  EXPECT_FALSE(seen("%z"));
}

TEST(Match, AnInPlaceTwinIsNoSpellingWhereItsArgumentIsReadAgain) {
  // sigmoid_ has overwritten x when mul reads it.
  EXPECT_EQ(Found(R"(graph(%x : Tensor):
  %s : Tensor = aten::sigmoid_(%x)
  %y : Tensor = aten::mul(%x, %s)
  return (%y))").composite(), "");
  // relu6_ overwrites the pattern's own sum.
  EXPECT_EQ(Found(R"(graph(%x : Tensor):
  %one : int = prim::Constant[value=1]()
  %three : int = prim::Constant[value=3]()
  %six : int = prim::Constant[value=6]()
  %a : Tensor = aten::add(%x, %three, %one)
  %r : Tensor = aten::relu6_(%a)
  %y : Tensor = aten::div(%r, %six)
  return (%y))").composite(), "hardsigmoid");
}

TEST(Match, BlocksAreBorders) {
  EXPECT_THAT(Found(R"(graph(%x : Tensor, %c : bool):
  %s : Tensor = aten::sigmoid(%x)
  %y : Tensor = prim::If(%c)
    block0():
      %m : Tensor = aten::mul(%x, %s)
      -> (%m)
    block1():
      %t : Tensor = aten::sigmoid(%x)
      %n : Tensor = aten::mul(%x, %t)
      -> (%n)
  return (%y))").result.composites, SizeIs(1));
}

TEST(Match, TolerancesAndTracedScalars) {
  const char* ir = R"(graph(%x : Tensor):
  %one : int = prim::Constant[value=1]()
  %half : float = prim::Constant[value=0.5]()
  %root : float = prim::Constant[value=ROOT]()
  %z : Tensor = aten::div(%x, %root)
  %e : Tensor = aten::erf(%z)
  %o : Tensor = aten::add(%e, %one, %one)
  %a : Tensor = aten::mul(%x, %half)
  %y : Tensor = aten::mul(%a, %o)
  return (%y))";
  auto with = [&](const char* root) {
    std::string text = ir;
    return text.replace(text.find("ROOT"), 4, root);
  };
  EXPECT_EQ(Found(with("1.4142135623730951")).composite(), "gelu_erf");
  EXPECT_EQ(Found(with("1.414214")).composite(), "gelu_erf");
  EXPECT_EQ(Found(with("1.41")).composite(), "");

  torch::jit::Graph graph;
  torch::jit::parseIR(with("1.4142135"), &graph);
  for (auto* node : graph.nodes()) {
    if (node->output()->debugName() == "half") {
      torch::jit::WithInsertPoint here(node);
      node->output()->replaceAllUsesWith(graph.insertConstant(at::scalar_tensor(0.5, at::kDouble)));
    }
  }
  Constants constants;
  EXPECT_THAT(Matcher(library()).match(graph, constants.function()).composites, SizeIs(1));
}

const char* kRule = R"(rule conv_scale
  match c = conv(x, w, b, groups=1); y = mul(c, s) commutative
  need  rank(s, 3)
  emit  w2, b2 = fold_affine(w, b, s, none)
  emit  z = aten::conv2d(x, w2, b2, c.stride, c.padding, c.dilation, 1)
)";

std::string conv_then(const std::string& group, const std::string& last) {
  return "graph(%x : Tensor, %w : Tensor, %b : Tensor?, %l : int[], %s : Tensor):\n  %g : int = prim::Constant[value=" + group +
         "]()\n  %c : Tensor = aten::conv2d(%x, %w, %b, %l, %l, %l, %g)\n  %y : Tensor = " + last + "\n  return (%y)\n";
}

TEST(Match, ARuleBindsItsVariablesAndTheArgumentsThatItNames) {
  Found found(conv_then("1", "aten::mul(%s, %c)"), kRule);
  ASSERT_THAT(found.result.matches, SizeIs(1));
  auto& match = found.result.matches[0];
  auto inputs = found.graph.inputs();
  EXPECT_EQ(match.rule->name, "conv_scale");
  EXPECT_EQ(match["x"], inputs[0]);
  EXPECT_EQ(match["w"], inputs[1]);
  EXPECT_EQ(match["b"], inputs[2]);
  EXPECT_EQ(match["s"], inputs[4]);
  EXPECT_EQ(match["c.stride"], inputs[3]);
  EXPECT_EQ(match["y"], found.graph.outputs()[0]);
  EXPECT_THAT(match.nodes, ElementsAre(match["c"]->node(), match["y"]->node()));
  EXPECT_THAT(found.result.near_misses, IsEmpty());
}

TEST(Match, ANearMissTellsWhatWasExpectedAndFound) {
  Found found(conv_then("2", "aten::mul(%c, %s)"), kRule);
  EXPECT_THAT(found.result.matches, IsEmpty());
  ASSERT_THAT(found.result.near_misses, SizeIs(1));
  auto& miss = found.result.near_misses[0];
  EXPECT_EQ(miss.rule->name, "conv_scale");
  EXPECT_EQ(miss.matched, 2);
  EXPECT_EQ(miss.expected, "groups of aten::conv2d equal to 1");
  EXPECT_EQ(miss.found->kind(), c10::Symbol::fromQualString("aten::conv2d"));
  EXPECT_EQ(miss.root, found.graph.outputs()[0]->node());
  // One operation alone is no near miss.
  EXPECT_THAT(Found(conv_then("1", "aten::relu(%c)"), kRule).result.near_misses, IsEmpty());
}

TEST(Match, ANearMissInTheMiddleOfAChain) {
  Found found(R"(graph(%x : Tensor):
  %a : Tensor = aten::tanh(%x)
  %b : Tensor = aten::sigmoid(%a)
  %y : Tensor = aten::relu(%b)
  return (%y))",
              "rule r\n  match a = aten::exp(x); b = aten::sigmoid(a); y = aten::relu(b)\n  emit z = aten::relu(x)\n");
  ASSERT_THAT(found.result.near_misses, SizeIs(1));
  EXPECT_EQ(found.result.near_misses[0].expected, "aten::exp as self of aten::sigmoid");
  EXPECT_EQ(found.result.near_misses[0].found->kind(), c10::Symbol::fromQualString("aten::tanh"));
}

// Names of the rules that match, each as often as it does.
std::vector<std::string> matching(const std::string& rules, const std::string& body) {
  Found found("graph(%x : Tensor, %z : Tensor):\n" + body + "  return (%y)\n", rules);
  std::vector<std::string> names;
  for (auto& match : found.result.matches)
    for (auto& rule : *match.rules) names.push_back(rule->name);
  return names;
}

TEST(Match, RulesThatDifferInOneTestAreToldApart) {
  const std::string numbers = R"(
rule half
  match a = aten::mul.Scalar(x, 0.5 ~1e-3); y = aten::tanh(a)
  emit  y = aten::cos(x)
rule quarter
  match a = aten::mul.Scalar(x, 0.25 ~1e-3); y = aten::tanh(a)
  emit  y = aten::cos(x)
rule about_half
  match a = aten::mul.Scalar(x, 0.5 ~1e-1); y = aten::tanh(a)
  emit  y = aten::cos(x)
)";
  const auto scaled = [&](const std::string& number) {
    return matching(numbers, "  %c : float = prim::Constant[value=" + number + "]()\n  %a : Tensor = aten::mul(%x, %c)\n  %y : Tensor = aten::tanh(%a)\n");
  };
  EXPECT_THAT(scaled("0.5"), ::testing::UnorderedElementsAre("half", "about_half"));
  EXPECT_THAT(scaled("0.25"), ElementsAre("quarter"));
  EXPECT_THAT(scaled("0.55"), ElementsAre("about_half"));
  EXPECT_THAT(scaled("0.1"), IsEmpty());
  const std::string overloads = R"(
rule by_tensor
  match a = aten::div.Tensor(x, z); y = aten::tanh(a)
  emit  y = aten::cos(x)
rule by_number
  match a = aten::div.Scalar(x, z); y = aten::tanh(a)
  emit  y = aten::cos(x)
)";
  EXPECT_THAT(matching(overloads, "  %a : Tensor = aten::div(%x, %z)\n  %y : Tensor = aten::tanh(%a)\n"), ElementsAre("by_tensor"));
  EXPECT_THAT(matching(overloads, "  %c : int = prim::Constant[value=2]()\n  %a : Tensor = aten::div(%x, %c)\n  %y : Tensor = aten::tanh(%a)\n"),
              ElementsAre("by_number"));
  const std::string variables = R"(
rule left_again
  match p = aten::sub.Tensor(a, b, 1); y = aten::div.Tensor(p, a)
  emit  y = aten::cos(a)
rule right_again
  match p = aten::sub.Tensor(a, b, 1); y = aten::div.Tensor(p, b)
  emit  y = aten::cos(a)
)";
  const auto divided = [&](const std::string& by) {
    return matching(variables, "  %c : int = prim::Constant[value=1]()\n  %p : Tensor = aten::sub(%x, %z, %c)\n  %y : Tensor = aten::div(%p, " + by + ")\n");
  };
  EXPECT_THAT(divided("%x"), ElementsAre("left_again"));
  EXPECT_THAT(divided("%z"), ElementsAre("right_again"));
  EXPECT_THAT(divided("%p"), IsEmpty());
}

TEST(Match, ARuleWithTwoOrdersMatchesOnce) {
  const std::string rules = R"(
rule either
  match p = aten::add.Tensor(a, b, 1) commutative; y = aten::tanh(p)
  emit  y = aten::cos(a)
)";
  EXPECT_THAT(matching(rules, "  %c : int = prim::Constant[value=1]()\n  %p : Tensor = aten::add(%x, %z, %c)\n  %y : Tensor = aten::tanh(%p)\n"),
              ElementsAre("either"));
}

TEST(Match, RulesOfOneStructureShareAMatch) {
  std::string other = kRule;
  other.replace(other.find("conv_scale"), 10, "conv_twice");
  Found found(conv_then("1", "aten::mul(%s, %c)"), kRule + other);
  ASSERT_THAT(found.result.matches, SizeIs(1));
  ASSERT_THAT(*found.result.matches[0].rules, SizeIs(2));
  EXPECT_EQ((*found.result.matches[0].rules)[1]->name, "conv_twice");
}

TEST(Match, FurtherOutputsAreTold) {
  const char* rule =
      "rule r\n  match l = aten::unbind.int(x, 0); a, b = prim::ListUnpack(l); y = aten::add(b, a, 1)\n  emit z = aten::relu(x)\n";
  auto ir = [](const char* sum) {
    return std::string(
               "graph(%x : Tensor):\n  %d : int = prim::Constant[value=0]()\n  %one : int = prim::Constant[value=1]()\n"
               "  %l : Tensor[] = aten::unbind(%x, %d)\n  %a : Tensor, %b : Tensor = prim::ListUnpack(%l)\n  %y : Tensor = aten::add(") +
           sum + ", %one)\n  return (%y)\n";
  };
  EXPECT_THAT(Found(ir("%b, %a"), rule).result.matches, SizeIs(1));
  EXPECT_THAT(Found(ir("%a, %b"), rule).result.matches, IsEmpty());
}

TEST(Match, TooManyWaysAreAnError) {
  std::string rule = "rule r\n  match a0 = aten::add(x, z, 1) commutative";
  for (int i = 1; i < 14; ++i) rule += ";\n    a" + std::to_string(i) + " = aten::add(a" + std::to_string(i - 1) + ", z, 1) commutative";
  auto before = library();
  EXPECT_THROW(load_patterns(rule + "\n  emit y = aten::relu(x)\n"), Error);
  EXPECT_EQ(library(), before);
}

}  // namespace
}  // namespace fusible::patterns
