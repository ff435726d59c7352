#include "passes/chain.h"
#include "passes/dependence.h"

namespace fusible {

namespace {

namespace prim = torch::jit::prim;
using patterns::Entry;
using patterns::View;

bool is_return(const Node* node) { return node->kind() == prim::Return; }

// Returned by the method, by itself or inside of a tuple, list or dict.
bool is_returned(const torch::jit::Use& use) {
  const Node* user = use.user;
  if (is_return(user)) return user->owningBlock()->owningNode() == nullptr;
  const auto kind = user->kind();
  if (kind != prim::TupleConstruct && kind != prim::ListConstruct && kind != prim::DictConstruct) return false;
  const auto& uses = user->output()->uses();
  return std::any_of(uses.begin(), uses.end(), is_returned);
}

bool returns_view(const Node* node) {
  static const std::unordered_set<std::string> kinds{
      "aten::view", "aten::reshape", "aten::flatten", "aten::permute", "aten::transpose", "aten::t", "aten::squeeze", "aten::unsqueeze",
      "aten::slice", "aten::select", "aten::narrow", "aten::expand", "aten::expand_as", "aten::view_as", "aten::reshape_as",
      "aten::unflatten", "aten::movedim", "aten::chunk", "aten::split", "aten::contiguous", "aten::detach"};
  return kinds.count(node->kind().toQualString()) != 0;
}

class Walker {
 public:
  Walker(Chain& chain, const WalkContext& context) : chain_(chain), context_(context), facts_(context.facts) {
    for (Value* input : chain.anchor->inputs()) reads_.push_back(input);
    value_ = chain.anchor->output();
  }

  std::optional<Finding> run() {
    while (!finding_ && advance()) {
    }
    return std::move(finding_);
  }

 private:
  // One step further; false at the end, with finding_ set when something fusible was left behind.
  bool advance() {
    if (const View* composite = composite_at(value_))
      return composite->entry->kind == Entry::Kind::binary ? take_binary(*composite) : take_activation(*composite);
    const auto& uses = value_->uses();
    if (uses.size() != 1) return uses.empty() ? false : many_uses();
    Node* user = uses[0].user;
    if (context_.claimed.count(user)) return false;
    if (user->owningBlock() != chain_.anchor->owningBlock()) return other_block(user);
    if (is_return(user)) return leaves_block(user, uses[0].offset);
    auto view = context_.matcher.view(user, facts_.constant_of());
    if (!view) return other_operator(user);
    switch (view->entry->kind) {
      case Entry::Kind::activation: return (*view)["x"] == value_ && take_activation(*view);
      case Entry::Kind::normalization: return (*view)["x"] == value_ && take_batch_norm(*view);
      case Entry::Kind::binary: return take_binary(*view);
      default: return false;
    }
  }

  // Of one channel the strides say contiguous and channels_last at once, and the next convolution goes by them: each operator one by one has its own
  // way with such.
  const View* composite_at(const Value* value) const {
    if (chain_.spec.kind != Contraction::linear && chain_.spec.out_channels() == 1) return nullptr;
    auto [begin, end] = context_.composites.equal_range(value);
    const View* best = nullptr;
    for (auto it = begin; it != end; ++it) {
      const View& view = *it->second;
      if (is_closed(view, value) && (!best || view.nodes.size() > best->nodes.size())) best = &view;
    }
    return best;
  }

  // Every use of the start and of the composite's inner values lies inside of it, in one block, and no node is taken. So an operator in
  // place, which writes to one of those, is seen by nobody else.
  bool is_closed(const View& view, const Value* start) const {
    const auto inside = [&](const Node* node) { return std::find(view.nodes.begin(), view.nodes.end(), node) != view.nodes.end(); };
    for (const auto& use : start->uses()) {
      if (!inside(use.user)) return false;
    }
    for (Node* node : view.nodes) {
      if (node->owningBlock() != chain_.anchor->owningBlock() || context_.claimed.count(node)) return false;
      if (node == view.root) continue;
      for (const Value* output : node->outputs()) {
        for (const auto& use : output->uses()) {
          if (!inside(use.user)) return false;
        }
      }
    }
    return true;
  }

