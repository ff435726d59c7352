#pragma once

// One program through one rewriter, against the original.

#include <optional>
#include <set>
#include <string>

#include "fusible/report.h"
#include "tests/fuzz/program.h"
#include "tests/fuzz/targets.h"

namespace fuzz {

struct Checked {
  std::string difference;                 // "" when nothing can be told apart
  std::string unusable;                   // the original does not compile, or differs from itself: no verdict
  bool raises_everywhere = false;         // every call of the original raises
  bool crashed = false;                   // the process ended: only check_apart lives to tell
  bool missed = false;                    // nothing different, and nothing fused where fusible fuses; of torch's own tools
  bool another_exception = false;         // original and fused module raise, exceptions of two types; counted on its own
  bool executor_decides = false;          // one raises and the other does not, and neither where torch's executor optimizes nothing; counted on its own
  std::string graph;                      // of the rewritten forward
  std::optional<fusible::Report> report;  // of fusible
};

Checked check(const Program& program, Target target);

}  // namespace fuzz
