#pragma once

#include <map>
#include <string>

#include "ops/region/region.h"
#include "passes/model.h"
#include "passes/rewrite.h"

namespace fusible {

// Attribute of the root -> the region it holds.
using Regions = std::map<std::string, c10::intrusive_ptr<Region>>;

// Runs of operators around two or more packed contractions become one fusible::region each. What a region holds is pure; nothing that
// writes stands inside its span; a value that escapes is made by an operator whose result is fresh memory, and views of it are repeated
// behind the region, so that aliases are those of the original.
void form_regions(const Model& model, MethodGraph& method, const PackedStore& packed, Regions& regions);

}  // namespace fusible
