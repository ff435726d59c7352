#pragma once

// Integers of a region: sizes of registers and what is computed from them. A register holds one as a tensor of int64 without dimensions;
// the inputs of a region are passed so, too (prim::NumToTensor).

#include <optional>
#include <vector>

#include "ops/region/region.h"

namespace fusible {

at::Tensor integer_tensor(std::int64_t value);

// Whether the operator gives an integer that a region may hold.
bool gives_integer(const c10::OperatorName& op);
// Its result, once no argument is an integer register any more. Throws c10::Error as the operator would.
std::int64_t integer_result(const Instruction& instruction, const std::vector<at::Tensor>& registers);

// int, SymInt or either's optional.
bool is_integer_argument(const c10::Argument& argument);

// The same instruction with the values that integer registers hold.
Instruction with_integers(const Instruction& instruction, const std::vector<bool>& is_integer, const std::vector<at::Tensor>& registers);

}  // namespace fusible