  // float16 ends at 65504: where the operators one by one overflow, what stands for them all at once does not.
  bool overflows_early() const { return chain_.spec.weight.scalar_type() == at::kHalf; }

  bool stop_for_range(const View& view) {
    return stop(view.root, {codes::dtype, "a dtype whose range no intermediate value leaves: float32, float64 or bfloat16", "Half, which ends at 65504",
                            "convert the model with one .float()", {}});
  }

  bool take_activation(const View& view) {
    if (view.nodes.size() > 1 && overflows_early()) return stop_for_range(view);
    Step step{view.entry->name, view.nodes, std::nullopt, view.entry->step, {}};
    std::string args;
    for (const auto& role : view.entry->step_args) {
      Value* value = view[role.c_str()];
      const auto* constant = value ? facts_.constant(value) : nullptr;
      const bool scalar = constant && (constant->isNone() || constant->isInt() || constant->isDouble() || constant->isString() || constant->isBool());
      if (value && !scalar)
        return stop(view.root, {codes::dynamic_attribute, role + " known when the model is fused", role + " is computed at run time",
                                "give " + role + " as a number", {}});
      args += (args.empty() ? "" : ", ") + (value ? scalar_text(*constant) : std::string("none"));
    }
    const std::size_t name_end = std::min(step.text.find('('), step.text.size());
    if (!args.empty()) step.text += "(" + args + ")";
    if (leaves_strides_of_a_pixel(view, step.text, facts_)) step.text.insert(name_end, "_");
    if (!is_step(step.text, view.entry->name == "prelu" ? 1 : 0))
      return stop(view.root, {codes::unsupported_attribute, "arguments that the step takes", "no operator has the step " + step.text, "change the pattern's step or spelling", {}});
    if (view.entry->name == "prelu") {
      Value* weight = view["weight"];
      if (!facts_.constant_tensor(weight))
        return stop(view.root, {codes::operand_not_constant, "a constant prelu weight", "its weight is computed or written at run time",
                                "make it a parameter that no method writes", {}});
      step.operands = {weight};
    }
    return take(std::move(step));
  }

  bool only_affine() const {
    return std::all_of(chain_.steps.begin(), chain_.steps.end(), [](const Step& step) { return step.affine.has_value(); });
  }

  bool take_batch_norm(const View& view) {
    auto decided = batch_norm_affine(view, chain_.spec, facts_);
    if (decided.decline) return stop(view.root, *decided.decline);
    if (!only_affine())
      return stop(view.root, {codes::wrong_order, "batch_norm directly after the contraction", chain_.steps.back().name + " stands between the contraction and batch_norm",
                              "swap them when you train (conv, batch_norm, activation): only then it folds into the weights",
                              {Fix::Kind::model_edit, "conv, batch_norm, activation", false}});
    if (context_.strict)
      return stop(view.root, {codes::strict_numerics, "a rewrite that is exact", "folding batch_norm rounds the weights once more",
                              "call fuse without strict=True", {Fix::Kind::option, "strict=False", false}});
    if (overflows_early()) return stop_for_range(view);
    return take({view.entry->name, view.nodes, std::move(decided.value), "", {}});
  }

