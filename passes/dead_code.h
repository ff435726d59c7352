#pragma once

#include "passes/model.h"

namespace fusible {

// A batch_norm or instance_norm that is not known to run in eval mode: it writes its statistics, which the schema does not say.
bool may_train(const Node* node);

// Removes what nothing uses, in one sweep from the bottom; whatever writes to a tensor or has another effect stays.
void eliminate_dead_code(const std::shared_ptr<Graph>& graph);

}  // namespace fusible
