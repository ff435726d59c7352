#include "passes/tune.h"

#include <numeric>
#include <set>
#include <sstream>

#include <ATen/Parallel.h>
#include <ATen/core/custom_class.h>

#include "passes/install.h"
#include "passes/marks.h"
#include "passes/rewrite.h"

namespace fusible {

namespace {

constexpr double kClearGain = 1.03;
constexpr int kAttempts = 3;  // what was left behind may lose in its turn

double quantile(std::vector<double> list, double share) {
  std::sort(list.begin(), list.end());
  const double at = share * static_cast<double>(list.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const double rest = at - static_cast<double>(below);
  return below + 1 < list.size() ? list[below] * (1 - rest) + list[below + 1] * rest : list[below];
}

// Contractions that run as one where nothing is asked for are judged as one.
struct Unit {
  std::vector<Trial::Met> met;
  Way usual = Way::panels;
  std::array<std::vector<double>, 4> seconds;  // per round
  std::array<bool, 4> possible{true, true, true, true};
};

constexpr std::array kAskedWays{Way::panels, Way::onednn, Way::aten};

std::vector<Unit> units_of(const std::vector<WayRound>& rounds) {
  std::vector<Unit> units;
  std::map<Trial::Met, std::size_t> unit_of;
  if (rounds.empty()) return units;
  for (const auto& seen : rounds[0].runs[0]) {
    if (std::any_of(seen.met.begin(), seen.met.end(), [&](const auto& met) { return unit_of.count(met) != 0; })) continue;
    for (const auto& met : seen.met) unit_of[met] = units.size();
    units.push_back({seen.met, seen.way, {}, {true, true, true, true}});
  }
  for (const auto& round : rounds)
    for (std::size_t run = 0; run < round.runs.size(); ++run) {
      for (Unit& unit : units) unit.seconds[run].push_back(0);
      for (const auto& seen : round.runs[run])
        for (const auto& met : seen.met) {
          const auto found = unit_of.find(met);
          if (found == unit_of.end()) continue;
          Unit& unit = units[found->second];
          // Of contractions that run as one each has its share.
          unit.seconds[run].back() += seen.seconds / static_cast<double>(seen.met.size());
          if (run && seen.way != kAskedWays[run - 1]) unit.possible[run] = false;
        }
    }
  for (Unit& unit : units)
    for (std::size_t run = 0; run < unit.seconds.size(); ++run)
      for (double seconds : unit.seconds[run])
        if (seconds <= 0) unit.possible[run] = false;  // a model that does not run the same each time
  return units;
}

std::vector<std::set<const PackedContraction*>> members_of(const Regions& regions) {
  std::vector<std::set<const PackedContraction*>> members;
  for (const auto& [name, region] : regions) {
    members.emplace_back();
    for (const auto& contraction : region->contractions()) members.back().insert(contraction.get());
  }
  return members;
}

// What runs as one: the number of the block that each attribute of the root (packed weights or a region) belongs to.
struct Blocks {
  std::map<std::string, int> of;
  int count = 0;

  explicit Blocks(const Built& built) {
    const auto members = members_of(built.regions);
    for (const auto& sequence : built.sequences) {
      std::set<std::string> names{sequence.attribute};
      std::size_t r = 0;
      for (const auto& [name, region] : built.regions)
        if (members[r++].count(sequence.contraction.get())) names.insert(name);
      join(names);
    }
  }

 private:
  void join(const std::set<std::string>& names) {
    std::set<int> known;
    for (const auto& name : names)
      if (of.count(name)) known.insert(of[name]);
    const int block = known.empty() ? count++ : *known.begin();
    for (auto& [name, number] : of)
      if (known.count(number)) number = block;
    for (const auto& name : names) of[name] = block;
  }
};

Module marked(const Module& fused, const Blocks& blocks) {
  Module copy = fused.clone(/*inplace=*/true);
  mark(*copy.get_method("forward").graph(), [&](const Node* node) {
    const std::string* const name = node->inputs().size() < 2 ? nullptr : name_of_root_attribute(node->input(1));
    if (!name) return kNobody;
    const auto found = blocks.of.find(*name);
    return found == blocks.of.end() ? kNobody : found->second;
  });
  return copy;
}

std::string fixed(double value, int digits) {
  std::ostringstream text;
  text << std::fixed;
  text.precision(digits);
  text << value;
  return text.str();
}

Decline unprofitable(const Ratio& ratio, std::size_t rounds, const std::string& of) {
  return {codes::unprofitable, "at least the speed of the original's operators: a median of 1, or 0.97 in 9 of 10 rounds",
          fixed(ratio.median, 2) + " of their speed, 10th percentile " + fixed(ratio.low, 2) + " of " + std::to_string(rounds) + " rounds, as " + of,
          "nothing to do: the original's operators are faster here; fuse without tune to have the sequence fused all the same", {}};
}

// The sequences that lose, and why.
Declined losers(const Built& built, const Blocks& blocks, const std::vector<BlockRound>& rounds) {
  Declined found;
  const Ratio whole = ratio_of_whole(rounds);
  std::vector<int> members(blocks.count, 0);
  for (const auto& sequence : built.sequences) ++members[blocks.of.at(sequence.attribute)];
  for (const auto& sequence : built.sequences) {
    if (sequence.place.first != "forward") continue;
    const int block = blocks.of.at(sequence.attribute);
    const Ratio ratio = ratio_of_block(rounds, block);
    if (whole.loses()) found.emplace(sequence.place, unprofitable(whole, rounds.size(), "the whole model"));
    else if (ratio.loses())
      found.emplace(sequence.place, unprofitable(ratio, rounds.size(), members[block] > 1 ? "a run of " + std::to_string(members[block]) + " sequences" : "one operator"));
  }
  return found;
}

Choice choice_of(const Trial::Met& met, const Pick& pick) { return {this_machine(), at::get_num_threads(), met.shape, pick.way}; }

TunedSequence told(const Trial::Met& met, const Pick& pick, const Site& site, const std::string& pattern) {
  return {site, pattern, to_string(met.shape), name_of(pick.way), name_of(pick.instead_of), pick.gain, pick.low};
}

Tuning headed(std::size_t rounds) {
  Tuning report;
  report.machine = this_machine();
  report.threads = at::get_num_threads();
  report.rounds = static_cast<int>(rounds);
  return report;
}

}  // namespace

Ratio ratio_of(const std::vector<double>& first, const std::vector<double>& second) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < first.size() && i < second.size(); ++i)
    if (first[i] > 0 && second[i] > 0) ratios.push_back(first[i] / second[i]);
  if (ratios.empty()) return {1, 1, 1};  // did not run: nothing is known against it
  return {quantile(ratios, 0.5), quantile(ratios, 0.1), quantile(ratios, 0.9)};
}

