// load -> normalize -> facts -> match, decide -> rewrite -> regions -> layout -> install -> report, and verify around it.

#include "passes/benefit.h"
#include "passes/dead_code.h"
#include "passes/decide.h"
#include "passes/fixes.h"
#include "passes/install.h"
#include "passes/layout.h"
#include "passes/marks.h"
#include "passes/normalize/normalize.h"
#include "passes/regions.h"
#include "passes/report_notes.h"
#include "passes/rewrite.h"
#include "passes/sample.h"
#include "passes/selection.h"
#include "passes/stopwatch.h"
#include "passes/tune.h"
#include "passes/verify.h"

namespace fusible {

namespace {

// Everything up to the decisions: what lint reports and fuse applies.
struct Analysis {
  Model model;
  std::vector<std::unique_ptr<Facts>> facts;  // one per method
  std::vector<Decision> decisions;
  std::vector<Verdict> verdicts;
};

std::vector<Verdict> undecided(const Model& model) {
  std::vector<Verdict> verdicts;
  for (std::size_t i = 0; i < model.candidates.size(); ++i) {
    Verdict verdict;
    verdict.candidate = static_cast<int>(i);
    verdict.site = model.candidates[i].site;
    if (!model.opaque.empty()) verdict.code = codes::foreign_region.id;
    else if (!model.candidates[i].node) verdict.code = codes::unreachable.id;
    verdicts.push_back(std::move(verdict));
  }
  return verdicts;
}

// A constant that stands for an attribute and is written, in any method, is no constant in every method.
void collect_written_storages(Analysis& analysis) {
  auto& model = analysis.model;
  std::vector<c10::IValue> written;
  for (const auto& [owner, name] : model.assigned) written.push_back(owner->getAttr(name));
  for (std::size_t m = 0; m < model.methods.size(); ++m) {
    const auto& facts = *analysis.facts[m];
    for (const auto& [constant, attribute] : model.methods[m].tensor_attributes) {
      if (facts.is_written(constant)) written.push_back(attribute.owner->getAttr(attribute.name));
    }
    for_each_node(model.methods[m].graph->block(), [&](Node* node) {
      if (!may_train(node)) return;
      for (int statistic : {3, 4}) {
        if (const auto* value = facts.constant(node->input(statistic))) written.push_back(*value);
      }
    });
  }
  for (const auto& value : written) add_storages(value, model.written_storages);
}

// `edit` changes the canonical graphs before they are decided on.
Analysis analyse(const Module& module, const Options& options, const patterns::Matcher& matcher, const Declined& declined, Stopwatch& clock,
                 const std::function<void(Model&)>& edit = nullptr) {
  Analysis analysis;
  clock.stage("load", 0.0);
  analysis.model = load(module, options);
  clock.stage("normalize", 0.1);
  normalize(analysis.model, matcher);
  if (edit) edit(analysis.model);
  analysis.verdicts = undecided(analysis.model);
  analysis.decisions.resize(analysis.model.methods.size());
  if (!analysis.model.opaque.empty()) return analysis;
  clock.stage("facts", 0.2);
  for (const auto& method : analysis.model.methods)
    analysis.facts.push_back(std::make_unique<Facts>(method, analysis.model.written_storages));
  collect_written_storages(analysis);
  clock.stage("decide", 0.3);
  for (std::size_t m = 0; m < analysis.model.methods.size(); ++m) {
    analysis.decisions[m] = decide(analysis.model, analysis.model.methods[m], *analysis.facts[m], matcher, options, declined, analysis.verdicts);
  }
  return analysis;
}

// Tries the fix of each cause on a clone of the module, an edited copy of its graph or with other options, and decides anew.
class FixCheck {
 public:
  FixCheck(const Analysis& analysis, const Options& options, const patterns::Matcher& matcher) : analysis_(analysis), options_(options), matcher_(matcher) {}

  void run(std::vector<Finding>& findings, std::size_t method) {
    for (auto& finding : findings) {
      const auto trial = finding.producer ? trial_of(finding) : std::nullopt;
      if (!trial) continue;
      if (trial->edit && finding.fix.kind == Fix::Kind::none) finding.fix = {Fix::Kind::model_edit, finding.help, false};
      const auto cause = cause_of(finding, site_of(finding.producer, analysis_.model.methods[method].name));
      auto known = known_.find(cause);
      if (known == known_.end() && known_.size() < kMostTrials) known = known_.emplace(cause, works(finding, *trial, method)).first;
      finding.fix.verified = known != known_.end() && known->second;
    }
  }

 private:
  static constexpr std::size_t kMostTrials = 16;  // each decides on the whole model once more