  bool take_binary(const View& view) {
    const bool left = view["lhs"] == value_;
    if (!left && view["rhs"] != value_) return false;
    Value* other = view[left ? "rhs" : "lhs"];
    if (!left && view.in_place) {
      stop(view.root, {codes::in_place_on_other, "the sum written to the contraction's own result", "the sum is written in place to another tensor",
                       "write `y = y + x` or `y += x` with the contraction's result on the left", {Fix::Kind::model_edit, "y = x + y", false}});
      return false;
    }
    if (only_affine() && !context_.strict && !overflows_early()) {
      auto decided = binary_affine(view, left, chain_.spec, facts_);
      if (decided.decline) return stop(view.root, *decided.decline);
      if (*decided.value) return take({view.entry->name, view.nodes, std::move(*decided.value), "", {}});
    }
    if (view["alpha"]) {
      const auto* alpha = facts_.constant(view["alpha"]);
      const bool one = alpha && ((alpha->isInt() && alpha->toInt() == 1) || (alpha->isDouble() && alpha->toDouble() == 1));
      if (!one)
        return stop(view.root, {codes::alpha_not_one, "alpha = 1", alpha ? "alpha is " + scalar_text(*alpha) : "alpha is computed at run time",
                                "scale the operand before the sum", {}});
    }
    Step step{view.entry->name, view.nodes, std::nullopt, (left ? "" : "r") + view.entry->step + (view.in_place ? "_" : ""), {}};
    const auto* constant = facts_.constant(other);
    if (constant && !constant->isTensor()) {
      if (!constant->isInt() && !constant->isDouble()) return false;
      step.text += "(" + scalar_text(*constant) + ")";
    } else if (other->type()->kind() == c10::TypeKind::TensorType) {
      // A gate of shape [N, C, 1, 1] times a larger map: the product belongs to the map's producer.
      const bool gate = (view.entry->name == "mul" || view.entry->name == "div") && !constant && !chain_.steps.empty() &&
                        (chain_.steps.back().name == "sigmoid" || chain_.steps.back().name == "hardsigmoid");
      if (gate) return false;
      step.operands = {other};
    } else {
      return stop(view.root, {codes::dynamic_attribute, "an operand that is a tensor or a known number", "its operand is a number computed at run time",
                              "give it as a number or an attribute", {}});
    }
    return take(std::move(step));
  }

  // S2, S3: the fused operator stands at the step's root; nothing may write, until there, what earlier nodes read.
  bool take(Step step) {
    Node* root = step.nodes.back();
    std::vector<Node*> matched = chain_.nodes();
    matched.insert(matched.end(), step.nodes.begin(), step.nodes.end());
    if (Node* writer = facts_.writer_between(chain_.root(), root, reads_, matched)) {
      const std::string what = writer->kind().toQualString(), next = root->kind().toQualString();
      if (is_with(writer))
        return stop(root, {codes::block_boundary, "the whole sequence inside of one `with`, or outside", "a `with` begins or ends between the contraction and " + next,
                           "move " + next + " to the contraction", {}});
      const bool writes = facts_.may_write(writer, reads_);
      stop(root, {codes::mutation_between, (writes ? "operands that nothing writes between the contraction and " : "nothing that a caller can see between the contraction and ") + next,
                  what + (writes ? " may write one of them" : " stands there, and would have happened when the contraction raises behind it"),
                  writes ? "write to a copy, or move the write after the sequence" : "move it after the sequence", {}});
      finding_->related.push_back({(writes ? "the write: " : "the effect: ") + what, writer});
      return false;
    }
    for (Node* node : step.nodes) {
      for (Value* input : node->inputs()) {
        if (std::find(matched.begin(), matched.end(), input->node()) == matched.end()) reads_.push_back(input);
      }
    }
    value_ = root->output();
    chain_.steps.push_back(std::move(step));
    return true;
  }

  // What a person would expect to be fused with what stands here: an activation or a batch_norm.
  std::optional<View> expected(Node* node) const {
    if (is_return(node) || context_.claimed.count(node)) return std::nullopt;
    auto view = context_.matcher.view(node, facts_.constant_of());
    if (!view || !view->entry->is_unary()) return std::nullopt;
    return view;
  }

