#include "passes/patterns/check.h"

#include <algorithm>
#include <set>

#include "fusible/fusible.h"
#include "fusible/pattern.h"
#include "ops/post_op.h"
#include "passes/patterns/operations.h"

namespace fusible::patterns {

namespace {

std::string quote(const std::string& text) { return "\"" + text + "\""; }

std::vector<std::string> outs(const Operation& operation) {
  std::vector<std::string> all{operation.out};
  all.insert(all.end(), operation.others.begin(), operation.others.end());
  return all;
}

// SSA: a result is named once, before its uses; all but the last are used.
void check_ssa(const Cursor& cursor, const std::vector<Operation>& operations) {
  if (operations.size() > kMaxOperations) {
    auto& first = operations.front();
    cursor.fail_at(first.line, first.column, "at most " + std::to_string(kMaxOperations) + " operations",
                   std::to_string(operations.size()));
  }
  std::set<std::string> defined, seen;
  for (auto& operation : operations) {
    for (auto& arg : operation.args) seen.insert(arg.name);
    for (auto& out : outs(operation)) {
      if (out != "_" && (seen.count(out) || !defined.insert(out).second)) {
        cursor.fail_at(operation.line, operation.column, "a new variable for each result, before its uses", quote(out) + " again");
      }
    }
  }
  std::set<std::string> used;
  for (auto operation = operations.rbegin(); operation != operations.rend(); ++operation) {
    auto results = outs(*operation);
    bool leads = operation == operations.rbegin() || std::any_of(results.begin(), results.end(), [&](auto& r) { return used.count(r); });
    if (!leads)
      cursor.fail_at(operation->line, operation->column, "a use of " + quote(operation->out) + " that leads to the last operation", "none");
    for (auto& arg : operation->args) used.insert(arg.name);
  }
}

bool has_role(const Spelling& spelling, const std::string& role) {
  for (auto& operation : spelling.operations) {
    for (auto& arg : operation.args) {
      if (arg.name == role) return true;
    }
  }
  return false;
}

void check_operations(const Library& library, const std::vector<Operation>& operations, const std::string& file) {
  for (auto& operation : operations) {
    if (is_operator(operation.op)) continue;
    auto where = file + ":" + std::to_string(operation.line) + ":" + std::to_string(operation.column) + ": needed ";
    auto* entry = library.entry(operation.op);
    if (!entry) throw Error(where + "an operator (\"aten::...\") or a name of the vocabulary, found " + quote(operation.op));
    auto roles = roles_of(*entry);
    for (std::size_t i = 0; i < operation.args.size(); ++i) {
      auto& role = operation.args[i].role;
      if (!role.empty() && std::none_of(entry->spellings.begin(), entry->spellings.end(), [&](auto& s) { return has_role(s, role); })) {
        throw Error(where + "a role of " + quote(entry->name) + ", found " + quote(role));
      }
      if (role.empty() && i >= roles.size()) {
        throw Error(where + "at most " + std::to_string(roles.size()) + " arguments of " + quote(entry->name) + ", found " +
                    std::to_string(operation.args.size()));
      }
    }
  }
}

// What the pass adds to a step itself is no part of it: the operand of prelu and of a batch_norm, "r" and "_" of a sum or product.
bool is_of_kind(const Entry& entry, const PostOp& step) {
  if (step.in_place || step.reversed) return false;
  switch (entry.kind) {
    case Entry::Kind::binary: return step.is_binary() && step.scalars.empty();
    case Entry::Kind::normalization: return step.kind == PostOpKind::batch_norm;
    case Entry::Kind::activation: return step.operands == (entry.name == "prelu" ? 1 : 0);
    default: return true;
  }
}

// With a number or a word (gelu's) for each role, and none for those that the spelling lacks.
bool is_known_step(const Entry& entry, const Spelling* spelling) {
  for (const char* given : {"1", "tanh"}) {
    std::string arguments;
    for (auto& role : entry.step_args) {
      arguments += (arguments.empty() ? "" : ", ") + std::string(!spelling || has_role(*spelling, role) ? given : "none");
    }
    try {
      auto& steps = parse_post_ops(arguments.empty() ? entry.step : entry.step + "(" + arguments + ")");
      return steps.size() == 1 && is_of_kind(entry, steps[0]);
    } catch (const c10::Error&) {
      continue;
    }
  }
  return false;
}

void check_step_roles(const Entry& entry, const Spelling& spelling) {
  if (entry.step.empty() || is_known_step(entry, &spelling)) return;
  auto& root = spelling.operations.back();
  auto lacking = std::find_if(entry.step_args.begin(), entry.step_args.end(), [&](auto& role) { return !has_role(spelling, role); });
  throw Error(spelling.file + ":" + std::to_string(root.line) + ":" + std::to_string(root.column) + ": needed an argument with the role " +
              *lacking + ", without which there is no step " + quote(entry.step) + ", found none");
}

// Depth-first over the entries that spell each other.
void check_cycles(const Library& library, const Entry& entry, std::vector<const Entry*>& path, std::set<const Entry*>& done) {
  if (done.count(&entry)) return;
  if (std::find(path.begin(), path.end(), &entry) != path.end()) {
    throw Error(entry.file + ":1:1: needed entries that do not spell each other in a circle, found one through " + quote(entry.name));
  }
  path.push_back(&entry);
  for (auto& spelling : entry.spellings) {
    for (auto& operation : spelling.operations) {
      if (!is_operator(operation.op)) check_cycles(library, *library.entry(operation.op), path, done);
    }
  }
  path.pop_back();
  done.insert(&entry);
}

}  // namespace

std::vector<std::string> roles_of(const Entry& entry) {
  std::vector<std::string> roles;
  std::set<std::string> results;
  for (auto& operation : entry.spellings.front().operations) {
    for (auto& arg : operation.args) {
      if (!arg.name.empty() && !results.count(arg.name) && std::find(roles.begin(), roles.end(), arg.name) == roles.end()) {
        roles.push_back(arg.name);
      }
    }
    for (auto& out : outs(operation)) results.insert(out);
  }
  return roles;
}

void check_spelling(const Cursor& cursor, const Entry& entry, const Spelling& spelling) {
  check_ssa(cursor, spelling.operations);
  auto& root = spelling.operations.back();
  auto need = [&](bool there, const char* role) {
    if (!there) cursor.fail_at(root.line, root.column, "an argument with the role " + std::string(role), "none");
  };
  if (entry.kind == Entry::Kind::binary) {
    need(has_role(spelling, "lhs"), "lhs");
    need(has_role(spelling, "rhs"), "rhs");
    return;
  }
  need(has_role(spelling, "x"), "x");
  if (entry.kind == Entry::Kind::contraction) need(has_role(spelling, "weight") || has_role(spelling, "weight_t"), "weight (or weight_t)");
}

void check_step(const Cursor& cursor, const Entry& entry, int column, const std::string& written) {
  if (!is_known_step(entry, nullptr)) {
    cursor.fail_at(cursor.line(), column, "a post-op step for such an entry, with its arguments (ops/post_op.h)", quote(written));
  }
}

void check_rule(const Cursor& cursor, const Rule& rule, int line, int column) {
  check_ssa(cursor, rule.match);
  std::set<std::string> known, matched;
  for (auto& operation : rule.match) {
    for (auto& arg : operation.args) known.insert(arg.name);
    for (auto& out : outs(operation)) {
      known.insert(out);
      matched.insert(out);
    }
  }
  auto is_known = [&](const std::string& name) {
    auto dot = name.find('.');
    return dot == std::string::npos ? known.count(name) > 0 : matched.count(name.substr(0, dot)) > 0;
  };
  for (auto& need : rule.needs) {
    bool speaks = std::any_of(need.args.begin(), need.args.end(), is_known);
    if (!speaks) cursor.fail_at(need.line, 1, "a matched variable in need " + need.condition, "none");
  }
  for (auto& operation : rule.emit) {
    for (auto& arg : operation.args) {
      if (!arg.name.empty() && !is_known(arg.name)) {
        cursor.fail_at(operation.line, operation.column, "a matched or built variable", quote(arg.name));
      }
    }
    if (!is_operator(operation.op) && !find_builder(operation.op)) {
      cursor.fail_at(operation.line, operation.column, "an operator or a registered builder", quote(operation.op));
    }
    for (auto& out : outs(operation)) known.insert(out);
  }
  auto& last = rule.emit.back();
  if (!last.others.empty()) cursor.fail_at(line, column, "one result of the last emit", std::to_string(1 + last.others.size()));
}

void check_vocabulary(const Library& library) {
  for (auto& entry : library.entries) {
    for (auto& spelling : entry.spellings) {
      check_operations(library, spelling.operations, spelling.file);
      check_step_roles(entry, spelling);
    }
  }
  for (auto& rule : library.rules) check_operations(library, rule.match, rule.file);
  std::set<const Entry*> done;
  std::vector<const Entry*> path;
  for (auto& entry : library.entries) check_cycles(library, entry, path, done);
}

}  // namespace fusible::patterns
