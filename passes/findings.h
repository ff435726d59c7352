#pragma once

#include <string>
#include <vector>

#include "passes/model.h"

namespace fusible {

// One reason why a sequence stopped where it did, at one place. The report groups those with the same cause.
struct Finding {
  Code code;
  std::string message, needed, found, did, help;
  Fix fix;
  std::string pattern;       // "conv+batch_norm+relu": what would have been fused
  int matched = 0, steps = 0;
  Node* producer = nullptr;  // makes the blocking value
  std::vector<std::pair<std::string, Node*>> related;  // label, node
  std::vector<Node*> blocked;                          // nodes left outside; when a chain claims them all after all, the finding is moot
  int candidate = -1;
  Benefit benefit;                                     // unknown until estimate_benefits
};

// Sites with the same cause are one diagnostic.
std::string cause_of(const Finding& finding, const Site& site);

Site site_of(const Node* node, const std::string& method);

// Groups by cause (code, pattern and source line), ranks, fingerprints.
std::vector<Diagnostic> group(const Model& model, const std::vector<std::vector<Finding>>& findings_per_method);

// A note about the whole module.
Diagnostic module_note(const Code& code, std::string message, std::string needed, std::string found, std::string help);

}  // namespace fusible