  bool works(const Finding& finding, const FixTrial& trial, std::size_t method) const {
    Stopwatch unheard{Options{}};
    Options options = options_;
    options.progress = nullptr;
    if (trial.options) trial.options(options);
    if (trial.eval) {
      Module clone = analysis_.model.source.clone(/*inplace=*/true);
      clone.eval();
      return fuses_again(finding, analyse(clone, options, matcher_, {}, unheard), method);
    }
    std::optional<Finding> there;
    const auto edited = analyse(analysis_.model.source, options, matcher_, {}, unheard, [&](Model& model) {
      there = same_place(finding, analysis_.model.methods[method], model.methods[method]);
      if (there && trial.edit && !trial.edit(*there)) there.reset();
    });
    if (!there || edited.decisions.size() <= method) return false;
    std::unordered_set<const Node*> claimed;
    for (const auto& chain : edited.decisions[method].chains) {
      const auto nodes = chain.nodes();
      claimed.insert(nodes.begin(), nodes.end());
    }
    const auto wanted = there->blocked.empty() ? std::vector<Node*>{there->producer} : there->blocked;
    return std::all_of(wanted.begin(), wanted.end(), [&](const Node* node) { return claimed.count(node) != 0; });
  }

  // Another mode leaves another graph: the candidates of the raw graph are the same.
  bool fuses_again(const Finding& finding, const Analysis& tried, std::size_t method) const {
    const auto& candidates = analysis_.model.methods[method].candidate_of;
    const auto candidate = candidates.find(finding.blocked.empty() ? finding.producer : finding.blocked[0]);
    return candidate != candidates.end() && tried.verdicts.size() == analysis_.verdicts.size() &&
           tried.verdicts[candidate->second].status == Status::fused;
  }

  const Analysis& analysis_;
  const Options& options_;
  const patterns::Matcher& matcher_;
  std::map<std::string, bool> known_;
};

// The method that example_inputs are for: forward, or the first that was asked for.
std::string example_method(const Model& model, const Options& options) {
  return options.methods.empty() || model.source.find_method("forward") ? "forward" : options.methods[0];
}

// `linting`: fixes are tried and, when asked for, savings measured.
Report report_of(const Analysis& analysis, const Options& options, const patterns::Matcher& matcher, Stopwatch& clock, bool linting) {
  Report report;
  FixCheck fixes(analysis, options, matcher);
  Sampler sampler(options, matcher, [&] { clock.stage("sample", 0.95); });
  bool wanted = false, shapes_known = false;
  report.torch_version = built_for_torch();
  report.model = options.model_path;
  report.origin = analysis.model.origin;
  std::vector<std::vector<Finding>> findings;
  for (std::size_t m = 0; m < analysis.model.methods.size(); ++m) {
    const auto& method = analysis.model.methods[m];
    if (method.treated) report.methods.push_back(method.name);
    findings.push_back(method.treated ? analysis.decisions[m].findings : std::vector<Finding>{});
    if (findings.back().empty()) continue;
    if (linting) fixes.run(findings.back(), m);
    const bool exemplified = options.example_inputs && method.name == example_method(analysis.model, options);
    const auto sizes = sizes_on_meta(analysis.model, method, exemplified ? &*options.example_inputs : nullptr);
    estimate_benefits(findings.back(), sizes, matcher, *analysis.facts[m]);
    wanted |= linting && options.sample;
    shapes_known |= !sizes.of.empty();
    if (linting && options.sample) sampler.measure(findings.back(), analysis.decisions[m], sizes, *analysis.facts[m]);
  }
  if (wanted && !shapes_known)
    throw Error("sample: shapes to measure with were needed, none were given and none were recorded: pass example_inputs (--input 1,3,224,224)");
  report.verdicts = analysis.verdicts;
  report.diagnostics = group(analysis.model, findings);
  add_module_notes(report, analysis.model);
  suppress_codes(report, options);
  report.timings_ms = clock.timings();
  return report;
}

Built apply(Analysis&& analysis, const Options& options, Stopwatch& clock) {
  Built built;
  if (!analysis.model.opaque.empty()) {
    built.module = copy_with_its_parameters(analysis.model.source);
    return built;
  }
  std::vector<std::vector<Sequence>> sequences(analysis.model.methods.size());
  for (std::size_t m = 0; options.tune && m < sequences.size(); ++m)
    for (const auto& chain : analysis.decisions[m].chains) {
      const auto& method = analysis.model.methods[m];
      sequences[m].push_back({{method.name, analysis.facts[m]->order(chain.anchor)}, site_of(chain.anchor, method.name), chain.pattern(), "", nullptr});
    }
  clock.stage("rewrite", 0.5);
  PackedStore store;
  for (std::size_t m = 0; m < analysis.model.methods.size(); ++m) {
    rewrite(analysis.model.methods[m], analysis.decisions[m], options, store);
    forget_dead(analysis.model, analysis.model.methods[m]);
  }
  clock.stage("regions", 0.6);
  for (auto& method : analysis.model.methods) {
    form_regions(analysis.model, method, store, built.regions);
    forget_dead(analysis.model, method);
  }
  clock.stage("layout", 0.65);
  for (auto& method : analysis.model.methods) choose_layout(method, store.objects());
  clock.stage("install", 0.7);
  built.module = install(analysis.model, store, built.regions);
  for (std::size_t m = 0; m < sequences.size(); ++m)
    for (std::size_t c = 0; c < sequences[m].size(); ++c) {
      Sequence& sequence = built.sequences.emplace_back(std::move(sequences[m][c]));
      const auto& chain = analysis.decisions[m].chains[c];
      sequence.attribute = store.add(chain.spec, affines_of(chain));  // is there already
      sequence.contraction = store.objects().at(sequence.attribute);
    }
  return built;
}

// Nothing is fused; marks tell of the sequences.
Module marked_original(Analysis&& analysis, const std::map<Place, int>& owner) {
  for (std::size_t m = 0; m < analysis.decisions.size(); ++m) {
    std::unordered_map<const Node*, int> owners;
    for (const auto& chain : analysis.decisions[m].chains) {
      const auto found = owner.find({analysis.model.methods[m].name, analysis.facts[m]->order(chain.anchor)});
      if (found == owner.end()) continue;
      for (const Node* node : chain.nodes()) owners[node] = found->second;
    }
    mark(*analysis.model.methods[m].graph, [&](const Node* node) { return owners.count(node) ? owners.at(node) : kNobody; });
  }
  return install(analysis.model, {}, {});
}

// The rules and chains that an analysis would apply, in a fixed order: what bisection halves.
std::vector<Place> identities(const Analysis& analysis) {
  std::vector<Place> all;
  for (std::size_t m = 0; m < analysis.decisions.size(); ++m) {
    for (const auto& rule : analysis.decisions[m].rules) all.emplace_back(analysis.model.methods[m].name, analysis.facts[m]->order(rule.match.root));
    for (const auto& chain : analysis.decisions[m].chains) all.emplace_back(analysis.model.methods[m].name, analysis.facts[m]->order(chain.anchor));
    for (const auto& [node, weights] : analysis.decisions[m].recurrences) all.emplace_back(analysis.model.methods[m].name, analysis.facts[m]->order(node));
  }
  return all;
}

// Finds the sequences that change the result, one at a time: the shortest prefix of applied chains that differs ends with a guilty one.
class Verifier {
 public:
  Verifier(const Module& module, const Options& options, const patterns::Matcher& matcher, Stopwatch& clock)
      : module_(module), options_(options), matcher_(matcher), clock_(clock) {}

