#pragma once

// A place in a pattern file, and the tokens that can stand there.

#include <string>
#include <string_view>
#include <vector>

#include "passes/patterns/library.h"

namespace fusible::patterns {

class Cursor {
 public:
  Cursor(std::string_view text, std::string name);

  // Lines. The cursor stands at the start of a line's text; comments and blank lines do not count.
  bool next_line();                        // the next line that says something; false at the end of the file
  bool done() const { return line_ >= lines_.size(); }
  int indent() const;                      // of the current line
  int line() const { return static_cast<int>(line_) + 1; }
  int column() const { return static_cast<int>(column_) + 1; }
  std::string_view raw_line() const { return lines_[line_]; }
  void to_next_raw_line() { ++line_, column_ = 0; }
  std::string indented_text(int deeper_than);  // the lines below that are indented more, dedented; the cursor stays on the last of them

  // Tokens of the current line.
  void skip_space();
  bool at_line_end();                      // nothing but a comment follows
  char peek();
  bool accept(char c);
  void expect(char c);
  bool accept_word(std::string_view word);
  std::string identifier(const char* needed);   // letters, digits, "_"
  std::string qualified(const char* needed);    // identifier ("::" identifier)? ("." identifier)?
  bool at_literal();
  Literal literal();
  double number();
  std::string quoted();
  std::string rest_of_line();              // without comment and trailing space
  void end_line();                         // an error when anything follows

  // Throws fusible::Error "name:line:column: needed ..., found <what stands here>".
  [[noreturn]] void fail(const std::string& needed);
  [[noreturn]] void fail_at(int line, int column, const std::string& needed, const std::string& found) const;
  const std::string& name() const { return name_; }

 private:
  bool says_something() const;
  std::vector<std::string_view> lines_;
  std::string name_;
  std::size_t line_ = 0, column_ = 0;
};

}  // namespace fusible::patterns
