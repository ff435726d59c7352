#include "ops/region/text.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace fusible {
namespace {

// Of a word that is an integer or another number: inf and nan have an n.
bool is_number(std::string_view text) { return text.find_first_of(".en") != std::string_view::npos; }

std::string print_number(double number) {
  std::array<char, 40> buffer{};
  std::string text(buffer.data(), std::to_chars(buffer.data(), buffer.data() + buffer.size(), number).ptr);
  return is_number(text) ? text : text + ".0";
}

std::string print_integers(const Argument& argument) {
  std::string text;
  auto next = argument.registers.begin();
  for (std::int64_t entry : argument.value.toIntVector())
    text += (text.empty() ? "" : " ") + (entry == Argument::kHeld ? "%" + std::to_string(*next++) : std::to_string(entry));
  return text;
}

std::string print_list(const std::vector<std::int64_t>& list, const char* prefix) {
  std::string text;
  for (std::int64_t entry : list) text += (text.empty() ? "" : " ") + std::string(prefix) + std::to_string(entry);
  return text;
}

std::string print_numbers(const std::vector<double>& list) {
  std::string text;
  for (double entry : list) text += (text.empty() ? "" : " ") + print_number(entry);
  return text;
}

bool is_weights(const c10::IValue& value) { return value.isCustomClass() && value.type()->isSubtypeOf(*c10::getCustomClassType<c10::intrusive_ptr<PackedContraction>>()); }

std::string print_value(const c10::IValue& value, Constants& constants) {
  if (value.isNone()) return "none";
  if (value.isBool()) return value.toBool() ? "true" : "false";
  if (value.isInt()) return std::to_string(value.toInt());
  if (value.isDouble()) return print_number(value.toDouble());
  if (value.isString()) return "'" + value.toStringRef() + "'";
  if (value.isIntList()) return "(" + print_list(value.toIntVector(), "") + ")";
  if (value.isDoubleList()) return "(" + print_numbers(value.toDoubleVector()) + ")";
  if (value.isTensor()) {
    constants.tensors.push_back(value.toTensor());
    return "$" + std::to_string(constants.tensors.size() - 1);
  }
  constants.weights.push_back(value.toCustomClass<PackedContraction>());
  return "#" + std::to_string(constants.weights.size() - 1);
}

class Reader {
 public:
  Reader(std::string_view text, const Constants& constants) : text_(text), rest_(text), constants_(constants) {}

  Instruction read() {
    Instruction instruction;
    instruction.result = reg(word());
    check(word() == "=");
    const std::string_view name = word();
    const size_t space = name.find("::"), dot = space == std::string_view::npos ? space : name.find('.', space);
    check(space != std::string_view::npos);
    instruction.op = {std::string(name.substr(0, dot)), dot == std::string_view::npos ? "" : std::string(name.substr(dot + 1))};
    while (!rest_.empty()) instruction.arguments.push_back(argument());
    return instruction;
  }

 private:
  void check(bool ok) const { TORCH_CHECK(ok, "a region needs instructions such as \"%2 = aten::relu %1\", found \"", text_, "\""); }

  // Up to the next blank; a bracket or a quote holds its blanks.
  std::string_view word() {
    check(!rest_.empty());
    const char open = rest_[0];
    const char close = open == '[' ? ']' : open == '(' ? ')' : open == '\'' ? '\'' : ' ';
    size_t end = rest_.find(close, 1);
    if (close == ' ')
      end = std::min(end, rest_.size());
    else {
      check(end != std::string_view::npos);
      ++end;
    }
    const std::string_view result = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    return result;
  }

  std::int64_t integer(std::string_view text) const {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    check(error == std::errc() && end == text.data() + text.size());
    return value;
  }

  std::int64_t reg(std::string_view text) const {
    check(!text.empty() && text[0] == '%');
    return integer(text.substr(1));
  }

  double number(std::string_view text) const {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    check(error == std::errc() && end == text.data() + text.size());
    return value;
  }

  template <typename Element>
  auto list(std::string_view inner, Element element) const {
    std::vector<decltype(element(inner))> result;
    while (!inner.empty()) {
      const size_t end = std::min(inner.find(' '), inner.size());
      result.push_back(element(inner.substr(0, end)));
      inner.remove_prefix(std::min(end + 1, inner.size()));
    }
    return result;
  }

  Argument numbers(std::string_view inner) const {
    if (is_number(inner.substr(0, inner.find(' ')))) return Argument::constant(list(inner, [&](std::string_view t) { return number(t); }));
    std::vector<std::int64_t> registers;
    auto entries = list(inner, [&](std::string_view t) {
      if (t.empty() || t[0] != '%') return integer(t);
      registers.push_back(reg(t));
      return Argument::kHeld;
    });
    const auto held = static_cast<std::size_t>(std::count(entries.begin(), entries.end(), Argument::kHeld));
    check(registers.empty() || held == registers.size());
    return registers.empty() ? Argument::constant(std::move(entries)) : Argument::integers(std::move(entries), std::move(registers));
  }

  Argument argument() {
    const std::string_view text = word();
    check(!text.empty());
    const std::string_view inner = text.size() > 1 ? text.substr(1, text.size() - 2) : text;
    switch (text[0]) {
      case '%': return Argument::reg(reg(text));
      case '[': return Argument::regs(list(inner, [&](auto t) { return reg(t); }));
      case '(': return numbers(inner);
      case '\'': return Argument::constant(std::string(inner));
      case '#': return Argument::constant(at(constants_.weights, text));
      case '$': return Argument::constant(at(constants_.tensors, text));
      default: break;
    }
    if (text == "none") return Argument::constant({});
    if (text == "true" || text == "false") return Argument::constant(text == "true");
    std::int64_t whole = 0;
    const char* const end = text.data() + text.size();
    if (const auto [p, error] = std::from_chars(text.data(), end, whole); error == std::errc() && p == end)
      return Argument::constant(whole);
    return Argument::constant(number(text));
  }

  template <typename T>
  c10::IValue at(const std::vector<T>& list, std::string_view text) const {
    const std::int64_t i = integer(text.substr(1));
    check(i >= 0 && i < static_cast<std::int64_t>(list.size()));
    return list[i];
  }

  std::string_view text_, rest_;
  const Constants& constants_;
};

}  // namespace

// Beyond these an operator has its arguments from the graph: an empty list would be one of integers, and a text ends at its second quote.
bool has_text(const c10::IValue& constant) {
  if (constant.isString()) return constant.toStringRef().find('\'') == std::string::npos;
  if (constant.isDoubleList()) return !constant.toDoubleList().empty();
  return constant.isNone() || constant.isBool() || constant.isInt() || constant.isDouble() || constant.isIntList() || constant.isTensor() || is_weights(constant);
}

std::string print_instruction(const Instruction& instruction, Constants& constants) {
  std::string text = "%" + std::to_string(instruction.result) + " = " + instruction.op.name;
  if (!instruction.op.overload_name.empty()) text += "." + instruction.op.overload_name;
  for (const Argument& argument : instruction.arguments) {
    text += " ";
    if (argument.kind == Argument::Kind::one)
      text += "%" + std::to_string(argument.registers[0]);
    else if (argument.kind == Argument::Kind::list)
      text += "[" + print_list(argument.registers, "%") + "]";
    else if (argument.kind == Argument::Kind::integers)
      text += "(" + print_integers(argument) + ")";
    else
      text += print_value(argument.value, constants);
  }
  return text;
}

Instruction parse_instruction(std::string_view text, const Constants& constants) { return Reader(text, constants).read(); }

}  // namespace fusible
