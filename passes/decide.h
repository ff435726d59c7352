#pragma once

#include <set>
#include <vector>

#include "passes/chain.h"

namespace fusible {

struct Decision {
  std::vector<Chain> chains;                // disjoint, proven, to be rewritten
  std::vector<patterns::Match> rules;       // accepted matches of free-form rules
  std::vector<Finding> findings;
};

// Chains that verify found guilty, by method and anchor position.
using Declined = std::set<std::pair<std::string, int>>;

// One verdict per candidate of the method, into `verdicts` (when the method is treated).
Decision decide(const Model& model, const MethodGraph& method, const Facts& facts, const patterns::Matcher& matcher, const Options& options,
                const Declined& declined, std::vector<Verdict>& verdicts);

// rules.cpp: proves the conditions of a free-form match; the finding says which one failed.
std::optional<Finding> prove_rule(const patterns::Match& match, const Facts& facts, const std::unordered_set<const Node*>& claimed);

}  // namespace fusible
