#include "tests/patterns/matcher_graphs.h"

#include <random>
#include <set>

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/runtime/operator.h>

namespace fusible::patterns {

namespace {

constexpr int kSteps = 1000;

// Operators fusible_test::step0 ... step999 of one tensor, known to torch's registry.
void register_steps() {
  static const bool once = [] {
    for (int i = 0; i < kSteps; ++i) {
      torch::jit::registerOperator(torch::jit::Operator(
          "fusible_test::step" + std::to_string(i) + "(Tensor x) -> Tensor",
          [](torch::jit::Stack&) {}, c10::AliasAnalysisKind::FROM_SCHEMA));
    }
    return true;
  }();
  (void)once;
}

c10::Symbol step(int i) { return c10::Symbol::fromQualString("fusible_test::step" + std::to_string(i)); }

struct Kinds {
  int steps, groups, chains;
};
Kinds kinds(int count) { return {count / 2, count / 4, count - count / 2 - count / 4}; }

}  // namespace

ConstantOf Workload::constant() const {
  return [this](const Value* value) -> const c10::IValue* {
    auto found = constants.find(value);
    return found == constants.end() ? nullptr : &found->second;
  };
}

Workload make_workload(int nodes) {
  register_steps();
  Workload work;
  work.graph = std::make_shared<torch::jit::Graph>();
  auto& graph = *work.graph;
  auto constant = [&](c10::IValue value) {
    auto* made = graph.insertConstant(value);
    work.constants.emplace(made, std::move(value));
    return made;
  };
  auto* weight = graph.addInput();
  auto* pair = constant(std::vector<std::int64_t>{1, 1});
  auto* none = constant(c10::IValue());
  std::vector<Value*> numbers;
  for (int i = 0; i < 300; ++i) numbers.push_back(constant(std::int64_t{i}));
  std::mt19937 random(17);
  Value* x = graph.addInput();
  auto append = [&](c10::Symbol kind, std::vector<Value*> inputs) { x = graph.insertNode(graph.create(kind, inputs))->output(); };
  for (int i = 0; i + 5 <= nodes; i += 5) {
    auto* group = numbers[random() % numbers.size()];
    append(c10::Symbol::fromQualString("aten::conv2d"), {x, weight, none, pair, pair, pair, group});
    bool plain = random() % 4 == 0;
    append(plain ? c10::Symbol::fromQualString("aten::relu") : step(random() % 2 ? random() % 10 : random() % kSteps), {x});
    append(c10::Symbol::fromQualString("aten::add"), {x, weight, numbers[1]});
    append(step(random() % kSteps), {x});
    append(step(random() % kSteps), {x});
  }
  graph.registerOutput(x);
  return work;
}

std::shared_ptr<const Library> make_rules(int count) {
  register_steps();
  auto library = std::make_shared<Library>(*fusible::patterns::library());
  auto [steps, groups, chains] = kinds(count);
  std::string text;
  auto rule = [&](const std::string& name, const std::string& match) {
    text += "rule " + name + "\n  match " + match + "\n  emit z = aten::relu(x)\n";
  };
  for (int i = 0; i < steps; ++i) {
    rule("step" + std::to_string(i), "c = aten::conv2d(x, w, _, _, _, _, _); y = fusible_test::step" + std::to_string(i) + "(c)");
  }
  for (int i = 0; i < groups; ++i) {
    rule("groups" + std::to_string(i), "c = aten::conv2d(x, w, _, _, _, _, " + std::to_string(i) + "); y = aten::relu(c)");
  }
  for (int i = 0; i < chains; ++i) {
    rule("chain" + std::to_string(i),
         "c = fusible_test::step" + std::to_string(i) + "(x); y = fusible_test::step" + std::to_string(i + 1) + "(c)");
  }
  parse_into(*library, text, "generated.fus");
  return library;
}

std::vector<std::string> make_ir_patterns(int count) {
  register_steps();
  auto [steps, groups, chains] = kinds(count);
  std::vector<std::string> texts;
  auto conv = [&](const std::string& group, const std::string& last) {
    texts.push_back("graph(%x, %w, %b, %s, %p, %d, %g):\n" + group + "  %c = aten::conv2d(%x, %w, %b, %s, %p, %d, " +
                    (group.empty() ? "%g" : "%n") + ")\n  %y = " + last + "(%c)\n  return (%y)\n");
  };
  for (int i = 0; i < steps; ++i) conv("", "fusible_test::step" + std::to_string(i));
  for (int i = 0; i < groups; ++i) conv("  %n : int = prim::Constant[value=" + std::to_string(i) + "]()\n", "aten::relu");
  for (int i = 0; i < chains; ++i) {
    texts.push_back("graph(%x):\n  %c = fusible_test::step" + std::to_string(i) + "(%x)\n  %y = fusible_test::step" +
                    std::to_string(i + 1) + "(%c)\n  return (%y)\n");
  }
  return texts;
}

}  // namespace fusible::patterns
