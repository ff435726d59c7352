#pragma once

#include <functional>

#include "fusible/pattern.h"

namespace fusible::patterns {

// Hands the conditions and builders that fusible brings to the two registration functions.
void register_builtins(const std::function<void(const std::string&, const std::string&, Condition)>& condition,
                       const std::function<void(const std::string&, Builder)>& builder);

}  // namespace fusible::patterns
