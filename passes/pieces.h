#pragma once

#include "passes/model.h"

namespace fusible {

// chunk, split, split_with_sizes, unbind and size whose list is unpacked, as one operator per result (ops/pieces.cpp): regions take those.
void spell_out_pieces(Block* block);

}  // namespace fusible
