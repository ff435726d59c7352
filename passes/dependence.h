#pragma once

#include "passes/facts.h"

namespace fusible {

// Whether `value` is computed from `source`, which comes earlier in the same method.
bool is_computed_from(const Value* value, const Value* source, const Facts& facts);

// Whether `value` depends on what a call is given, and not only on the module's own attributes and constants.
bool depends_on_inputs(const Value* value);

}  // namespace fusible
