#include "passes/patterns/cursor.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>

#include "fusible/fusible.h"

namespace fusible::patterns {

namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

}  // namespace

Cursor::Cursor(std::string_view text, std::string name) : name_(std::move(name)) {
  while (!text.empty()) {
    auto end = text.find('\n');
    auto line = text.substr(0, end);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    lines_.push_back(line);
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  if (!done() && !says_something()) next_line();
}

bool Cursor::says_something() const {
  auto first = lines_[line_].find_first_not_of(" \t");
  return first != std::string_view::npos && lines_[line_][first] != '#';
}

bool Cursor::next_line() {
  do to_next_raw_line();
  while (!done() && !says_something());
  return !done();
}

int Cursor::indent() const {
  return static_cast<int>(std::min(lines_[line_].find_first_not_of(" \t"), lines_[line_].size()));
}

std::string Cursor::indented_text(int deeper_than) {
  std::vector<std::string_view> body;
  std::size_t last = line_, common = std::string_view::npos;
  for (std::size_t i = line_ + 1; i < lines_.size(); ++i) {
    auto first = lines_[i].find_first_not_of(" \t");
    if (first == std::string_view::npos) continue;
    if (static_cast<int>(first) <= deeper_than) break;
    common = std::min(common, first);
    last = i;
  }
  std::string out;
  for (std::size_t i = line_ + 1; i <= last; ++i) {
    if (lines_[i].size() > common) out += lines_[i].substr(common);
    out += '\n';
  }
  line_ = last;
  column_ = lines_[line_].size();
  return out;
}

void Cursor::skip_space() {
  if (done()) return;
  while (column_ < lines_[line_].size() && (lines_[line_][column_] == ' ' || lines_[line_][column_] == '\t')) ++column_;
}

bool Cursor::at_line_end() {
  skip_space();
  return done() || column_ >= lines_[line_].size() || lines_[line_][column_] == '#';
}

char Cursor::peek() { return at_line_end() ? '\0' : lines_[line_][column_]; }

bool Cursor::accept(char c) {
  if (peek() != c) return false;
  ++column_;
  return true;
}

void Cursor::expect(char c) {
  if (!accept(c)) fail(std::string("\"") + c + "\"");
}

bool Cursor::accept_word(std::string_view word) {
  if (at_line_end() || lines_[line_].substr(column_, word.size()) != word) return false;
  auto end = column_ + word.size();
  if (end < lines_[line_].size() && is_word(lines_[line_][end])) return false;
  column_ = end;
  return true;
}

std::string Cursor::identifier(const char* needed) {
  char c = peek();
  if (!is_word(c) || std::isdigit(static_cast<unsigned char>(c))) fail(needed);
  auto begin = column_;
  while (column_ < lines_[line_].size() && is_word(lines_[line_][column_])) ++column_;
  return std::string(lines_[line_].substr(begin, column_ - begin));
}

std::string Cursor::qualified(const char* needed) {
  auto out = identifier(needed);
  if (lines_[line_].substr(column_, 2) == "::") {
    column_ += 2;
    out += "::" + identifier("an operator's name after \"::\"");
  }
  if (column_ < lines_[line_].size() && lines_[line_][column_] == '.') {
    ++column_;
    out += "." + identifier("a name after \".\"");
  }
  return out;
}

bool Cursor::at_literal() {
  char c = peek();
  if (std::isdigit(static_cast<unsigned char>(c)) || c == '-' || c == '"' || c == '[') return true;
  auto column = column_;
  bool word = accept_word("none") || accept_word("true") || accept_word("false") || accept_word("inf");
  column_ = column;
  return word;
}

Literal Cursor::literal() {
  if (accept_word("none")) return std::monostate{};
  if (accept_word("true")) return true;
  if (accept_word("false")) return false;
  if (peek() == '"') return quoted();
  if (accept('[')) {
    std::vector<std::int64_t> list;
    while (!accept(']')) {
      if (!list.empty()) expect(',');
      auto column = column_;
      double value = number();
      if (value != std::floor(value) || std::abs(value) > 9e15) {
        column_ = column;
        fail("an integer");
      }
      list.push_back(static_cast<std::int64_t>(value));
    }
    return list;
  }
  auto begin = column_;
  double value = number();
  auto text = lines_[line_].substr(begin, column_ - begin);
  if (text.find_first_of(".eEi") == std::string_view::npos && std::abs(value) < 9e15) return static_cast<std::int64_t>(value);
  return value;
}

double Cursor::number() {
  bool negative = accept('-');
  if (accept_word("inf")) return negative ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  if (!std::isdigit(static_cast<unsigned char>(peek()))) fail("a number");
  auto text = lines_[line_].substr(column_);
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) fail("a number that a double can hold");
  column_ += static_cast<std::size_t>(end - text.data());
  return negative ? -value : value;
}

std::string Cursor::quoted() {
  expect('"');
  auto end = lines_[line_].find('"', column_);
  if (end == std::string_view::npos) fail("a closing quote");
  std::string out(lines_[line_].substr(column_, end - column_));
  column_ = end + 1;
  return out;
}

std::string Cursor::rest_of_line() {
  skip_space();
  auto text = lines_[line_].substr(column_);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '#' && (i == 0 || text[i - 1] == ' ' || text[i - 1] == '\t')) {
      text = text.substr(0, i);
      break;
    }
  }
  auto last = text.find_last_not_of(" \t");
  column_ = lines_[line_].size();
  return std::string(text.substr(0, last == std::string_view::npos ? 0 : last + 1));
}

void Cursor::end_line() {
  if (!at_line_end()) fail("the end of the line");
}

void Cursor::fail(const std::string& needed) {
  if (done()) fail_at(static_cast<int>(lines_.size()) + 1, 1, needed, "the end of the file");
  if (at_line_end()) fail_at(line(), column(), needed, "the end of the line");
  auto end = column_ + 1;
  if (is_word(lines_[line_][column_])) {
    while (end < lines_[line_].size() && is_word(lines_[line_][end])) ++end;
  }
  fail_at(line(), column(), needed, "\"" + std::string(lines_[line_].substr(column_, end - column_)) + "\"");
}

void Cursor::fail_at(int line, int column, const std::string& needed, const std::string& found) const {
  throw Error(name_ + ":" + std::to_string(line) + ":" + std::to_string(column) + ": needed " + needed + ", found " + found);
}

}  // namespace fusible::patterns
