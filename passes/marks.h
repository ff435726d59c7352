#pragma once

// Stopwatches inside of a graph: operators that tell whose nodes run from here on.

#include <functional>
#include <vector>

#include "passes/model.h"

namespace fusible {

constexpr int kNobody = -1;

// Nodes of `graph` of which `owner` gives a number of 0 or more get a mark before them, and one behind them. Constants belong to everybody.
void mark(Graph& graph, const std::function<int(const Node*)>& owner);

// Takes the time of marked graphs that run on this thread.
class Stopwatches {
 public:
  explicit Stopwatches(std::size_t owners);
  ~Stopwatches();
  Stopwatches(const Stopwatches&) = delete;
  Stopwatches& operator=(const Stopwatches&) = delete;
  const std::vector<double>& seconds() const { return seconds_; }
  static void pass(std::int64_t owner);  // what a mark does

 private:
  std::vector<double> seconds_;
  std::int64_t running_ = kNobody;
  double since_ = 0;
  Stopwatches* const outer_;
};

}  // namespace fusible
