#pragma once

#include "passes/chain.h"

namespace fusible {

// Why a product that no spelling of a contraction takes is left as it is.
Decline of_product(const torch::jit::Node* product, const Facts& facts);

}  // namespace fusible
