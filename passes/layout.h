#pragma once

#include "ops/packed.h"
#include "passes/model.h"

namespace fusible {

// Runs of fused 2-D convolutions and of operators that keep the layout compute in channels_last: one conversion where a run begins, and
// the original's strides restored where a value leaves it (S14). Runs with more borders than convolutions stay as they are.
// `packed`: the weights by attribute name.
void choose_layout(MethodGraph& method, const std::map<std::string, c10::intrusive_ptr<PackedContraction>>& packed);

}  // namespace fusible
