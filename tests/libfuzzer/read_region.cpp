// What an archive holds of a region and of a fused operator as text: read, or refused by a c10::Error; and what was read is written as text
// that reads as the same.

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>

#include <ATen/ATen.h>

#include "ops/post_op.h"
#include "ops/region/text.h"

namespace {

using fusible::Constants;

[[noreturn]] void fail(const std::string& first, const std::string& second) {
  std::cerr << "needed a text that reads as what was written, found\n" << first << "\n" << second << "\n";
  std::abort();
}

void instruction(std::string_view text, const Constants& constants) {
  Constants written;
  std::string first;
  try {
    first = fusible::print_instruction(fusible::parse_instruction(text, constants), written);
  } catch (const c10::Error&) {
    return;
  }
  Constants again;
  const std::string second = fusible::print_instruction(fusible::parse_instruction(first, written), again);
  if (first != second) fail(first, second);
}

std::string printed(const fusible::PostOps& chain) {
  std::string text;
  for (const auto& step : chain) text += (text.empty() ? "" : "|") + fusible::print_post_op(step);
  return text;
}

void post_ops(std::string_view text) {
  std::string first;
  try {
    first = printed(fusible::parse_post_ops(text));
  } catch (const c10::Error&) {
    return;
  }
  const std::string second = printed(fusible::parse_post_ops(first));
  if (first != second) fail(first, second);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Constants constants{{}, {at::zeros({2}), at::ones({})}};
  const std::string text(reinterpret_cast<const char*>(data), size);
  instruction(text, constants);
  post_ops(text);
  return 0;
}
