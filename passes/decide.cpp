#include "passes/decide.h"
#include "passes/dependence.h"
#include "passes/products.h"
#include "passes/selection.h"

namespace fusible {

namespace {

using patterns::Entry;
using patterns::View;

class Decider {
 public:
  Decider(const Model& model, const MethodGraph& method, const Facts& facts, const patterns::Matcher& matcher, const Options& options,
          const Declined& declined, std::vector<Verdict>& verdicts)
      : model_(model), method_(method), facts_(facts), matcher_(matcher), options_(options), declined_(declined), verdicts_(verdicts) {}

  Decision run() {
    match_ = matcher_.match(*method_.graph, facts_.constant_of());
    // Decomposed activations differ from the operator at infinities, where an inner step overflows.
    if (!options_.strict) composites_ = by_start(match_.composites);
    take_rules();
    // Later anchors first: of a sum of two contractions, the one computed last takes it, and the other moves nowhere.
    const auto of_rules = static_cast<std::ptrdiff_t>(decision_.findings.size());
    const auto anchors = contractions_of(*method_.graph, matcher_, facts_);
    for (auto it = anchors.rbegin(); it != anchors.rend(); ++it) {
      if (!claimed_.count(it->root)) take_chain(*it);
    }
    std::reverse(decision_.chains.begin(), decision_.chains.end());
    std::reverse(decision_.findings.begin() + of_rules, decision_.findings.end());
    take_recurrences();
    drop_moot_findings();
    note_shared_weights();
    note_interfaces();
    judge_the_rest();
    return std::move(decision_);
  }

 private:
  // Rules with the same structure are tried in file order; the first that holds is taken.
  void take_rules() {
    for (const auto& match : match_.matches) {
      std::optional<Finding> last;
      for (const auto* rule : *match.rules) {
        AcceptedRule candidate{match, {}};
        candidate.match.rule = rule;
        last = prove_rule(candidate, facts_, claimed_);
        if (!last) last = refuse(candidate);
        if (last) continue;
        accept(std::move(candidate));
        break;
      }
      if (last && last->producer) decision_.findings.push_back(std::move(*last));
    }
    for (const auto& miss : match_.near_misses) note_block_boundary(miss);
  }

  Finding guilty(const patterns::Match& match) const {
    Finding finding{codes::verification_failed};
    finding.pattern = match.rule->name;
    finding.message = match.rule->name + " not fused: it changes the result";
    finding.needed = "the original's result on the example inputs";
    finding.found = "a different one";
    finding.did = "left as it is";
    finding.help = "correct the rule '" + match.rule->name + "' in " + match.rule->file + ": its two sides are not equal";
    finding.matched = finding.steps = static_cast<int>(match.nodes.size());
    finding.producer = match.root;
    return finding;
  }

  // What holds a proven rule back: options, or what verify found.
  std::optional<Finding> refuse(const AcceptedRule& rule) {
    const auto& match = rule.match;
    if (declined_.count({method_.name, facts_.order(match.root)})) {
      for (Node* node : match.nodes) {
        if (Verdict* verdict = verdict_of(node)) verdict->code = codes::verification_failed.id;
      }
      return guilty(match);
    }
    if (facts_.is_autocast(match.root)) return finding_of(match, codes::dtype, autocast().needed, autocast().found);
    if (options_.strict && !match.rule->exact)
      return finding_of(match, codes::strict_numerics, "a rule that says `numerics exact`", "one that does not: its result may round differently");
    if (options_.target == "aten") {
      for (const auto& operation : match.rule->emit) {
        if (operation.op.find("::") == std::string::npos || operation.op.rfind("aten::", 0) == 0 || operation.op.rfind("prim::", 0) == 0) continue;
        return finding_of(match, codes::target_lacks_operator, "operators of torch alone (target=\"aten\")", operation.op);
      }
    }
    return std::nullopt;
  }

  void accept(AcceptedRule rule) {
    const auto& match = rule.match;
    claimed_.insert(match.nodes.begin(), match.nodes.end());
    const bool leave = is_suppressed(match.rule->name, options_);
    std::vector<Node*> nodes = match.nodes;
    // The first candidate's verdict names what else was absorbed.
    const auto rank = [this](const Node* node) { return std::make_pair(candidate_of(node) < 0, facts_.order(node)); };
    std::sort(nodes.begin(), nodes.end(), [&](const Node* a, const Node* b) { return rank(a) < rank(b); });
    for (Node* node : nodes) {
      Verdict* verdict = verdict_of(node);
      if (!verdict) continue;
      if (leave) *verdict = suppressed(std::move(*verdict), match.rule->name);
      else mark_fused(*verdict, match.rule->name, match.rule->emit.back().op, nodes, node);
    }
    if (!leave) decision_.rules.push_back(std::move(rule));
  }

