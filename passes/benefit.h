#pragma once

#include "passes/findings.h"
#include "passes/patterns/library.h"
#include "passes/facts.h"
#include "passes/sizes.h"

namespace fusible {

// What fusing the rest of the sequence would save per call: a value between two operators that become one is neither written nor read again
// (2 x its bytes), and a batch_norm folded into the weights is not computed (2 x its elements: a product and a sum).
void estimate_benefits(std::vector<Finding>& findings, const Sizes& sizes, const patterns::Matcher& matcher, const Facts& facts);

// The operators that fusing would take in: those that the finding left outside, or behind a contraction that was left alone the activations
// and batch_norms that follow it. nullopt: nothing was missed, or it is not known what.
std::optional<std::vector<Node*>> left_outside(const Finding& finding, const patterns::Matcher& matcher, const Facts& facts);

// The sum of two places with one cause; a place that is not known adds nothing.
Benefit sum_of(Benefit left, const Benefit& right);

}  // namespace fusible
