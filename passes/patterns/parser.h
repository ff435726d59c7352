#pragma once

#include "passes/patterns/library.h"

namespace fusible::patterns {

// parse_into without the checks that need the whole vocabulary (check_vocabulary), so that files can name each other's entries in any
// order.
void parse_blocks(Library& library, const std::string& text, const std::string& name);

}  // namespace fusible::patterns