  Declined guilty(std::string& why) {
    Declined found;
    for (;;) {
      // Anew in each round: a chain may take the nodes of a rule that was declined.
      const auto all = identities(analyse(module_, options_, matcher_, found, clock_));
      if (all.empty() || !differs(found, why)) break;
      std::size_t low = 0, high = all.size();  // applying all[0, low) is right, all[0, high) is not
      while (high - low > 1) {
        const std::size_t middle = (low + high) / 2;
        Declined trial = found;
        for (std::size_t i = middle; i < all.size(); ++i) trial.emplace(all[i], changes_the_result());
        std::string ignored;
        (differs(trial, ignored) ? high : low) = middle;
      }
      if (!found.emplace(all[low], changes_the_result()).second) break;
    }
    return found;
  }

 private:
  static Decline changes_the_result() {
    return {codes::verification_failed, "the original's result on the example inputs", "a different one", "report it with the model: the sequence runs unfused", {}};
  }

  bool differs(const Declined& declined, std::string& why) {
    const auto built = apply(analyse(module_, options_, matcher_, declined, clock_), options_, clock_);
    clock_.stage("verify", 0.8);
    const auto comparison = compare(module_, built.module, *options_.example_inputs);
    if (comparison.outcome != Comparison::Outcome::different) return false;
    why = comparison.why;
    return true;
  }

