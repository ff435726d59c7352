#pragma once

#include <functional>

#include "tests/fuzz/program.h"

namespace fuzz {

// The smallest program found that `fails` still accepts: calls, statements, blocks, outputs, attributes and oddities go one by one.
Program shrink(Program program, const std::function<bool(const Program&)>& fails);

}  // namespace fuzz
