#pragma once

#include "passes/model.h"

namespace fusible {

// Removes what nothing uses. A batch_norm that trains writes its statistics, which its schema does not say.
void eliminate_dead_code(const std::shared_ptr<Graph>& graph);

}  // namespace fusible
