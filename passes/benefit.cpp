#include "passes/benefit.h"

namespace fusible {

namespace {

using patterns::Entry;

class Estimator {
 public:
  Estimator(const Sizes& sizes, const patterns::Matcher& matcher, const Facts& facts) : sizes_(sizes), matcher_(matcher), facts_(facts) {}

  Benefit of(const Finding& finding) const {
    const auto outside = left_outside(finding, matcher_, facts_);
    if (!outside) return {};
    const Value* value = finding.producer->output();
    const std::vector<Node*>& blocked = *outside;
    Benefit total;
    if (blocked.empty()) total.bytes = total.flops = 0;  // nothing follows that it could take in
    // Of operators that follow each other, each saves the value that it reads.
    for (const Node* node : blocked) {
      const auto size = sizes_.of.find(reads_of(node, value, blocked));
      if (size == sizes_.of.end()) return {};
      total.bytes = std::max<std::int64_t>(total.bytes, 0) + 2 * size->second.bytes;
      total.flops = std::max<std::int64_t>(total.flops, 0) + (is_normalization(node) ? 2 * size->second.elements : 0);
    }
    total.basis = sizes_.basis;
    return total;
  }

 private:
  // The value of the sequence that `node` reads: an output of another blocked node, else the one that blocks.
  static const Value* reads_of(const Node* node, const Value* value, const std::vector<Node*>& blocked) {
    for (const Value* input : node->inputs()) {
      if (std::find(blocked.begin(), blocked.end(), input->node()) != blocked.end()) return input;
    }
    return value;
  }

  bool is_normalization(const Node* node) const {
    const auto view = matcher_.view(const_cast<Node*>(node), facts_.constant_of());
    return view && view->entry->kind == Entry::Kind::normalization;
  }

  const Sizes& sizes_;
  const patterns::Matcher& matcher_;
  const Facts& facts_;
};

// The activations and batch_norms behind a contraction. False: `value` is the result of something else.
bool followers(const Value* value, const patterns::Matcher& matcher, const Facts& facts, std::vector<Node*>& found) {
  const auto anchor = matcher.view(const_cast<Node*>(value->node()), facts.constant_of());
  if (!anchor || anchor->entry->kind != Entry::Kind::contraction) return false;
  while (value->uses().size() == 1) {
    const auto view = matcher.view(value->uses()[0].user, facts.constant_of());
    if (!view || !view->entry->is_unary() || (*view)["x"] != value) break;
    found.push_back(view->root);
    value = view->root->output();
  }
  return true;
}

}  // namespace

std::optional<std::vector<Node*>> left_outside(const Finding& finding, const patterns::Matcher& matcher, const Facts& facts) {
  if (!finding.producer || finding.producer->outputs().size() != 1) return std::nullopt;
  const bool explains = (finding.code.severity == Severity::note && finding.blocked.empty()) || finding.code.id == codes::operand_of_itself.id;
  if (explains) return std::nullopt;
  std::vector<Node*> blocked = finding.blocked;
  if (blocked.empty() && !followers(finding.producer->output(), matcher, facts, blocked)) return std::nullopt;
  return blocked;
}

void estimate_benefits(std::vector<Finding>& findings, const Sizes& sizes, const patterns::Matcher& matcher, const Facts& facts) {
  if (sizes.of.empty()) return;
  const Estimator estimator(sizes, matcher, facts);
  for (auto& finding : findings) finding.benefit = estimator.of(finding);
}

Benefit sum_of(Benefit left, const Benefit& right) {
  const auto add = [](auto a, auto b) { return a < 0 ? b : b < 0 ? a : a + b; };
  left.bytes = add(left.bytes, right.bytes);
  left.flops = add(left.flops, right.flops);
  left.ns = add(left.ns, right.ns);
  if (left.basis.empty()) left.basis = right.basis;
  return left;
}

}  // namespace fusible
