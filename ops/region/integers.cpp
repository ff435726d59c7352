#include "ops/region/integers.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <ATen/ATen.h>

namespace fusible {
namespace {

constexpr std::array<std::string_view, 4> kArithmetic = {"aten::add", "aten::floordiv", "aten::mul", "aten::sub"};

bool is_arithmetic_on_integers(const c10::OperatorName& op) {
  return op.overload_name == "int" && std::find(kArithmetic.begin(), kArithmetic.end(), op.name) != kArithmetic.end();
}

std::int64_t held(std::int64_t r, const std::vector<at::Tensor>& registers) { return registers[r].item<std::int64_t>(); }

}  // namespace

at::Tensor integer_tensor(std::int64_t value) { return at::scalar_tensor(value, at::kLong); }

bool gives_integer(const c10::OperatorName& op) {
  return is_arithmetic_on_integers(op) || op == c10::OperatorName("aten::size", "int") || op == c10::OperatorName("fusible::size", "");
}

std::int64_t integer_result(const Instruction& instruction, const std::vector<at::Tensor>& registers) {
  const auto constant = [&](size_t i) { return instruction.arguments[i].value.toInt(); };
  if (is_arithmetic_on_integers(instruction.op)) {
    const std::int64_t a = constant(0), b = constant(1);
    // Sums and products wrap as those of the executor do; the least number divided by -1, which wraps as well, would trap.
    const auto x = static_cast<std::uint64_t>(a), y = static_cast<std::uint64_t>(b);
    switch (instruction.op.name[6]) {
      case 'a': return static_cast<std::int64_t>(x + y);
      case 's': return static_cast<std::int64_t>(x - y);
      case 'm': return static_cast<std::int64_t>(x * y);
      default: break;
    }
    TORCH_CHECK(b != 0, "integer division by zero");
    return b == -1 ? static_cast<std::int64_t>(0 - x) : a / b - (a % b != 0 && (a < 0) != (b < 0));
  }
  return call_boxed(instruction, registers).item<std::int64_t>();
}

bool is_integer_argument(const c10::Argument& argument) {
  auto type = argument.type();
  if (const auto optional = type->cast<c10::OptionalType>()) type = optional->getElementType();
  return type->kind() == c10::TypeKind::IntType;
}

Instruction with_integers(const Instruction& instruction, const std::vector<bool>& is_integer, const std::vector<at::Tensor>& registers) {
  Instruction result = instruction;
  for (Argument& argument : result.arguments) {
    if (argument.kind == Argument::Kind::one && is_integer[argument.registers[0]]) {
      argument = Argument::constant(held(argument.registers[0], registers));
    } else if (argument.kind == Argument::Kind::integers) {
      std::vector<std::int64_t> list = argument.value.toIntVector();
      auto next = argument.registers.begin();
      for (std::int64_t& entry : list)
        if (entry == Argument::kHeld) entry = held(*next++, registers);
      argument = Argument::constant(std::move(list));
    }
  }
  return result;
}

}  // namespace fusible
