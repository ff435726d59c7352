#pragma once

// A run that is watched: how long each contraction takes where it stands, by the way that is asked for. For the thread that made the trial.

#include <chrono>
#include <optional>
#include <tuple>
#include <vector>

#include "ops/choice.h"

namespace fusible {

class PackedContraction;

class FUSIBLE_API Trial {
 public:
  struct Met {
    const PackedContraction* contraction;
    CallShape shape;
    bool operator<(const Met& other) const { return std::tie(contraction, shape) < std::tie(other.contraction, other.shape); }
  };
  // Contractions that ran as one (several only where a region runs them line by line).
  struct Seen {
    std::vector<Met> met;
    Way way;  // that was taken: not the one asked for where that cannot be
    double seconds;
  };

  // `asked`: of every contraction; none: as chosen.
  explicit Trial(std::optional<Way> asked);
  ~Trial();
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;
  // Null: nobody watches.
  static Trial* current();

  // `met` is empty for an operator of a region that is no contraction.
  template <typename Run>
  void watch(std::vector<Met> met, const Run& run) {
    taken = Way::panels;
    const double before = watched_;
    const auto begin = std::chrono::steady_clock::now();
    run();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (met.empty()) {
      elsewhere += seconds - (watched_ - before);  // a contraction inside of it is told by itself
    } else {
      seen.push_back({std::move(met), taken, seconds});
      watched_ += seconds;
    }
  }

  const std::optional<Way> asked;
  Way taken = Way::panels;  // by the contraction that runs now
  double elsewhere = 0;     // seconds in what is no contraction, inside of regions
  std::vector<Seen> seen;

 private:
  double watched_ = 0;
  Trial* const outer_;
};

}  // namespace fusible
