#pragma once

#include <functional>

#include "passes/findings.h"

namespace fusible {

// What a person would change so that a finding goes away, as something that can be tried.
struct FixTrial {
  bool eval = false;                                   // call eval() on a clone of the module
  std::function<void(Options&)> options;               // other options
  std::function<bool(const Finding& there)> edit;      // changes the graph that `there` points into; false: it cannot be done there
};

// The trial of a finding's fix; nullopt where none is known or where it cannot be tried without running the model.
std::optional<FixTrial> trial_of(const Finding& finding);

// The same nodes in another copy of the method's graph: they stand at the same places. nullopt when the copies differ.
std::optional<Finding> same_place(const Finding& finding, const MethodGraph& here, const MethodGraph& there);

}  // namespace fusible
