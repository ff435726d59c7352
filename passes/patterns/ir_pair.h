#pragma once

#include "passes/patterns/cursor.h"
#include "passes/patterns/library.h"

namespace fusible::patterns {

// A pair of TorchScript IR texts as torch's SubgraphRewriter takes them, joined by "=>", as a rule without needs. Constants of the
// pattern are compared; the cursor stands at the block's name and is left at the next block.
Rule parse_ir_pair(Cursor& cursor);

}  // namespace fusible::patterns
