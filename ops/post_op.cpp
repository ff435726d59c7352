#include "ops/post_op.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <unordered_map>

#include <c10/util/Exception.h>

namespace fusible {
namespace {

// A step as the text form names it. `scalars`: arguments, in the order of the ATen schema.
struct Entry {
  std::string_view name;
  PostOpKind kind;
  int scalars;
  int operands;
};

constexpr std::array<Entry, 15> kUnary = {{
    {"relu", PostOpKind::relu, 0, 0},
    {"relu6", PostOpKind::relu6, 0, 0},
    {"hardtanh", PostOpKind::hardtanh, 2, 0},
    {"clamp", PostOpKind::clamp, 2, 0},
    {"leaky_relu", PostOpKind::leaky_relu, 1, 0},
    {"sigmoid", PostOpKind::sigmoid, 0, 0},
    {"tanh", PostOpKind::tanh, 0, 0},
    {"silu", PostOpKind::silu, 0, 0},
    {"hardswish", PostOpKind::hardswish, 0, 0},
    {"hardsigmoid", PostOpKind::hardsigmoid, 0, 0},
    {"elu", PostOpKind::elu, 3, 0},
    {"mish", PostOpKind::mish, 0, 0},
    {"softplus", PostOpKind::softplus, 2, 0},
    {"prelu", PostOpKind::prelu, 0, 1},
    {"batch_norm", PostOpKind::batch_norm, 1, 4},
}};

constexpr std::array<Entry, 4> kBinary = {{
    {"add", PostOpKind::add, 1, 1},
    {"sub", PostOpKind::sub, 1, 1},
    {"mul", PostOpKind::mul, 1, 1},
    {"div", PostOpKind::div, 1, 1},
}};

constexpr std::array<std::string_view, 3> kGelu = {"none", "tanh", "erf"};  // by enum Gelu

std::string_view strip(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(separator, begin);
    parts.push_back(strip(text.substr(begin, end - begin)));
    if (end == std::string_view::npos) return parts;
    begin = end + 1;
  }
}

// An integer stays an integer: hardtanh(0, 6) keeps the dtype of an int tensor where hardtanh(0.0, 6.0) would not.
std::optional<c10::Scalar> parse_scalar(std::string_view text, std::string_view step) {
  if (text == "none") return std::nullopt;
  const char* const end = text.data() + text.size();
  std::int64_t integer = 0;
  if (auto [rest, error] = std::from_chars(text.data(), end, integer); error == std::errc() && rest == end) return c10::Scalar(integer);
  double number = 0;
  if (auto [rest, error] = std::from_chars(text.data(), end, number); error == std::errc() && rest == end) return c10::Scalar(number);
  TORCH_CHECK_VALUE(false, "post_ops needs numbers or none as arguments, found \"", text, "\" in step \"", step, "\"");
}

std::string print_scalar(const std::optional<c10::Scalar>& scalar) {
  if (!scalar) return "none";
  if (scalar->isIntegral(/*includeBool=*/true)) return std::to_string(scalar->toLong());
  const double number = scalar->toDouble();
  std::array<char, 32> buffer{};
  auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number);
  std::string text(buffer.data(), end);
  if (std::isfinite(number) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

PostOp parse_step(std::string_view text) {
  const size_t open = text.find('(');
  std::string_view name = strip(text.substr(0, open));
  std::vector<std::string_view> arguments;
  if (open != std::string_view::npos) {
    TORCH_CHECK_VALUE(text.back() == ')', "post_ops needs a closing parenthesis, found step \"", text, "\"");
    const std::string_view inner = strip(text.substr(open + 1, text.size() - open - 2));
    if (!inner.empty()) arguments = split(inner, ',');
  }
  PostOp step{};
  if (name == "gelu" || name == "gelu_") {
    const auto known = std::find(std::begin(kGelu), std::end(kGelu), arguments.empty() ? "none" : arguments[0]);
    step.kind = PostOpKind::gelu;
    step.gelu = static_cast<Gelu>(known - std::begin(kGelu));
    step.in_place = name.back() == '_';
    TORCH_CHECK_VALUE(arguments.size() <= 1 && known != std::end(kGelu) && !(step.in_place && step.gelu == Gelu::erf),
                      "post_ops needs gelu(none), gelu(tanh), gelu(erf), gelu_(none) or gelu_(tanh), found step \"", text, "\"");
    return step;
  }
  for (const auto& argument : arguments) step.scalars.push_back(parse_scalar(argument, text));
  const int given = static_cast<int>(step.scalars.size());
  std::string_view base = name;
  if (base.size() > 1 && base.back() == '_') {
    step.in_place = true;
    base.remove_suffix(1);
  }
  for (const Entry& entry : kUnary) {
    if (entry.name != base || (step.in_place && entry.operands)) continue;
    TORCH_CHECK_VALUE(given == entry.scalars, "post_ops needs ", entry.scalars, " arguments for ", entry.name, ", found ", given,
                      " in step \"", text, "\"");
    for (const auto& scalar : step.scalars)
      TORCH_CHECK_VALUE(scalar || entry.kind == PostOpKind::clamp, "post_ops takes none as an argument of clamp only, found step \"", text, "\"");
    step.kind = entry.kind;
    step.operands = entry.operands;
    return step;
  }
  if (!step.in_place && base.size() == 4 && base.front() == 'r') {
    step.reversed = true;
    base.remove_prefix(1);
  }
  for (const Entry& entry : kBinary) {
    if (entry.name != base) continue;
    TORCH_CHECK_VALUE(given <= entry.scalars && (given == 0 || step.scalars[0]),
                      "post_ops needs one number or no argument for ", name, ", found step \"", text, "\"");
    step.kind = entry.kind;
    step.operands = 1 - given;
    return step;
  }
  TORCH_CHECK_VALUE(false, "post_ops needs steps that this version of fusible knows, found \"", text,
                    "\": load the model with the release that fused it or a later one");
}

}  // namespace

const PostOps& parse_post_ops(std::string_view text) {
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const { return std::hash<std::string_view>{}(key); }
  };
  static std::shared_mutex mutex;
  static auto& parsed = *new std::unordered_map<std::string, std::unique_ptr<const PostOps>, Hash, std::equal_to<>>();
  {
    std::shared_lock lock(mutex);
    if (auto found = parsed.find(text); found != parsed.end()) return *found->second;
  }
  auto chain = std::make_unique<PostOps>();
  if (!strip(text).empty())
    for (std::string_view step : split(text, '|')) chain->push_back(parse_step(step));
  std::unique_lock lock(mutex);
  return *parsed.try_emplace(std::string(text), std::move(chain)).first->second;
}

std::string print_post_op(const PostOp& step) {
  if (step.kind == PostOpKind::gelu) return (step.in_place ? "gelu_(" : "gelu(") + std::string(kGelu[static_cast<size_t>(step.gelu)]) + ")";
  std::string text;
  for (const Entry& entry : kUnary)
    if (entry.kind == step.kind) text = std::string(entry.name) + (step.in_place ? "_" : "");
  for (const Entry& entry : kBinary)
    if (entry.kind == step.kind) text = (step.reversed ? "r" : "") + std::string(entry.name) + (step.in_place ? "_" : "");
  if (step.scalars.empty()) return text;
  text += "(";
  for (size_t i = 0; i < step.scalars.size(); ++i) text += (i ? ", " : "") + print_scalar(step.scalars[i]);
  return text + ")";
}

}  // namespace fusible
