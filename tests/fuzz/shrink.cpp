#include "tests/fuzz/shrink.h"

#include <algorithm>
#include <regex>
#include <set>

namespace fuzz {

namespace {

using Lines = std::vector<std::string>;
using Fails = std::function<bool(const Program&)>;

std::size_t indent(const std::string& line) { return line.find_first_not_of(' '); }

// The lines that belong to the statement at `at`: the block under a header, too.
std::size_t end_of(const Lines& lines, std::size_t at) {
  std::size_t end = at + 1;
  while (end < lines.size() && indent(lines[end]) > indent(lines[at])) ++end;
  return end;
}

// Without the statement; a variable that it defines is replaced by the first variable that it reads.
std::optional<Lines> without(const Lines& lines, std::size_t at) {
  static const std::regex definition(R"(^ *([xy]\d+) = (.*)$)"), variable(R"(\b[xy]\d+\b)");
  Lines shorter(lines.begin(), lines.begin() + at);
  std::smatch parts, read;
  Lines rest(lines.begin() + end_of(lines, at), lines.end());
  if (std::regex_match(lines[at], parts, definition)) {
    const std::string expression = parts[2];
    if (!std::regex_search(expression, read, variable)) return std::nullopt;
    const std::regex defined("\\b" + parts[1].str() + "\\b");
    for (auto& line : rest) line = std::regex_replace(line, defined, read[0].str());
  }
  shorter.insert(shorter.end(), rest.begin(), rest.end());
  return shorter;
}

Lines unwrapped(const Lines& lines, std::size_t at) {
  Lines result(lines.begin(), lines.begin() + at);
  const auto end = end_of(lines, at);
  for (std::size_t i = at + 1; i < end; ++i) result.push_back(lines[i].substr(4));
  result.insert(result.end(), lines.begin() + end, lines.end());
  return result;
}

// `return (a, b)` and its like: one variable alone.
Lines returning(Lines lines, std::size_t at, const std::string& name) {
  lines[at] = std::string(indent(lines[at]), ' ') + "return " + name;
  return lines;
}

class Shrinker {
 public:
  Shrinker(Program program, const Fails& fails) : program_(std::move(program)), fails_(fails) {}

  Program run() {
    for (bool smaller = true; smaller && tried_ < kMostTrials;) {
      smaller = calls();
      for (auto& [owner, lines] : std::map(program_.sources)) smaller |= statements(owner);
      smaller |= unused();
      smaller |= oddities();
    }
    return program_;
  }

 private:
  static constexpr int kMostTrials = 600;

  bool accept(const Program& candidate) {
    if (tried_++ >= kMostTrials || !fails_(candidate)) return false;
    program_ = candidate;
    return true;
  }

  bool calls() {
    bool smaller = false;
    for (std::size_t i = program_.calls.size(); i-- > 0 && program_.calls.size() > 1;) {
      Program candidate = program_;
      candidate.calls.erase(candidate.calls.begin() + i);
      smaller |= accept(candidate);
    }
    return smaller;
  }

  bool replace(const std::string& owner, const Lines& lines) {
    Program candidate = program_;
    candidate.sources[owner] = lines;
    return accept(candidate);
  }

  bool statements(const std::string& owner) {
    static const std::regex variable(R"(\b[xy]\d+\b)");
    bool smaller = false;
    for (std::size_t i = program_.sources[owner].size(); i-- > 0;) {
      const Lines lines = program_.sources[owner];
      if (i >= lines.size()) continue;
      const std::string& line = lines[i];
      const std::string text = line.substr(indent(line));
      if (text.rfind("return ", 0) == 0) {
        for (std::sregex_iterator it(text.begin(), text.end(), variable), last; it != last && text != "return " + it->str(); ++it) {
          if (replace(owner, returning(lines, i, it->str()))) {
            smaller = true;
            break;
          }
        }
        continue;
      }
      if (text.rfind("def forward", 0) == 0) continue;
      if (auto shorter = without(lines, i); shorter && replace(owner, *shorter)) {
        smaller = true;
        continue;
      }
      if (text.back() == ':' && text.rfind("def", 0) != 0) smaller |= replace(owner, unwrapped(lines, i));
    }
    return smaller;
  }

  bool mentions(const std::string& owner, const std::string& name) const {
    const std::regex word("\\b" + name + "\\b");
    auto it = program_.sources.find(owner);
    if (it == program_.sources.end()) return false;
    return std::any_of(it->second.begin(), it->second.end(), [&](const std::string& line) { return line.rfind("def ", 0) != 0 && std::regex_search(line, word); });
  }

  bool unused() {
    bool smaller = false;
    for (std::size_t i = program_.attributes.size(); i-- > 0;) {
      const std::string full = program_.attributes[i].tensor.name;
      const auto dot = full.find('.');
      if (mentions(dot == std::string::npos ? "" : full.substr(0, dot), dot == std::string::npos ? full : full.substr(dot + 1))) continue;
      Program candidate = program_;
      candidate.attributes.erase(candidate.attributes.begin() + i);
      smaller |= accept(candidate);
    }
    for (auto& [owner, lines] : std::map(program_.sources)) {
      if (owner.empty() || mentions("", owner)) continue;
      Program candidate = program_;
      candidate.sources.erase(owner);
      std::erase_if(candidate.attributes, [&](const Attribute& a) { return a.tensor.name.rfind(owner + ".", 0) == 0; });
      smaller |= accept(candidate);
    }
    for (std::size_t i = program_.calls[0].size(); i-- > 1;) {
      const std::string name = program_.calls[0][i].name;
      if (mentions("", name)) continue;
      Program candidate = program_;
      for (auto& call : candidate.calls) call.erase(call.begin() + i);
      auto& header = candidate.sources[""][0];
      const auto at = header.find(", " + name + ": Tensor");
      if (at == std::string::npos) continue;
      header.erase(at, name.size() + 10);
      smaller |= accept(candidate);
    }
    return smaller;
  }

  bool plain(const std::function<void(TensorSpec&, TensorSpec&)>& edit, std::size_t call, std::size_t index) {
    Program candidate = program_;
    TensorSpec& spec = call == 0 ? candidate.attributes[index].tensor : candidate.calls[call - 1][index];
    TensorSpec before = spec;
    edit(spec, before);
    if (spec.layout == before.layout && spec.fill == before.fill) return false;
    return accept(candidate);
  }

  bool oddities() {
    bool smaller = false;
    for (std::size_t call = 0; call <= program_.calls.size(); ++call) {
      const std::size_t count = call == 0 ? program_.attributes.size() : program_.calls[call - 1].size();
      for (std::size_t i = 0; i < count; ++i) {
        smaller |= plain([](TensorSpec& spec, TensorSpec&) { spec.layout = "contiguous"; }, call, i);
        smaller |= plain([](TensorSpec& spec, TensorSpec&) { spec.fill = spec.fill == "positive" || spec.fill == "small" || spec.fill == "integers" ? spec.fill : "normal"; }, call, i);
      }
    }
    return smaller;
  }

  Program program_;
  const Fails& fails_;
  int tried_ = 0;
};

}  // namespace

Program shrink(Program program, const Fails& fails) { return Shrinker(std::move(program), fails).run(); }

}  // namespace fuzz
