#pragma once

#include "passes/decide.h"
#include "passes/sizes.h"

namespace fusible {

// What fusing the rest of each sequence would save, in nanoseconds measured here. A sequence is run by itself, on random tensors of the
// shapes in `sizes` and with its own constants: as the model has it now, its fused part and then the operators left outside, and with all of
// it fused. The two take turns; the saving is the median of the differences. The model itself is not run, nor is any operator that is not
// torch's own. A finding whose sequence cannot be run like this keeps an unknown benefit.
class Sampler {
 public:
  Sampler(const Options& options, const patterns::Matcher& matcher, std::function<void()> heartbeat)
      : options_(options), matcher_(matcher), heartbeat_(std::move(heartbeat)) {}

  void measure(std::vector<Finding>& findings, const Decision& decision, const Sizes& sizes, const Facts& facts);

 private:
  const Options& options_;
  const patterns::Matcher& matcher_;
  std::function<void()> heartbeat_;           // before each measurement
  std::map<std::string, double> known_;       // what equal sequences on equal shapes gave
};

}  // namespace fusible