  // The matcher stops at blocks; when what it looked for stands on the other side, that is worth a word.
  void note_block_boundary(const patterns::NearMiss& miss) {
    const std::string found = miss.found->kind().toQualString();
    if (miss.found->owningBlock() == miss.root->owningBlock() || miss.expected.rfind(found + " ", 0) != 0) return;
    patterns::Match match;
    match.rule = miss.rule;
    match.root = miss.root;
    match.nodes = {miss.found};
    auto finding = finding_of(match, codes::block_boundary, "the whole sequence in one block", found + " stands in another block");
    finding.matched = miss.matched;
    finding.steps = static_cast<int>(miss.rule->match.size());
    decision_.findings.push_back(std::move(finding));
  }

  void take_chain(const View& view) {
    if (facts_.is_autocast(view.root)) return decline(view.root, view.entry->name, autocast());
    auto read = read_contraction(view, facts_);
    if (read.decline) {
      const bool plain = read.decline->code.id == codes::weight_not_constant.id && is_plain_product(view.root);
      return decline(view.root, view.entry->name, plain ? plain_product() : *read.decline);
    }
    Chain chain = std::move(*read.value);
    const WalkContext context{facts_, matcher_, composites_, claimed_, options_.strict};
    auto finding = extend(chain, context);
    if (options_.target == "aten") limit_to_stock(chain, finding);
    const std::string pattern = chain.pattern();
    if (finding) {
      finding->candidate = candidate_of(view.root);
      decision_.findings.push_back(std::move(*finding));
    }
    if (const auto found = declined_.find({method_.name, facts_.order(view.root)}); found != declined_.end()) {
      for (const auto& step : chain.steps) {
        for (Node* node : step.nodes) {
          if (Verdict* verdict = verdict_of(node)) verdict->code = found->second.code.id;
        }
      }
      return decline(view.root, pattern, found->second);
    }
    if (is_suppressed(pattern, options_)) {
      for (Node* node : chain.nodes()) {
        claimed_.insert(node);
        if (Verdict* verdict = verdict_of(node)) *verdict = suppressed(std::move(*verdict), pattern);
      }
      return;
    }
    if (options_.target == "aten" && chain.steps.empty()) {
      return decline(view.root, pattern, {codes::nothing_to_fuse, "a constant affine step or batch_norm to fold", "none that stock operators can take in",
                                          "use target=\"cpu\" for fused activations and sums", {Fix::Kind::option, "target=\"cpu\"", false}});
    }
    for (Node* node : chain.nodes()) claimed_.insert(node);
    for (Node* node : chain.nodes()) {
      if (Verdict* verdict = verdict_of(node)) mark_fused(*verdict, pattern, emitted(chain), chain.nodes(), node);
    }
    decision_.chains.push_back(std::move(chain));
  }

  static Decline autocast() {
    return {codes::dtype, "operands whose dtype the model fixes", "torch.autocast, which casts them when the model runs",
            "take autocast out of the model and convert it with .to(torch.bfloat16), or leave it to the caller", {}};
  }

  // No candidates: nothing stands beside them in a sequence.
  void take_recurrences() {
    for_each_node(method_.graph->block(), [&](Node* node) {
      if (!method_.treated || !is_recurrent(node) || options_.target == "aten") return;
      const std::string name = node->kind().toUnqualString();
      if (is_suppressed(name, options_)) return;
      if (facts_.is_autocast(node)) return decline(node, name, autocast());
      auto read = read_recurrence(node, facts_);
      if (const auto found = declined_.find({method_.name, facts_.order(node)}); read.value && found != declined_.end()) read.decline = found->second;
      if (read.decline) return decline(node, name, *read.decline);
      decision_.recurrences.push_back(std::move(*read.value));
    });
  }

  // Of two activations, with nothing behind it that a fused operator would take in: nothing was missed.
  bool is_plain_product(Node* product) const {
    const auto& uses = product->output()->uses();
    const auto next = uses.size() == 1 && uses[0].user->kind() != torch::jit::prim::Return ? matcher_.view(uses[0].user, facts_.constant_of()) : std::nullopt;
    return !(next && next->entry->is_unary()) && product->inputs().size() >= 2 && depends_on_inputs(product->input(0)) && depends_on_inputs(product->input(1));
  }

  static Decline plain_product() {
    return {codes::nothing_to_fuse, "a constant weight, or an activation behind the product", "a product of two values that are computed at run time",
            "nothing to do: the products of attention are like this", {}};
  }

