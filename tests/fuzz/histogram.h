#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "tests/fuzz/check.h"

namespace fuzz {

// What a run covered: shares of modules, and patterns by verdict.
class Histogram {
 public:
  void add(const Checked& checked);
  // One line of JSON, {name: count}: runs are added up by adding the counts of their lines. Names: "modules", "different", ...,
  // "fused NAME" (a step or contraction), "declined NAME CODE" (the step or contraction that was left, and why; of steered modules
  // also those of quota.h that were not met).
  std::string json(std::uint64_t first_seed, const std::string& target, bool steered) const;
  std::string text() const;
  std::int64_t different() const { return at("different"); }

 private:
  std::int64_t at(const std::string& name) const {
    const auto it = counts_.find(name);
    return it == counts_.end() ? 0 : it->second;
  }
  std::map<std::string, std::int64_t> counts_;
};

}  // namespace fuzz
