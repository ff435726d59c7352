#include "passes/sample.h"

#include <chrono>

#include <ATen/core/grad_mode.h>

#include "passes/benefit.h"
#include "passes/excerpt.h"
#include "passes/fixes.h"

namespace fusible {

namespace {

using Clock = std::chrono::steady_clock;

// Each way is run this often, and longer ones less often.
constexpr int kWarmups = 3, kFewestRuns = 7, kMostRuns = 201;
constexpr std::chrono::milliseconds kEnough{60};

// One way to run a sequence.
struct Way {
  Module module;
  std::vector<c10::IValue> inputs;
  bool writes = false;  // to its inputs

  double nanoseconds() {
    torch::jit::Stack stack{module._ivalue()};
    for (const auto& input : inputs) stack.emplace_back(writes ? input.toTensor().clone() : input.toTensor());
    const auto start = Clock::now();
    module.get_method("forward").function().run(stack);
    return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
  }
};

double median(std::vector<double> times) {
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

// Of one pair of runs after the other, because the machine may get slower or faster meanwhile.
double saving(Way now, Way then) {
  const at::NoGradGuard no_grad;
  for (int i = 0; i < kWarmups; ++i) now.nanoseconds(), then.nanoseconds();
  std::vector<double> savings;
  const auto start = Clock::now();
  while (savings.size() < kFewestRuns || (savings.size() < kMostRuns && Clock::now() - start < kEnough)) {
    const double before = now.nanoseconds();
    savings.push_back(before - then.nanoseconds());
  }
  return std::max(0.0, median(std::move(savings)));
}

bool holds(const Module& module, const std::vector<Node*>& kinds) {
  bool found = false;
  for_each_node(module.get_method("forward").graph()->block(), [&](const Node* node) {
    found |= std::any_of(kinds.begin(), kinds.end(), [&](const Node* kind) { return kind->kind() == node->kind(); });
  });
  return found;
}

bool writes_to_input(const Module& module) {
  const auto graph = module.get_method("forward").graph();
  bool found = false;
  for_each_node(graph->block(), [&](const Node* node) {
    const auto* schema = node->maybeSchema();
    found |= schema && schema->is_mutable() && !node->inputs().empty() && node->input(0)->node()->kind() == torch::jit::prim::Param;
  });
  return found;
}

// The statistics of training, or none, become those of eval.
void use_statistics(Node* batch_norm) {
  if (batch_norm->kind() != torch::jit::aten::batch_norm) return;
  Graph& graph = *batch_norm->owningGraph();
  const torch::jit::WithInsertPoint first(*graph.nodes().begin());  // it may change places with the operator before it
  batch_norm->replaceInput(5, graph.insertConstant(false));
  const auto weight = torch::jit::toIValue(batch_norm->input(1));
  if (!weight || !weight->isTensor()) return;
  for (int statistic : {3, 4}) {
    if (batch_norm->input(statistic)->mustBeNone()) batch_norm->replaceInput(statistic, graph.insertConstant(at::ones_like(weight->toTensor())));
  }
}

// A finding and the operators that its sequence is made of.
class Sequence {
 public:
  Sequence(const Finding& finding, const Decision& decision, std::vector<Node*> outside, const Sizes& sizes, const Facts& facts)
      : finding_(finding), outside_(std::move(outside)), sizes_(sizes), facts_(facts) {
    inside_ = {finding.producer};
    for (const auto& chain : decision.chains) {
      if (const auto nodes = chain.nodes(); std::find(nodes.begin(), nodes.end(), finding.producer) != nodes.end()) inside_ = nodes;
    }
  }

  // As the model has it. The value in between is returned, too, so that nothing joins what the model keeps apart.
  std::optional<Way> now(Options options, std::string& signature) const {
    Excerpt excerpt(facts_, sizes_);
    for (Node* node : nodes()) {
      if (!excerpt.add(node)) return std::nullopt;
    }
    signature = std::string(finding_.code.id) + excerpt.signature();
    return fused(excerpt, {inside_.back()->output(), outside_.back()->output()}, options, /*joined=*/false);
  }

  // With all of it fused: the operators in a row, after the change that the finding asks for.
  std::optional<Way> then(Options options) const {
    options.target = "cpu";
    options.strict = false;
    for (const Value* only_input : {static_cast<const Value*>(nullptr), static_cast<const Value*>(inside_[0]->input(0))}) {
      Excerpt excerpt(facts_, sizes_, only_input);
      const Value* result = in_a_row(excerpt);
      if (!result) return std::nullopt;
      if (auto way = fused(excerpt, {result}, options, /*joined=*/true)) return way;
    }
    return std::nullopt;
  }

 private:
  std::vector<Node*> nodes() const {
    auto all = inside_;
    all.insert(all.end(), outside_.begin(), outside_.end());
    return all;
  }

  // The original of the result; null when it cannot be written like this.
  const Value* in_a_row(Excerpt& excerpt) const {
    for (Node* node : inside_) {
      if (!excerpt.add(node)) return nullptr;
    }
    const auto members = nodes();
    const auto is_member = [&](const Value* value) { return std::find(members.begin(), members.end(), value->node()) != members.end(); };
    Node* first = nullptr;
    for (Node* node : outside_) {
      // What stands in between is left out.
      if (!first && std::none_of(node->inputs().begin(), node->inputs().end(), is_member)) {
        if (node->inputs().empty()) return nullptr;
        excerpt.read_instead(node->input(0), inside_.back()->output());
      }
      Node* copy = excerpt.add(node);
      if (!copy) return nullptr;
      use_statistics(copy);
      if (!first) first = copy;
    }
    return edited(excerpt, first) ? result_of(excerpt, first) : nullptr;
  }

  // Fixes that change the sequence itself; what others do with its values is not in the excerpt.
  bool edited(const Excerpt& excerpt, Node* first) const {
    const std::string code = finding_.code.id;
    if (code != codes::wrong_order.id && code != codes::in_place_on_other.id && code != codes::alpha_not_one.id) return true;
    Finding there = finding_;
    there.producer = excerpt.copy_of(inside_.back()->output())->node();
    there.blocked = {first};
    const auto trial = trial_of(there);
    return trial && trial->edit && trial->edit(there);
  }

  // Of operators that changed places the earlier one comes last.
  const Value* result_of(const Excerpt& excerpt, const Node* first) const {
    const bool swapped = first->isBefore(excerpt.copy_of(inside_.back()->output())->node());
    return swapped ? inside_.back()->output() : outside_.back()->output();
  }

  // Nothing, unless what stands outside was `joined` with the rest, or was not, as it was meant to.
  std::optional<Way> fused(Excerpt& excerpt, const std::vector<const Value*>& results, const Options& options, bool joined) const {
    Module module = fuse(excerpt.module(results), options).module;
    if (holds(module, {outside_.front()}) == joined) return std::nullopt;
    const bool writes = writes_to_input(module);
    return Way{std::move(module), excerpt.inputs(), writes};
  }

  const Finding& finding_;
  std::vector<Node*> inside_, outside_;
  const Sizes& sizes_;
  const Facts& facts_;
};

}  // namespace

void Sampler::measure(std::vector<Finding>& findings, const Decision& decision, const Sizes& sizes, const Facts& facts) {
  Options options = options_;
  options.example_inputs.reset();
  options.methods.clear();
  options.verify = false;
  options.progress = nullptr;
  for (auto& finding : findings) {
    const auto outside = left_outside(finding, matcher_, facts);
    if (!outside || outside->empty()) continue;
    heartbeat_();
    const Sequence sequence(finding, decision, *outside, sizes, facts);
    std::string signature;
    auto now = sequence.now(options, signature);
    if (!now) continue;
    auto known = known_.find(signature);
    if (known == known_.end()) {
      auto then = sequence.then(options);
      if (!then) continue;
      known = known_.emplace(signature, saving(std::move(*now), std::move(*then))).first;
    }
    finding.benefit.ns = known->second * sizes.of.at(finding.producer->output()).times;
    finding.benefit.basis = "measured";
  }
}

}  // namespace fusible
