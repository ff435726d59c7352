#include <torch/csrc/jit/api/function_impl.h>

#include "tests/patterns/cases.h"
#include "tests/patterns/graphs.h"

namespace fusible::patterns {
namespace {

// Every case computes what its function computes, as a module with its weights as parameters, and shows the entry that it speaks of.
TEST(Cases, RunAndShowTheirEntry) {
  auto library = fusible::patterns::library();
  Matcher matcher(library);
  int cases = 0;
  for (auto& entry : library->entries) {
    for (auto& one : entry.cases) {
      SCOPED_TRACE(entry.file + ":" + std::to_string(one.line));
      auto made = module_of(one, 7);
      at::Tensor y;
      ASSERT_NO_THROW(y = made.module.forward(made.inputs).toTensor());
      EXPECT_TRUE(at::isfinite(y).all().item<bool>());
      auto graph = torch::jit::toGraphFunction(made.module.get_method("forward").function()).graph();
      Constants constants;
      bool shown = entry.kind == Entry::Kind::transparent && !one.fuses;  // dropout in training is no entry
      for (auto* node : graph->nodes()) {
        auto view = matcher.view(node, constants.function());
        shown |= view && view->entry == &entry;
      }
      for (auto& composite : matcher.match(*graph, constants.function()).composites) shown |= composite.entry == &entry;
      EXPECT_TRUE(shown) << entry.name << "\n" << *graph;
      ++cases;
    }
  }
  EXPECT_GT(cases, 50);
}

}  // namespace
}  // namespace fusible::patterns
