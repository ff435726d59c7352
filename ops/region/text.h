#pragma once

// Instructions as text: "%3 = aten::add.Tensor %1 %2 1". Arguments: %n register, [%a %b] registers, #n weights, $n tensor constant, none,
// true, false, integers, numbers with "." or "e" (also inf, nan), (1 2 %3) integer list, (0.5 2.0) list of numbers, 'text'.

#include <string>
#include <string_view>
#include <vector>

#include "ops/region/region.h"

namespace fusible {

// Weights and tensors that the text names by number.
struct Constants {
  std::vector<c10::intrusive_ptr<PackedContraction>> weights;
  std::vector<at::Tensor> tensors;
};

// Whether a constant has a text, from which it comes back bit for bit. A region takes no other (Region::takes).
bool has_text(const c10::IValue& constant);
std::string print_instruction(const Instruction& instruction, Constants& constants);
// Throws c10::Error with the text when it is not in the format.
Instruction parse_instruction(std::string_view text, const Constants& constants);

}  // namespace fusible
