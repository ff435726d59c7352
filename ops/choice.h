#pragma once

// Which kernel a contraction takes for which call, where a measurement said so (fusible.fuse with tune, docs/tuning.md). Elsewhere the cost
// model decides (ops/kernel.cpp).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "fusible/export.h"

namespace fusible {

// Own loop nests on packed weights, oneDNN's operators with a post-op, ATen's operators one by one.
enum class Way : std::int64_t { panels, onednn, aten };
FUSIBLE_API const char* name_of(Way way);

// The input of a call: its sizes, and how it lies. In a plan of a region that is the plan's affair.
struct CallShape {
  enum class Layout : std::int64_t { contiguous, channels_last, region };
  std::vector<std::int64_t> sizes;
  Layout layout = Layout::contiguous;
  bool operator==(const CallShape&) const = default;
  auto operator<=>(const CallShape&) const = default;
};

// Nothing where `x` lies in neither layout.
FUSIBLE_API std::optional<CallShape> call_shape(const at::Tensor& x);
FUSIBLE_API std::string to_string(const CallShape& shape);  // "1x64x56x56 channels_last"

// What was measured best on one kind of machine.
struct Choice {
  std::string machine;
  std::int64_t threads = 1;
  CallShape shape;
  Way way = Way::panels;
  bool operator==(const Choice&) const = default;
};

// Vendor, brand, family, model and stepping as CPUID gives them, and the instruction set of the loop nests.
FUSIBLE_API const std::string& this_machine();

// One choice per line: WAY THREADS SIZES LAYOUT MACHINE. Lines that cannot be read are left out: a later release may know more ways.
FUSIBLE_API std::string print_choices(const std::vector<Choice>& choices);
FUSIBLE_API std::vector<Choice> parse_choices(const std::string& text);

}  // namespace fusible
