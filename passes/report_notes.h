#pragma once

#include "passes/findings.h"

namespace fusible {

// Notes about the whole module: parameters as constants, lost provenance, CUDA, candidates that never run, an opaque module.
void add_module_notes(Report& report, const Model& model);
// Of a module that fuse made.
void add_already_fused(Report& report, const Options& options);
void add_verify_notes(Report& report, const std::string& unverifiable, const std::string& difference);

}  // namespace fusible
