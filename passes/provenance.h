#pragma once

#include <string>

#include "fusible/report.h"

namespace torch::jit {
struct Node;
}

namespace fusible {

// The user's own file and line of a node: the innermost frame outside torch's package, from the inlined call stack (scripted)
// or from the recorded Python stack (traced). Unknown when the archive has no debug files.
Location location_of(const torch::jit::Node* node);

// "layer1.0.conv1", from the inlined call stack or the traced scope; "" when the archive lost it (frozen, then saved).
std::string module_path_of(const torch::jit::Node* node);

}  // namespace fusible
