#pragma once

#include <map>
#include <string>

#include "tests/fuzz/check.h"

namespace fuzz {

// What a run covered: shares of modules, and patterns by verdict.
class Histogram {
 public:
  void add(const Checked& checked);
  std::string markdown(std::uint64_t seed, double minutes) const;
  int checked() const { return checked_; }
  int different() const { return different_; }

 private:
  int checked_ = 0, unusable_ = 0, raising_ = 0, different_ = 0, with_fusion_ = 0, with_decline_ = 0;
  std::map<std::string, int> operators_, steps_, codes_, unusable_reasons_;
};

}  // namespace fuzz
