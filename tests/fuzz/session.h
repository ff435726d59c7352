#pragma once

// What a module does, as a consumer can observe it, and how two modules differ in it. Shares no code with passes/verify.cpp.

#include <string>
#include <vector>

#include <torch/csrc/jit/api/module.h>

#include "tests/fuzz/program.h"

namespace fuzz {

struct Outcome {
  c10::IValue output;
  std::vector<c10::IValue> inputs;  // after the call
  std::string exception;            // C++ type, and Python type where it has one; "" when it returned
  std::string message;
};

// Every call of the program in order, the first one three times, then method `state` when there is one.
using Session = std::vector<Outcome>;
Session run(torch::jit::Module module, const Program& program, bool in_float64 = false);

struct Tolerance {
  bool bits = false;
  const Session* reference = nullptr;  // the original in float64, where it runs
  double epsilon = 1.2e-7;             // of the coarsest dtype that takes part
};

double epsilon_of(const Program& program);

// "" or the first difference.
std::string differ(const Session& expected, const Session& found, const Tolerance& tolerance);

}  // namespace fuzz
