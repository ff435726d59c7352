#pragma once

#include <functional>

#include "tests/fuzz/check.h"

namespace fuzz {

// check() of program(0) to program(count - 1) in a process of its own, which starts as this one is; whatever ends that process (a signal,
// 60 seconds without an answer) is a difference of the program that it was at, and another process goes on with the next one. `take` gets
// each answer in turn, and ends the run by false. Must be called by a process with one thread.
void check_apart(std::int64_t count, const std::function<Program(std::int64_t)>& program, Target target,
                 const std::function<bool(std::int64_t, const Checked&)>& take);

Checked check_apart(const Program& program, Target target);

}  // namespace fuzz
