#include <set>

#include <torch/csrc/jit/ir/irparser.h>

#include "passes/patterns/operations.h"
#include "tests/patterns/graphs.h"

namespace fusible::patterns {
namespace {

using ::testing::Eq;
using ::testing::IsNull;
using ::testing::NotNull;

// The view of the root of a graph in IR text.
struct Seen {
  explicit Seen(const std::string& ir) : library(fusible::patterns::library()), matcher(library) {
    torch::jit::parseIR(ir, &graph);
    view = matcher.view(root_of(graph), constants.function());
  }
  std::string entry() const { return view ? view->entry->name : ""; }

  std::shared_ptr<const Library> library;
  Matcher matcher;
  torch::jit::Graph graph;
  Constants constants;
  std::optional<View> view;
};

TEST(View, EverySingleNodeSpellingIsSeenAsItsEntryWithItsRoles) {
  auto library = fusible::patterns::library();
  Matcher matcher(library);
  int spellings = 0;
  for (auto& entry : library->entries) {
    for (auto& spelling : entry.spellings) {
      if (spelling.is_composite()) continue;
      auto& operation = spelling.operations.front();
      auto graph = graph_of(*library, spelling.operations);
      auto* node = root_of(*graph);
      Constants constants;
      auto view = matcher.view(node, constants.function());
      ASSERT_TRUE(view) << entry.name << ": " << operation.op;
      EXPECT_EQ(view->entry->name, entry.name) << operation.op;
      EXPECT_EQ(view->root, node);
      for (std::size_t i = 0; i < operation.args.size(); ++i) {
        if (!operation.args[i].name.empty()) EXPECT_EQ((*view)[operation.args[i].name.c_str()], node->input(i)) << operation.op;
      }
      auto written = node->schema().arguments()[0].alias_info();
      EXPECT_EQ(view->in_place, written && written->isWrite()) << operation.op;
      ++spellings;
    }
  }
  EXPECT_GT(spellings, 80);
}

TEST(View, MostComparedConstantsWin) {
  const char* hardtanh = R"(graph(%x : Tensor):
  %lo : float = prim::Constant[value=LO]()
  %hi : int = prim::Constant[value=6]()
  %y : Tensor = aten::hardtanh(%x, %lo, %hi)
  return (%y))";
  std::string text = hardtanh;
  auto at = text.find("LO");
  EXPECT_EQ(Seen(text.replace(at, 2, "0.")).entry(), "relu6");
  text = hardtanh;
  EXPECT_EQ(Seen(text.replace(at, 2, "-1.")).entry(), "hardtanh");
}

TEST(View, AConstantThatIsNotKnownIsNotEqual) {
  EXPECT_EQ(Seen(R"(graph(%x : Tensor, %p : float, %train : bool):
  %y : Tensor = aten::dropout(%x, %p, %train)
  return (%y))").entry(), "");
}

TEST(View, OverloadsAreTold) {
  EXPECT_EQ(Seen(R"(graph(%x : Tensor, %lo : Tensor, %hi : Tensor):
  %y : Tensor = aten::clamp(%x, %lo, %hi)
  return (%y))").entry(), "");
  EXPECT_EQ(Seen(R"(graph(%x : int, %z : int):
  %y : int = aten::mul(%x, %z)
  return (%y))").entry(), "");
  EXPECT_EQ(Seen(R"(graph(%x : Tensor, %z : Tensor):
  %y : Tensor = aten::mul(%x, %z)
  return (%y))").entry(), "mul");
  EXPECT_EQ(Seen(R"(graph(%x : Tensor, %z : Tensor):
  %m : str = prim::Constant[value="floor"]()
  %y : Tensor = aten::div(%x, %z, %m)
  return (%y))").entry(), "");
}

TEST(View, ATransposedConvolutionIsTold) {
  const char* ir = R"(graph(%x : Tensor, %w : Tensor, %b : Tensor?, %l : int[], %f : bool):
  %t : bool = prim::Constant[value=FLAG]()
  %g : int = prim::Constant[value=1]()
  %y : Tensor = aten::_convolution(%x, %w, %b, %l, %l, %l, %t, %l, %g, %f, %f, %f, %f)
  return (%y))";
  std::string text = ir;
  EXPECT_EQ(Seen(text.replace(text.find("FLAG"), 4, "0")).entry(), "conv");
  text = ir;
  EXPECT_EQ(Seen(text.replace(text.find("FLAG"), 4, "1")).entry(), "conv_transpose");
}

TEST(View, SidesOfABinaryStepAreTold) {
  Seen seen(R"(graph(%x : Tensor, %z : Tensor):
  %one : int = prim::Constant[value=1]()
  %y : Tensor = aten::rsub(%x, %z, %one)
  return (%y))");
  ASSERT_EQ(seen.entry(), "sub");
  EXPECT_EQ((*seen.view)["lhs"], seen.graph.inputs()[1]);
  EXPECT_EQ((*seen.view)["rhs"], seen.graph.inputs()[0]);
  EXPECT_THAT((*seen.view)["alpha"], NotNull());
  EXPECT_THAT((*seen.view)["x"], IsNull());
}

TEST(View, MatrixProductsNameTheirTransposedWeight) {
  Seen seen(R"(graph(%b : Tensor, %x : Tensor, %w : Tensor):
  %one : int = prim::Constant[value=1]()
  %y : Tensor = aten::addmm(%b, %x, %w, %one, %one)
  return (%y))");
  ASSERT_EQ(seen.entry(), "linear");
  EXPECT_EQ((*seen.view)["weight_t"], seen.graph.inputs()[2]);
  EXPECT_EQ((*seen.view)["bias"], seen.graph.inputs()[0]);
  EXPECT_THAT((*seen.view)["weight"], IsNull());
}

}  // namespace
}  // namespace fusible::patterns
