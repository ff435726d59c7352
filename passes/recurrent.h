#pragma once

// aten::lstm and aten::gru with constant weights: one operator with packed weights stands for each.

#include "ops/recurrent.h"
#include "passes/chain.h"

namespace fusible {

struct AcceptedRecurrence {
  Node* node;
  c10::intrusive_ptr<Recurrent> weights;  // made already: nothing that can fail is left for the rewrite
};

bool is_recurrent(const Node* node);

// `node`: is_recurrent.
Decided<AcceptedRecurrence> read_recurrence(Node* node, const Facts& facts);

}  // namespace fusible
