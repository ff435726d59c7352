#pragma once

#include <string>

#include "fusible/fusible.h"
#include "passes/patterns/library.h"

namespace fusible {

// `select` and `ignore` of the options. An entry that begins as the codes do ("FUS2") speaks of diagnostics, any other of patterns
// ("conv+batch_norm"): both by what they begin with.

// Throws Error where an entry begins no code, and no pattern that the library's words can make.
void check_selection(const Options& options, const patterns::Library& library);
// Its sequences are left as they are.
bool is_suppressed(const std::string& pattern, const Options& options);
// Diagnostics and declined verdicts whose code is ignored, or not among the codes that are selected, become suppressed.
void suppress_codes(Report& report, const Options& options);

}  // namespace fusible
