#include "passes/patterns/literal.h"

#include <cmath>
#include <functional>
#include <sstream>

#include <ATen/core/Tensor.h>
#include <ATen/ops/item.h>

namespace fusible::patterns {

namespace {

constexpr std::int64_t kExact = std::int64_t{1} << 53;

std::optional<Literal> scalar_literal(const c10::Scalar& scalar) {
  if (scalar.isBoolean()) return scalar.toBool();
  if (scalar.isIntegral(false)) return normalized(scalar.toLong());
  if (scalar.isFloatingPoint()) return normalized(scalar.toDouble());
  return std::nullopt;
}

}  // namespace

Literal normalized(Literal literal) {
  if (auto* integer = std::get_if<std::int64_t>(&literal); integer && *integer >= -kExact && *integer <= kExact) {
    return static_cast<double>(*integer);
  }
  if (auto* number = std::get_if<double>(&literal); number && *number == 0) return 0.0;  // -0.0 equals 0
  return literal;
}

std::optional<Literal> as_literal(const c10::IValue& value) {
  if (value.isNone()) return std::monostate{};
  if (value.isBool()) return value.toBool();
  if (value.isInt()) return normalized(value.toInt());
  if (value.isDouble()) return normalized(value.toDouble());
  if (value.isString()) return value.toStringRef();
  if (value.isIntList()) return value.toIntVector();
  if (value.isTensor()) {
    auto& tensor = value.toTensor();
    if (tensor.defined() && tensor.dim() == 0 && tensor.device().is_cpu() && tensor.layout() == at::kStrided && !tensor.is_quantized()) {
      return scalar_literal(tensor.item());
    }
  }
  return std::nullopt;
}

bool equals(const Literal& literal, const Literal& value, double tolerance) {
  if (tolerance > 0) {
    auto *a = std::get_if<double>(&literal), *b = std::get_if<double>(&value);
    if (a && b) return std::abs(*a - *b) <= tolerance;
  }
  return literal == value;
}

std::string print(const Literal& literal) {
  std::ostringstream out;
  out.precision(12);
  if (std::holds_alternative<std::monostate>(literal)) out << "none";
  else if (auto* flag = std::get_if<bool>(&literal)) out << (*flag ? "true" : "false");
  else if (auto* integer = std::get_if<std::int64_t>(&literal)) out << *integer;
  else if (auto* number = std::get_if<double>(&literal)) out << *number;
  else if (auto* text = std::get_if<std::string>(&literal)) out << '"' << *text << '"';
  else {
    auto& list = std::get<std::vector<std::int64_t>>(literal);
    out << '[';
    for (std::size_t i = 0; i < list.size(); ++i) out << (i ? ", " : "") << list[i];
    out << ']';
  }
  return out.str();
}

std::size_t LiteralHash::operator()(const Literal& literal) const {
  if (auto* list = std::get_if<std::vector<std::int64_t>>(&literal)) {
    std::size_t hash = list->size();
    for (auto item : *list) hash = hash * 1099511628211ULL + static_cast<std::size_t>(item);
    return hash;
  }
  if (auto* flag = std::get_if<bool>(&literal)) return *flag ? 3 : 5;
  if (auto* integer = std::get_if<std::int64_t>(&literal)) return std::hash<std::int64_t>{}(*integer);
  if (auto* number = std::get_if<double>(&literal)) return std::hash<double>{}(*number);
  if (auto* text = std::get_if<std::string>(&literal)) return std::hash<std::string>{}(*text);
  return 1;
}

}  // namespace fusible::patterns
