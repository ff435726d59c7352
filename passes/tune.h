#pragma once

// options.tune: which kernel each contraction takes, and which sequences do not pay, by measurement (docs/tuning.md).

#include <array>
#include <functional>
#include <map>
#include <vector>

#include "ops/trial.h"
#include "passes/decide.h"
#include "passes/regions.h"
#include "passes/stopwatch.h"

namespace fusible {

// A fused sequence and the packed weights that it runs on.
struct Sequence {
  Place place;
  Site site;
  std::string pattern;
  std::string attribute;  // of the root
  c10::intrusive_ptr<PackedContraction> contraction;
};

struct Built {
  Module module;
  std::vector<Sequence> sequences;
  Regions regions;
};

// How a model is made.
struct Builder {
  Module original;
  std::function<Built(const Declined&)> fused;
  // The original's operators one by one, with marks around those of the sequences that `owner` gives a number.
  std::function<Module(const Declined&, const std::map<Place, int>& owner)> marked;
};

// One watched run each: as the cost model has it, then by each Way.
struct WayRound {
  std::array<std::vector<Trial::Seen>, 4> runs;
};

// Seconds of one run of each.
struct BlockRound {
  std::vector<double> original, fused;  // of each block
  double original_whole = 0, fused_whole = 0;
};

// Marks in two of them tell of `blocks`.
struct Race {
  Module original, original_marked, fused, fused_marked;
  std::size_t blocks;
};

// What is measured; tests give figures of their own.
class Timing {
 public:
  virtual ~Timing() = default;
  virtual std::vector<WayRound> ways(const Module& fused) = 0;
  virtual std::vector<BlockRound> race(const Race& race) = 0;
};

// A way that was measured faster than what the cost model takes, per contraction and shape.
struct Pick {
  Way way, instead_of;
  double gain, low;  // of the rounds' ratios: median and 10th percentile
};
std::map<Trial::Met, Pick> pick(const std::vector<WayRound>& rounds);
// Whether more rounds would hardly change what pick() says.
bool is_clear(const std::vector<WayRound>& rounds);

// Of times in the same rounds, first / second: median, 10th and 90th percentile.
struct Ratio {
  double median = 0, low = 0, high = 0;
  // As the second of the two that were compared.
  bool loses() const { return median < 1 && low < 0.97; }
  bool clearly_loses() const { return high < 0.97; }
};
Ratio ratio_of(const std::vector<double>& first, const std::vector<double>& second);
Ratio ratio_of_block(const std::vector<BlockRound>& rounds, std::size_t block);
Ratio ratio_of_whole(const std::vector<BlockRound>& rounds);

// What tuning found for one model.
struct Tuned {
  std::map<Place, std::vector<Choice>> choices;
  Tuning report;
};
// Adds sequences that lose to `declined`. Blocks are what runs as one: a fused operator, or the sequences of one region.
Tuned tune(const Builder& builder, Declined& declined, Timing& timing);
// Gives the sequences of `built` what was chosen for them.
void carry(const Tuned& tuned, const Built& built);

// Where the copy does not give the original's result with its choices.
void forget(Tuned& tuned, const Built& built);
// Throws Error where there is nothing to measure with.
void check_tune(const Module& module, const Options& options);

// For a module that was fused before, without an original: a copy whose contractions have choices for this machine beside those they had.
Fused tuned_again(Fused fused, const Options& options, Stopwatch& clock, Timing* timing);

// Runs copies of the modules on clones of `inputs`, round by round. Throws Error when the model raises.
class Clock : public Timing {
 public:
  Clock(const std::vector<c10::IValue>& inputs, std::function<void()> heartbeat) : inputs_(inputs), heartbeat_(std::move(heartbeat)) {}
  std::vector<WayRound> ways(const Module& fused) override;
  std::vector<BlockRound> race(const Race& race) override;

 private:
  double run(Module& module) const;  // seconds

  const std::vector<c10::IValue>& inputs_;
  std::function<void()> heartbeat_;  // before each round
};

// pipeline.cpp: fuse with the measurements of `timing`; null: those of a Clock.
Fused fuse(const Module& module, const Options& options, Timing* timing);

}  // namespace fusible