Ratio ratio_of_block(const std::vector<BlockRound>& rounds, std::size_t block) {
  std::vector<double> original, fused;
  for (const auto& round : rounds) {
    original.push_back(round.original.at(block));
    fused.push_back(round.fused.at(block));
  }
  return ratio_of(original, fused);
}

Ratio ratio_of_whole(const std::vector<BlockRound>& rounds) {
  std::vector<double> original, fused;
  for (const auto& round : rounds) {
    original.push_back(round.original_whole);
    fused.push_back(round.fused_whole);
  }
  return ratio_of(original, fused);
}

std::map<Trial::Met, Pick> pick(const std::vector<WayRound>& rounds) {
  std::map<Trial::Met, Pick> picks;
  for (const Unit& unit : units_of(rounds)) {
    std::optional<Pick> best;
    for (std::size_t run = 1; run < unit.seconds.size(); ++run) {
      if (!unit.possible[0] || !unit.possible[run] || kAskedWays[run - 1] == unit.usual) continue;
      const Ratio ratio = ratio_of(unit.seconds[0], unit.seconds[run]);
      if (ratio.low > kClearGain && (!best || ratio.median > best->gain)) best = Pick{kAskedWays[run - 1], unit.usual, ratio.median, ratio.low};
    }
    if (best)
      for (const auto& met : unit.met) picks.emplace(met, *best);
  }
  return picks;
}

bool is_clear(const std::vector<WayRound>& rounds) {
  for (const Unit& unit : units_of(rounds))
    for (std::size_t run = 1; run < unit.seconds.size(); ++run) {
      if (!unit.possible[0] || !unit.possible[run] || kAskedWays[run - 1] == unit.usual) continue;
      const Ratio ratio = ratio_of(unit.seconds[0], unit.seconds[run]);
      if (ratio.low <= kClearGain && ratio.high >= kClearGain) return false;
    }
  return true;
}

void check_tune(const Module& module, const Options& options) {
  if (!options.example_inputs || !module.find_method("forward"))
    throw Error("tune: example_inputs for the method forward were needed, none were given: pass example_inputs=(...) (--input 1,3,224,224)");
  if (options.target != "cpu") throw Error("tune: target=\"cpu\" was needed, found \"" + options.target + "\": stock operators have nothing to choose from");
}