  bool is_sum(Node* node) const {
    if (is_return(node) || context_.claimed.count(node) || node->owningBlock() != chain_.anchor->owningBlock()) return false;
    auto view = context_.matcher.view(node, facts_.constant_of());
    return view && view->entry->kind == Entry::Kind::binary && (*view)["lhs"] != (*view)["rhs"];
  }

  bool stop(Node* blocked, const Decline& decline) {
    auto view = context_.matcher.view(blocked, facts_.constant_of());
    const std::string next = view ? view->entry->name : std::string(blocked->kind().toQualString());
    Finding finding{decline.code};
    finding.pattern = chain_.pattern() + "+" + next;
    finding.message = spelled(finding.pattern) + " not fused: " + decline.found;
    finding.needed = decline.needed;
    finding.found = decline.found;
    finding.help = decline.help;
    finding.fix = decline.fix;
    finding.did = "fused " + spelled(chain_.pattern()) + "; " + next + " left as it is";
    finding.matched = static_cast<int>(chain_.steps.size()) + 1;
    finding.steps = finding.matched + 1;
    finding.producer = value_->node();
    finding.blocked = {blocked};
    finding_ = std::move(finding);
    return false;
  }

  static std::string spelled(const std::string& pattern) {
    std::string text;
    for (char c : pattern) text += c == '+' ? std::string(" -> ") : std::string(1, c);
    return text;
  }

  bool many_uses() {
    Node* wanted = nullptr;
    bool returned = false;
    for (const auto& use : value_->uses()) {
      returned |= is_returned(use);
      if (!wanted && expected(use.user)) wanted = use.user;
    }
    // A sum that takes it may still belong to the chain of its other operand: then the finding is moot.
    for (const auto& use : value_->uses()) {
      if (!wanted && is_sum(use.user)) wanted = use.user;
    }
    if (!wanted) {
      Node* reader = only_reader();
      const bool foreign = reader && reader->owningBlock() == chain_.anchor->owningBlock() && !context_.matcher.view(reader, facts_.constant_of());
      return foreign && other_operator(reader);
    }
    if (wanted->owningBlock() != chain_.anchor->owningBlock()) return other_block(wanted);
    // What a batch_norm itself is (training, no statistics) says more than who else reads its input.
    if (auto view = expected(wanted); view && view->entry->kind == Entry::Kind::normalization) {
      if (auto decided = batch_norm_affine(*view, chain_.spec, facts_); decided.decline) return stop(wanted, *decided.decline);
    }
    const std::string producer = value_->node()->kind().toQualString(), next = wanted->kind().toQualString();
    if (waits_for_itself(wanted)) {
      stop(wanted, {codes::operand_of_itself, "another operand that does not depend on the result of " + producer,
                    "the other operand of " + next + " is computed from it",
                    "nothing to do: a gate or a residual sum needs the whole result before its other operand exists", {}});
    } else if (returned) {
      stop(wanted, {codes::graph_output, "a value that only " + next + " uses",
                    "the result of " + producer + " is also returned by the method", "return the result of " + next + " instead, or drop this output when you export", {}});
    } else {
      stop(wanted, {codes::second_use, "exactly 1 use of the result of " + producer, std::to_string(value_->uses().size()) + " uses of the result of " + producer,
                    "let every reader use the result of " + next + ", which makes another model of it, or accept it", {}});
    }
    int others = 0;
    for (const auto& use : value_->uses()) {
      if (use.user == wanted) continue;
      const std::string label = is_returned(use) ? "returned here" : (others++ ? "another use: " : "second use: ") + std::string(use.user->kind().toQualString());
      finding_->related.push_back({label, use.user});
    }
    return false;
  }

  // The only operator that reads the numbers of the value, and not its sizes; null when there are several.
  Node* only_reader() const {
    static const std::unordered_set<std::string> queries{"aten::size", "aten::dim", "aten::len", "aten::numel", "prim::dtype", "prim::device"};
    Node* reader = nullptr;
    for (const auto& use : value_->uses()) {
      if (queries.count(use.user->kind().toQualString())) continue;
      if (reader || is_return(use.user)) return nullptr;
      reader = use.user;
    }
    return reader;
  }

