#pragma once

#include <map>
#include <vector>

#include "passes/chain.h"
#include "passes/recurrent.h"

namespace fusible {

// A proven match of a free-form rule, with what its builders made: nothing that can fail is left for the rewrite.
struct AcceptedRule {
  patterns::Match match;
  std::map<std::string, c10::IValue> built;
};

struct Decision {
  std::vector<Chain> chains;                // disjoint, proven, to be rewritten
  std::vector<AcceptedRule> rules;
  std::vector<AcceptedRecurrence> recurrences;
  std::vector<Finding> findings;
};

// Method and position of an anchor, root or node.
using Place = std::pair<std::string, int>;
// What a run found: sequences that change the result (verify) or do not pay (tune).
using Declined = std::map<Place, Decline>;

// One verdict per candidate of the method, into `verdicts` (when the method is treated).
Decision decide(const Model& model, const MethodGraph& method, const Facts& facts, const patterns::Matcher& matcher, const Options& options,
                const Declined& declined, std::vector<Verdict>& verdicts);

// rules.cpp: proves a free-form match and fills in `rule.built`; the finding says what failed.
std::optional<Finding> prove_rule(AcceptedRule& rule, const Facts& facts, const std::unordered_set<const Node*>& claimed);
// rules.cpp: the finding of a match that is left alone for another reason.
Finding finding_of(const patterns::Match& match, const Code& code, const std::string& needed, const std::string& found);
// rule_emit.cpp: runs the builders and writes the emit lines to a graph that is thrown away. Throws when they cannot be carried out.
void rehearse(AcceptedRule& rule, const Facts& facts);

}  // namespace fusible