  static Verdict suppressed(Verdict verdict, const std::string& pattern) {
    verdict.status = Status::suppressed;
    verdict.pattern = pattern;
    verdict.code = codes::ignored.id;
    return verdict;
  }

  // target="aten": only folds, and only those that hold for every input rank (there is no fused operator to fall back in).
  void limit_to_stock(Chain& chain, std::optional<Finding>& finding) const {
    const std::int64_t batched = chain.spec.kind == Contraction::linear ? 1 : chain.spec.weight.dim() - 1;
    std::size_t kept = 0;
    for (const auto& step : chain.steps) {
      const bool norm = step.affine && step.name == "batch_norm" && chain.spec.kind != Contraction::linear;
      const bool any_rank = step.affine && step.name != "batch_norm" &&
                            std::all_of(step.affine->operands.begin(), step.affine->operands.end(),
                                        [&](const at::Tensor& t) { return t.dim() == 0 || t.dim() == batched; });
      if (!norm && !any_rank) break;
      ++kept;
    }
    if (kept == chain.steps.size()) return;
    const std::string whole = chain.pattern(), next = chain.steps[kept].name;
    Finding rest{codes::target_lacks_operator};
    for (std::size_t i = kept; i < chain.steps.size(); ++i) rest.blocked.insert(rest.blocked.end(), chain.steps[i].nodes.begin(), chain.steps[i].nodes.end());
    chain.steps.resize(kept);
    rest.pattern = whole;
    rest.message = whole + " fused up to " + chain.pattern() + ": no stock operator takes in " + next;
    rest.needed = "a fused operator for " + next;
    rest.found = "target=\"aten\", which emits stock operators only";
    rest.did = next + " left as it is";
    rest.help = "use target=\"cpu\" where libfusible can be loaded";
    rest.fix = {Fix::Kind::option, "target=\"cpu\"", false};
    rest.matched = static_cast<int>(kept) + 1;
    rest.steps = rest.matched + 1;
    rest.producer = chain.root();
    finding = std::move(rest);
  }

  std::string emitted(const Chain& chain) const {
    return (options_.target == "aten" ? "aten::" : "fusible::") + chain.entry->name;
  }

  void mark_fused(Verdict& verdict, const std::string& pattern, const std::string& emitted, const std::vector<Node*>& nodes, const Node* self) {
    verdict.status = Status::fused;
    verdict.pattern = pattern;
    verdict.emitted = emitted;
    verdict.code.clear();
    if (nodes.front() != self) return;
    for (Node* node : nodes) {
      if (node != self) verdict.absorbed.push_back(site_of(node, method_.name));
    }
  }

  void decline(Node* anchor, const std::string& pattern, const Decline& reason) {
    Finding finding{reason.code};
    finding.message = pattern + " not fused: " + reason.found;
    finding.needed = reason.needed;
    finding.found = reason.found;
    finding.help = reason.help;
    finding.fix = reason.fix;
    finding.did = "left as it is";
    finding.pattern = pattern;
    finding.steps = 1;
    finding.producer = anchor;
    finding.candidate = candidate_of(anchor);
    if (Verdict* verdict = verdict_of(anchor)) {
      verdict->code = reason.code.id;
      verdict->pattern = pattern;
    }
    decision_.findings.push_back(std::move(finding));
  }

  void drop_moot_findings() {
    std::erase_if(decision_.findings, [&](const Finding& finding) {
      return !finding.blocked.empty() &&
             std::all_of(finding.blocked.begin(), finding.blocked.end(), [&](Node* node) { return claimed_.count(node) != 0; });
    });
    for (auto& finding : decision_.findings) {
      std::erase_if(finding.blocked, [&](Node* node) { return claimed_.count(node) != 0; });
      for (Node* node : finding.blocked) {
        if (Verdict* verdict = verdict_of(node); verdict && verdict->code.empty() && verdict->status != Status::fused) {
          verdict->code = finding.code.id;
          verdict->pattern = finding.pattern;
        }
      }
    }
  }

