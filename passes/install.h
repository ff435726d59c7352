#pragma once

#include <string>

#include "passes/copies.h"
#include "passes/regions.h"
#include "passes/rewrite.h"

namespace fusible {

// A module of its own from the rewritten graphs: every object gets a type of its own (S21), parameters that no graph reads are gone,
// mutable buffers are copied, everything else that is not a parameter survives, packed weights and regions that a graph reads become attributes.
Module install(Model& model, const PackedStore& store, const Regions& regions);

// The whole module as a private copy, whose running changes nothing of the module.
Module copy_whole(const Module& module, Copier copier = Copier());

// The same, but for its parameters, which are many and stay shared.
Module copy_with_its_parameters(const Module& module);

inline constexpr const char* kReportAttribute = "_fusible_report";
void set_report(Module& module, const std::string& json);

}  // namespace fusible
