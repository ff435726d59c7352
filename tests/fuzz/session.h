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
// perturbed: every float of attributes and inputs off by one rounding, up, down or not. float32: of a program of bfloat16, with results rounded.
enum class As { given, float64, perturbed, float32 };
Session run(torch::jit::Module module, const Program& program, As as = As::given, std::uint64_t seed = 0);

struct Tolerance {
  bool bits = false;
  double epsilon = 1.2e-7;              // of the coarsest dtype that takes part
  std::vector<Session> references;      // the original in float64, where it runs; then the original perturbed
};

double epsilon_of(const Program& program);

// Both raise, exceptions of two types: two operators fail, and the other one stands first. Calls after it are not compared.
inline constexpr const char* kAnotherException = "another exception";

// "" or the first difference.
std::string differ(const Session& expected, const Session& found, const Tolerance& tolerance);

}  // namespace fuzz