  // y * gate(y), y + block(y): no order of the operators lets one kernel write the result.
  bool waits_for_itself(Node* sum) const {
    const auto view = context_.matcher.view(sum, facts_.constant_of());
    if (!view || view->entry->kind != Entry::Kind::binary) return false;
    const Value* other = (*view)["lhs"] == value_ ? (*view)["rhs"] : (*view)["lhs"];
    return other != value_ && is_computed_from(other, value_, facts_);
  }

  bool other_block(Node* user) {
    if (!expected(user)) return false;
    return stop(user, {codes::block_boundary, "the whole sequence in one block", std::string(user->kind().toQualString()) + " stands inside a " +
                       user->owningBlock()->owningNode()->kind().toQualString(), "move the " + std::string(user->kind().toQualString()) +
                       " out of the branch, or make its condition a constant attribute", {}});
  }

  bool leaves_block(Node* block_return, std::size_t offset) {
    Node* owner = block_return->owningBlock()->owningNode();
    if (!owner || owner->kind() != prim::If || offset >= owner->outputs().size()) return false;
    for (const auto& use : owner->outputs()[offset]->uses()) {
      if (!expected(use.user)) continue;
      return stop(use.user, {codes::block_boundary, "the whole sequence in one block", "the contraction stands inside a prim::If and " +
                             std::string(use.user->kind().toQualString()) + " after it", "put both into the branch, or make its condition a constant attribute", {}});
    }
    return false;
  }

  // An operator that no post-op is made of; worth a word only when a post-op follows it.
  bool other_operator(Node* user) {
    if (user->outputs().size() != 1) return false;
    Node* wanted = nullptr;
    for (const auto& use : user->output()->uses()) {
      if (!wanted && expected(use.user)) wanted = use.user;
    }
    if (!wanted) return false;
    const std::string op = user->kind().toQualString(), next = wanted->kind().toQualString();
    Decline decline;
    if (returns_view(user))
      decline = {codes::view_between, next + " directly after the contraction", op + " stands between them", "apply " + next + " before " + op,
                 {Fix::Kind::model_edit, "swap " + op + " and " + next, false}};
    else if (user->kind().is_aten() || user->kind().is_prim())
      decline = {codes::intervening_op, next + " directly after the contraction", op + " stands between them",
                 "move " + op + " after " + next + " where that computes the same, or accept it", {}};
    else
      decline = {codes::unknown_op, "operators whose meaning is known", op + " stands between the contraction and " + next,
                 "write a pattern for it (`fusible patterns`), or move it after " + next + " where that computes the same", {}};
    stop(wanted, decline);
    finding_->related.push_back({"in between: " + op, user});
    return false;
  }

  Chain& chain_;
  const WalkContext& context_;
  const Facts& facts_;
  std::vector<Value*> reads_;
  Value* value_ = nullptr;
  std::optional<Finding> finding_;
};

}  // namespace

std::vector<View> contractions_of(Graph& graph, const patterns::Matcher& matcher, const Facts& facts) {
  std::vector<View> found;
  const auto constant = facts.constant_of();
  for_each_node(graph.block(), [&](Node* node) {
    auto view = matcher.view(node, constant);
    if (view && view->entry->kind == Entry::Kind::contraction) found.push_back(std::move(*view));
  });
  return found;
}

Composites by_start(const std::vector<View>& composites) {
  Composites by_value;
  for (const View& view : composites) {
    // 2 - y is written -y + 2: a binary composite starts from what it takes on the right.
    Value* start = view[view.entry->kind == Entry::Kind::binary ? "rhs" : "x"];
    if (start) by_value.emplace(start, &view);
  }
  return by_value;
}

std::optional<Finding> extend(Chain& chain, const WalkContext& context) { return Walker(chain, context).run(); }

}  // namespace fusible