  const Module& module_;
  const Options& options_;
  const patterns::Matcher& matcher_;
  Stopwatch& clock_;
};

std::shared_ptr<const patterns::Matcher> matcher_for(const Options& options) {
  const auto library = patterns::library();
  if (options.patterns.empty()) return check_selection(options, *library), patterns::matcher();
  const auto extended = std::make_shared<patterns::Library>(*library);
  for (std::size_t i = 0; i < options.patterns.size(); ++i) patterns::parse_into(*extended, options.patterns[i], "patterns[" + std::to_string(i) + "]");
  check_selection(options, *extended);
  return std::make_shared<const patterns::Matcher>(extended);
}

bool wants_verify(const Module& module, const Options& options) {
  const bool runnable = options.example_inputs && module.find_method("forward");
  if (options.verify.value_or(false) && !runnable)
    throw Error("verify=True: example_inputs for the method forward were needed, none were given: pass example_inputs=(...)");
  return options.verify.value_or(true) && runnable;
}

Report lint_new(const Module& module, const Options& options, Stopwatch& clock) {
  const auto held = matcher_for(options);
  const patterns::Matcher& matcher = *held;
  const auto analysis = analyse(module, options, matcher, {}, clock);
  clock.stage("report", 0.9);
  auto result = report_of(analysis, options, matcher, clock, /*linting=*/true);
  clock.finish();
  result.timings_ms = clock.timings();
  return result;
}

Tuned tuned_for(const Module& module, const Options& options, const patterns::Matcher& matcher, Declined& declined, Stopwatch& clock, Timing* timing) {
  Clock measured(*options.example_inputs, [&] { clock.stage("tune", 0.85); });
  const auto fused = [&](const Declined& without) { return apply(analyse(module, options, matcher, without, clock), options, clock); };
  const auto marked = [&](const Declined& without, const std::map<Place, int>& owner) {
    return marked_original(analyse(module, options, matcher, without, clock), owner);
  };
  return tune({module, fused, marked}, declined, timing ? *timing : measured);
}

Fused fuse_new(const Module& module, const Options& options, Stopwatch& clock, Timing* timing) {
  const bool verify = wants_verify(module, options);
  const auto held = matcher_for(options);
  const patterns::Matcher& matcher = *held;
  Declined declined;
  std::string why, unverifiable;
  if (verify) {
    const Module trial = apply(analyse(module, options, matcher, {}, clock), options, clock).module;
    clock.stage("verify", 0.8);
    const auto comparison = compare(module, trial, *options.example_inputs);
    if (comparison.outcome != Comparison::Outcome::different) unverifiable = comparison.why;
    else declined = Verifier(module, options, matcher, clock).guilty(why);
  }
  Tuned tuned;
  if (options.tune) tuned = tuned_for(module, options, matcher, declined, clock, timing);
  auto analysis = analyse(module, options, matcher, declined, clock);
  Report result = report_of(analysis, options, matcher, clock, /*linting=*/false);  // before the rewrite: findings point into the graphs
  const Built built = apply(std::move(analysis), options, clock);
  carry(tuned, built);
  if (verify && !tuned.choices.empty()) {
    clock.stage("verify", 0.9);
    // Every way gives what the operators one by one give, so this finds a fault of ours: it costs the choices, not the result.
    if (compare(module, built.module, *options.example_inputs).outcome == Comparison::Outcome::different) forget(tuned, built);
  }
  if (options.tune) result.tuning = tuned.report;
  clock.stage("report", 0.95);
  add_verify_notes(result, unverifiable, why);
  clock.finish();
  result.timings_ms = clock.timings();
  Fused fused{built.module, std::move(result)};
  set_report(fused.module, fused.report.to_json());
  return fused;
}

// Of a module that fuse made.
Fused copied(const Module& module, Report stored, const Options& options) {
  const auto is_ours = [](const Verdict& verdict) { return verdict.emitted.rfind("fusible::", 0) == 0; };
  if (options.target == "aten" && std::any_of(stored.verdicts.begin(), stored.verdicts.end(), is_ours))
    throw Error("target=\"aten\": the original module was needed, found one that was fused for target=\"cpu\": fuse the original with target=\"aten\"");
  add_already_fused(stored, options);
  Fused fused{copy_with_its_parameters(module), std::move(stored)};
  set_report(fused.module, fused.report.to_json());
  return fused;
}

}  // namespace

Report lint(const Module& module, const Options& options) {
  if (auto stored = report(module)) {
    add_already_fused(*stored, options);
    return *stored;
  }
  Stopwatch clock(options);
  return clock.watch("lint", [&] { return lint_new(module, options, clock); });
}

Fused fuse(const Module& module, const Options& options, Timing* timing) {
  Stopwatch clock(options);
  return clock.watch("fuse", [&] {
    if (options.tune) check_tune(module, options);
    if (auto stored = report(module)) return options.tune ? tuned_again({module, *stored}, options, clock, timing) : copied(module, *stored, options);
    return fuse_new(module, options, clock, timing);
  });
}

Fused fuse(const Module& module, const Options& options) { return fuse(module, options, nullptr); }

std::optional<Report> report(const Module& module) {
  if (!module.hasattr(kReportAttribute)) return std::nullopt;
  return Report::from_json(module.attr(kReportAttribute).toStringRef());
}

}  // namespace fusible