void carry(const Tuned& tuned, const Built& built) {
  for (const auto& sequence : built.sequences)
    if (const auto found = tuned.choices.find(sequence.place); found != tuned.choices.end()) sequence.contraction->choose(found->second);
  for (const auto& [name, region] : built.regions) region->forget_plans();
}

void forget(Tuned& tuned, const Built& built) {
  tuned.choices.clear();
  tuned.report.sequences.clear();
  for (const auto& sequence : built.sequences) sequence.contraction->choose({});
  for (const auto& [name, region] : built.regions) region->forget_plans();
}

Tuned tune(const Builder& builder, Declined& declined, Timing& timing) {
  Built built = builder.fused(declined);
  const auto rounds = timing.ways(built.module);
  Tuned tuned{{}, headed(rounds.size())};
  std::map<Place, std::vector<TunedSequence>> chosen;
  for (const auto& [met, picked] : pick(rounds))
    for (const auto& sequence : built.sequences) {
      if (sequence.contraction.get() != met.contraction) continue;
      tuned.choices[sequence.place].push_back(choice_of(met, picked));
      chosen[sequence.place].push_back(told(met, picked, sequence.site, sequence.pattern));
    }
  carry(tuned, built);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const Blocks blocks(built);
    tuned.report.ratio = tuned.report.low = 0;
    if (built.sequences.empty()) break;
    std::map<Place, int> owner;
    for (const auto& sequence : built.sequences) owner[sequence.place] = blocks.of.at(sequence.attribute);
    const auto raced = timing.race({builder.original, builder.marked(declined, owner), built.module, marked(built.module, blocks), static_cast<std::size_t>(blocks.count)});
    const Ratio whole = ratio_of_whole(raced);
    tuned.report.rounds = std::max(tuned.report.rounds, static_cast<int>(raced.size()));
    tuned.report.ratio = whole.median;
    tuned.report.low = whole.low;
    const Declined lost = losers(built, blocks, raced);
    if (lost.empty()) break;
    declined.insert(lost.begin(), lost.end());
    tuned.report.ratio = tuned.report.low = 0;
    built = builder.fused(declined);
    carry(tuned, built);
  }
  for (const auto& [place, sequences] : chosen)
    if (!declined.count(place)) tuned.report.sequences.insert(tuned.report.sequences.end(), sequences.begin(), sequences.end());
  return tuned;
}

Fused tuned_again(Fused fused, const Options& options, Stopwatch& clock, Timing* given) {
  Clock measured(*options.example_inputs, [&] { clock.stage("tune", 0.5); });
  Timing& timing = given ? *given : measured;
  fused.module = fused.module.deepcopy();
  std::map<const PackedContraction*, c10::intrusive_ptr<PackedContraction>> contractions;
  std::vector<c10::intrusive_ptr<Region>> regions;
  for (const c10::IValue& value : fused.module._ivalue()->slots()) {
    if (!value.isObject()) continue;
    if (value.type() == c10::getCustomClassType<c10::intrusive_ptr<PackedContraction>>()) {
      const auto contraction = value.toCustomClass<PackedContraction>();
      contractions[contraction.get()] = contraction;
    } else if (value.type() == c10::getCustomClassType<c10::intrusive_ptr<Region>>()) {
      regions.push_back(value.toCustomClass<Region>());
      for (const auto& contraction : regions.back()->contractions()) contractions[contraction.get()] = contraction;
    }
  }
  for (const auto& [key, contraction] : contractions) {
    auto others = contraction->spec().choices;
    std::erase_if(others, [](const Choice& choice) { return choice.machine == this_machine() && choice.threads == at::get_num_threads(); });
    contraction->choose(std::move(others));
  }
  const auto rounds = timing.ways(fused.module);
  fused.report.tuning = headed(rounds.size());
  for (const auto& [met, picked] : pick(rounds)) {
    const auto found = contractions.find(met.contraction);
    if (found == contractions.end()) continue;
    auto choices = found->second->spec().choices;
    choices.push_back(choice_of(met, picked));
    found->second->choose(std::move(choices));
    fused.report.tuning->sequences.push_back(told(met, picked, {}, found->second->describe()));
  }
  for (const auto& region : regions) region->forget_plans();
  set_report(fused.module, fused.report.to_json());
  return fused;
}

}  // namespace fusible