  // Each fold makes its own copy of the weights.
  void note_shared_weights() {
    std::map<const void*, std::vector<const Chain*>> users;
    for (const auto& chain : decision_.chains) {
      if (!chain.steps.empty() && chain.steps[0].affine) users[chain.spec.weight.data_ptr()].push_back(&chain);
    }
    for (const auto& [weight, chains] : users) {
      if (chains.size() < 2) continue;
      Finding finding{codes::shared_weight};
      finding.message = "one weight is used by " + std::to_string(chains.size()) + " sequences with different folds: each got a copy of its own";
      finding.needed = "one fold per weight, to keep one copy";
      finding.found = std::to_string(chains.size()) + " sequences share it";
      finding.did = "fused all of them, with a copy of the weight for each";
      finding.help = "nothing is wrong; the fused model holds the weight " + std::to_string(chains.size()) + " times";
      finding.pattern = chains[0]->pattern();
      finding.matched = finding.steps = static_cast<int>(chains[0]->steps.size()) + 1;
      finding.producer = chains[0]->anchor;
      finding.candidate = candidate_of(chains[0]->anchor);
      for (std::size_t i = 1; i < chains.size(); ++i) finding.related.push_back({"the same weight", chains[i]->anchor});
      decision_.findings.push_back(std::move(finding));
    }
  }

  void note_interfaces() {
    for_each_node(method_.graph->block(), [&](Node* node) {
      if (node->kind() != torch::jit::prim::CallMethod) return;
      Finding finding{codes::interface_call};
      finding.message = "a submodule called through an interface was left alone";
      finding.needed = "a module whose code is known when the model is fused";
      finding.found = "a call of '" + node->s(torch::jit::attr::name) + "' through interface " + node->input(0)->type()->repr_str();
      finding.did = "kept the submodule with its own methods, unfused";
      finding.help = "call the module directly where its type is fixed, or fuse the submodule by itself";
      finding.pattern = "interface";
      finding.producer = node;
      decision_.findings.push_back(std::move(finding));
    });
  }

  // Candidates that nothing spoke of yet.
  void judge_the_rest() {
    for (std::size_t index = 0; index < model_.candidates.size(); ++index) {
      Node* candidate = model_.candidates[index].node;
      Verdict& verdict = verdicts_[index];
      if (!candidate || candidate_of(candidate) != static_cast<int>(index) || verdict.status != Status::declined || !verdict.code.empty()) continue;
      if (candidate->kind() != torch::jit::aten::batch_norm) {
        decline(candidate, verdict.site.op.substr(6), is_plain_product(candidate) ? plain_product() : of_product(candidate, facts_));
        continue;
      }
      // What the batch_norm itself is (training, no statistics) says more than what stands before it.
      auto view = matcher_.view(candidate, facts_.constant_of());
      ContractionSpec own;
      const auto* mean = view ? facts_.constant_tensor((*view)["running_mean"]) : nullptr;
      own.kind = Contraction::linear;
      own.weight = mean ? at::empty({mean->numel(), 0}, mean->options()) : at::empty({0, 0});
      if (view) {
        auto decided = batch_norm_affine(*view, own, facts_);
        if (decided.decline) {
          decline(candidate, "batch_norm", *decided.decline);
          continue;
        }
      }
      const Value* x = candidate->input(0);
      const auto before = matcher_.view(const_cast<Node*>(x->node()), facts_.constant_of());
      const std::string op = x->node()->kind().toQualString();
      const bool behind_contraction = before && before->entry->kind == Entry::Kind::contraction;
      if (behind_contraction && x->uses().size() > 1) {
        decline(candidate, "batch_norm", {codes::second_use, "exactly 1 use of the result of " + op,
                                          std::to_string(x->uses().size()) + " uses of the result of " + op,
                                          "give each batch_norm a convolution of its own, or accept it", {}});
        continue;
      }
      decline(candidate, "batch_norm", {codes::no_contraction, "a convolution or linear whose result only this batch_norm uses",
                                        op + " before it" + (behind_contraction ? ", which is not fused itself" : ""),
                                        behind_contraction ? "mend what keeps " + op + " from being fused: it has a finding of its own"
                                                           : "nothing to fold it into; accept it", {}});
    }
  }

  int candidate_of(const Node* node) const {
    auto it = method_.candidate_of.find(node);
    return it == method_.candidate_of.end() ? -1 : it->second;
  }
  Verdict* verdict_of(const Node* node) {
    const int index = candidate_of(node);
    return index < 0 ? nullptr : &verdicts_[index];
  }

  const Model& model_;
  const MethodGraph& method_;
  const Facts& facts_;
  const patterns::Matcher& matcher_;
  const Options& options_;
  const Declined& declined_;
  std::vector<Verdict>& verdicts_;
  patterns::Matcher::Result match_;
  Composites composites_;
  std::unordered_set<const Node*> claimed_;
  Decision decision_;
};

}  // namespace

Decision decide(const Model& model, const MethodGraph& method, const Facts& facts, const patterns::Matcher& matcher, const Options& options,
                const Declined& declined, std::vector<Verdict>& verdicts) {
  return Decider(model, method, facts, matcher, options, declined, verdicts).run();
}

}  // namespace fusible
