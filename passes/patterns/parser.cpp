#include <algorithm>
#include <array>

#include "fusible/fusible.h"
#include "fusible/pattern.h"
#include "passes/patterns/check.h"
#include "passes/patterns/cursor.h"
#include "passes/patterns/ir_pair.h"
#include "passes/patterns/operations.h"
#include "passes/patterns/parser.h"

namespace fusible::patterns {

namespace {

constexpr std::array<std::pair<const char*, Entry::Kind>, 5> kKinds = {{
    {"contraction", Entry::Kind::contraction}, {"activation", Entry::Kind::activation}, {"binary", Entry::Kind::binary},
    {"normalization", Entry::Kind::normalization}, {"transparent", Entry::Kind::transparent}}};

void parse_case(Cursor& cursor, std::vector<Case>& cases) {
  Case one;
  one.line = cursor.line();
  int indent = cursor.indent();
  if (cursor.accept_word("declines")) {
    one.fuses = false;
    one.code = cursor.identifier("the code it declines with");
  } else if (!cursor.accept_word("fuses")) {
    cursor.fail("\"fuses\" or \"declines CODE\"");
  }
  bool constant = false;
  while (!cursor.at_line_end()) {
    if (cursor.accept_word("const")) {
      constant = true;
      continue;
    }
    CaseArgument argument;
    argument.constant = constant;
    argument.name = cursor.identifier("an argument with its sizes, \"x[2, 3, 8, 8]\"");
    if (cursor.peek() != '[') cursor.fail("sizes in brackets");
    argument.sizes = std::get<std::vector<std::int64_t>>(cursor.literal());
    argument.positive = cursor.accept('+');
    one.arguments.push_back(std::move(argument));
  }
  one.source = cursor.indented_text(indent);
  if (one.source.find("def ") == std::string::npos) {
    cursor.fail_at(one.line, 1, "an indented TorchScript function below the case", "none");
  }
  cases.push_back(std::move(one));
}

void parse_step(Cursor& cursor, Entry& entry) {
  cursor.skip_space();
  const int column = cursor.column();
  entry.step = cursor.identifier("the name of a post-op step");
  int end = cursor.column();
  if (cursor.accept('(')) {
    std::string fixed;
    do {
      if (cursor.peek() == '"') fixed += (fixed.empty() ? "" : ", ") + cursor.quoted();
      else entry.step_args.push_back(cursor.identifier("a role, or a fixed argument in quotes"));
    } while (cursor.accept(','));
    cursor.expect(')');
    if (!fixed.empty() && !entry.step_args.empty()) cursor.fail("either roles or fixed arguments in a step");
    if (!fixed.empty()) entry.step += "(" + fixed + ")";
    end = cursor.column();
  }
  const auto from = static_cast<std::size_t>(column) - 1;
  check_step(cursor, entry, column, std::string(cursor.raw_line().substr(from, static_cast<std::size_t>(end) - 1 - from)));
}

// One key of a vocabulary block. Returns false when it only extends an entry (a spelling or a case).
bool parse_entry_key(Cursor& cursor, Entry& entry) {
  if (cursor.accept_word("spelling")) {
    entry.spellings.push_back({parse_operations(cursor), cursor.name()});
    check_spelling(cursor, entry, entry.spellings.back());
    return false;
  }
  if (cursor.accept_word("case")) {
    parse_case(cursor, entry.cases);
    return false;
  }
  if (cursor.accept_word("doc")) entry.doc += (entry.doc.empty() ? "" : " ") + cursor.rest_of_line();
  else if (cursor.accept_word("algebra")) entry.algebra = cursor.rest_of_line();
  else if (cursor.accept_word("gradient")) entry.gradient = cursor.rest_of_line();
  else if (cursor.accept_word("onednn")) entry.onednn = cursor.rest_of_line();
  else if (cursor.accept_word("step")) parse_step(cursor, entry);
  else if (cursor.accept_word("numerics")) {
    auto column = cursor.column();
    entry.numerics = cursor.rest_of_line();
    bool ulp = entry.numerics.rfind("ulp(", 0) == 0 && entry.numerics.back() == ')' && entry.numerics.size() > 5 &&
               std::all_of(entry.numerics.begin() + 4, entry.numerics.end() - 1, [](unsigned char c) { return std::isdigit(c); });
    if (entry.numerics != "exact" && !ulp) cursor.fail_at(cursor.line(), column + 1, "exact or ulp(n)", "\"" + entry.numerics + "\"");
  } else if (cursor.accept_word("nan")) {
    if (cursor.accept_word("loses")) entry.onednn_keeps_nan = false;
    else if (!cursor.accept_word("keeps")) cursor.fail("\"keeps\" or \"loses\"");
  } else {
    cursor.fail("one of doc, algebra, gradient, onednn, numerics, nan, step, spelling, case");
  }
  cursor.end_line();
  return true;
}

void parse_entry(Cursor& cursor, Entry::Kind kind, Library& library) {
  Entry entry;
  entry.kind = kind;
  entry.file = cursor.name();
  cursor.skip_space();
  int line = cursor.line(), column = cursor.column();
  entry.name = cursor.identifier("a name");
  cursor.end_line();
  auto old = std::find_if(library.entries.begin(), library.entries.end(), [&](const Entry& e) { return e.name == entry.name; });
  while (cursor.next_line() && cursor.indent() > 0) {
    cursor.skip_space();
    int key_line = cursor.line(), key_column = cursor.column();
    if (parse_entry_key(cursor, entry) && old != library.entries.end()) {
      cursor.fail_at(key_line, key_column, "only spellings and cases, because " + old->file + " already describes \"" + entry.name + "\"",
                     "another key");
    }
  }
  if (old != library.entries.end()) {
    if (old->kind != kind)
      cursor.fail_at(line, column, "a name of its own", "\"" + entry.name + "\", another kind of entry in " + old->file);
    old->spellings.insert(old->spellings.end(), entry.spellings.begin(), entry.spellings.end());
    old->cases.insert(old->cases.end(), entry.cases.begin(), entry.cases.end());
    return;
  }
  if (entry.spellings.empty()) cursor.fail_at(line, column, "at least one spelling of \"" + entry.name + "\"", "none");
  bool has_step = kind == Entry::Kind::activation || kind == Entry::Kind::binary || kind == Entry::Kind::normalization;
  if (has_step && entry.step.empty()) cursor.fail_at(line, column, "a step for \"" + entry.name + "\"", "none");
  library.entries.push_back(std::move(entry));
}

void parse_need(Cursor& cursor, Rule& rule) {
  Need need;
  cursor.skip_space();
  need.line = cursor.line();
  int column = cursor.column();
  need.condition = cursor.identifier("a condition");
  auto known = find_condition(need.condition);
  if (!known) cursor.fail_at(need.line, column, "a registered condition", "\"" + need.condition + "\"");
  need.code = known->code;
  cursor.expect('(');
  if (!cursor.accept(')')) {
    do {
      cursor.skip_space();
      if (cursor.at_literal() && cursor.peek() != '"') {
        auto from = static_cast<std::size_t>(cursor.column()) - 1;
        cursor.literal();
        need.args.emplace_back(cursor.raw_line().substr(from, static_cast<std::size_t>(cursor.column()) - 1 - from));
      } else {
        need.args.push_back(cursor.peek() == '"' ? cursor.quoted() : cursor.qualified("a variable or a literal"));
      }
    } while (cursor.accept(','));
    cursor.expect(')');
  }
  if (cursor.accept_word("else")) need.code = cursor.identifier("a code");
  cursor.end_line();
  rule.needs.push_back(std::move(need));
}

void append(std::vector<Operation>& to, std::vector<Operation> operations) {
  to.insert(to.end(), std::make_move_iterator(operations.begin()), std::make_move_iterator(operations.end()));
}

bool parse_exactness(Cursor& cursor) {
  const bool exact = cursor.accept_word("exact");
  if (!exact && !cursor.accept_word("reassociates")) cursor.fail("exact or reassociates");
  cursor.end_line();
  return exact;
}

Rule parse_rule(Cursor& cursor) {
  Rule rule;
  rule.file = cursor.name();
  rule.name = cursor.identifier("a name");
  int line = cursor.line(), column = cursor.column();
  cursor.end_line();
  while (cursor.next_line() && cursor.indent() > 0) {
    cursor.skip_space();
    if (cursor.accept_word("match")) append(rule.match, parse_operations(cursor));
    else if (cursor.accept_word("emit")) append(rule.emit, parse_operations(cursor, true));
    else if (cursor.accept_word("need")) parse_need(cursor, rule);
    else if (cursor.accept_word("case")) parse_case(cursor, rule.cases);
    else if (cursor.accept_word("doc")) rule.doc += (rule.doc.empty() ? "" : " ") + cursor.rest_of_line();
    else if (cursor.accept_word("numerics")) rule.exact = parse_exactness(cursor);
    else cursor.fail("one of doc, numerics, match, need, emit, case");
  }
  if (rule.match.empty()) cursor.fail_at(line, column, "a match in rule \"" + rule.name + "\"", "none");
  if (rule.emit.empty()) cursor.fail_at(line, column, "an emit in rule \"" + rule.name + "\"", "none");
  check_rule(cursor, rule, line, column);
  return rule;
}

void add_rule(Cursor& cursor, Library& library, Rule rule, int line, int column) {
  for (auto& old : library.rules) {
    if (old.name == rule.name)
      cursor.fail_at(line, column, "a name of its own", "rule \"" + rule.name + "\" again (the first is in " + old.file + ")");
  }
  library.rules.push_back(std::move(rule));
}

}  // namespace

void parse_blocks(Library& library, const std::string& text, const std::string& name) {
  Cursor cursor(text, name);
  while (!cursor.done()) {
    if (cursor.indent() > 0) {
      cursor.skip_space();
      cursor.fail("a block at the start of a line");
    }
    auto kind = std::find_if(kKinds.begin(), kKinds.end(), [&](auto& k) { return cursor.accept_word(k.first); });
    if (kind != kKinds.end()) {
      parse_entry(cursor, kind->second, library);
      continue;
    }
    bool rule = cursor.accept_word("rule");
    if (!rule && !cursor.accept_word("pattern"))
      cursor.fail("one of contraction, activation, binary, normalization, transparent, rule, pattern");
    cursor.skip_space();
    int line = cursor.line(), column = cursor.column();
    add_rule(cursor, library, rule ? parse_rule(cursor) : parse_ir_pair(cursor), line, column);
  }
}

void parse_into(Library& library, const std::string& text, const std::string& name) {
  Library grown = library;
  parse_blocks(grown, text, name);
  check_vocabulary(grown);
  library = std::move(grown);
}

}  // namespace fusible::patterns
