#include "passes/provenance.h"

#include <torch/csrc/jit/ir/ir.h>

namespace fusible {

namespace {

using torch::jit::SourceRange;

bool is_library(const std::string& file) {
  return file.find("site-packages/torch/") != std::string::npos || file.find("dist-packages/torch/") != std::string::npos || file.rfind("torch/", 0) == 0 || file.find("code/__torch__") != std::string::npos ||
         file == "<string>";
}

// The place in the user's file that a range of an archive's generated code came from, or the range itself.
SourceRange original(const SourceRange& range) {
  if (auto generated_from = range.findSourceRangeThatGenerated()) return *generated_from;
  return range;
}

std::string line_of(const SourceRange& range, std::size_t line, std::size_t first_line) {
  if (!range.source() || line < first_line) return "";
  const std::size_t index = line - first_line;
  if (index >= range.source()->num_lines()) return "";
  std::string text = range.source()->get_line(index).str();
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

// A traced node keeps Python's stack as text: "model.py(11): forward\nscript.py(5): <module>\n".
std::optional<Location> from_traced_stack(const std::string& text) {
  std::size_t begin = 0;
  while (begin < text.size()) {
    std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    const auto open = line.find('('), close = line.find("): ");
    if (open == std::string::npos || close == std::string::npos || open > close) continue;
    Location location;
    location.file = line.substr(0, open);
    if (is_library(location.file)) continue;
    location.line = std::atoi(line.substr(open + 1, close - open - 1).c_str());
    location.function = line.substr(close + 3);
    if (location.line > 0) return location;
  }
  return std::nullopt;
}

std::optional<Location> from_range(const SourceRange& generated, const std::string& function) {
  const SourceRange range = original(generated);
  if (!range.source()) return std::nullopt;
  // A traced range has the Python stack as its text.
  const std::string text = range.source()->num_lines() ? range.text().str() : "";
  if (text.find("): ") != std::string::npos) {
    if (auto location = from_traced_stack(text)) return location;
  }
  auto place = range.file_line_col();
  if (!place) return std::nullopt;
  auto [file, line, column] = *place;
  if (is_library(file) || line == 0) return std::nullopt;
  Location location;
  location.file = file;
  location.line = static_cast<int>(line);
  location.function = function;
  location.excerpt = line_of(range, line, range.source()->starting_line_no());
  location.column = static_cast<int>(column) + 1;
  const auto width = range.end() > range.start() ? range.end() - range.start() : 0;
  location.end_column = std::min<int>(location.column + static_cast<int>(width), static_cast<int>(location.excerpt.size()) + 1);
  return location;
}

std::string last_part(const std::string& qualified) { return qualified.substr(qualified.rfind('.') + 1); }

}  // namespace

Location location_of(const torch::jit::Node* node) {
  // Innermost first: the node itself, then the calls that led to it.
  std::vector<std::pair<SourceRange, std::string>> frames{{node->sourceRange(), ""}};
  if (auto callstack = node->callstack()) {
    // By the name that the call keeps: freeze destroys the functions that it inlined.
    std::vector<std::pair<SourceRange, std::string>> calls;
    for (auto call = std::optional(*callstack); call; call = (*call)->callee()) calls.emplace_back((*call)->source_range(), (*call)->function_name());
    for (auto it = calls.rbegin(); it != calls.rend(); ++it) frames.push_back(*it);
  }
  for (const auto& [range, function] : frames) {
    if (auto location = from_range(range, last_part(function))) return *location;
  }
  return {};
}

std::string module_path_of(const torch::jit::Node* node) {
  std::string path;
  if (auto callstack = node->callstack()) {
    for (const auto& entry : (*callstack)->vec()) {
      const auto& instance = std::get<2>(entry);
      if (!instance) continue;
      const std::string name = instance->instance_name();
      if (name.empty() || name == "SELF" || name == "INSTANCE_NAME_UNKNOWN") continue;
      path += (path.empty() ? "" : ".") + name;
    }
  }
  if (!path.empty()) return path;
  // Traced in this process: "__module.layer1/__module.layer1.0/__module.layer1.0.conv1".
  const std::string scope = node->scopeName();
  const std::string last = scope.substr(scope.rfind('/') == std::string::npos ? 0 : scope.rfind('/') + 1);
  const std::string prefix = "__module.";
  return last.rfind(prefix, 0) == 0 ? last.substr(prefix.size()) : "";
}

}  // namespace fusible
