#include "passes/patterns/operations.h"

#include <algorithm>
#include <array>
#include <set>

#include <torch/csrc/jit/runtime/operator.h>

#include "fusible/pattern.h"

namespace fusible::patterns {

namespace {

// Nodes of the interpreter that have no schema and take any number of arguments.
constexpr std::array kWithoutSchema = {"prim::ListConstruct", "prim::ListUnpack", "prim::TupleConstruct", "prim::TupleUnpack"};

Arg parse_argument(Cursor& cursor, bool emits) {
  Arg arg;
  if (cursor.at_literal()) {
    arg.equals = cursor.literal();
  } else {
    arg.name = emits ? cursor.qualified("a variable, a literal or \"_\"") : cursor.identifier("a variable, a literal or \"_\"");
    if (arg.name == "_") {
      arg.name.clear();
    } else if (cursor.accept('=')) {
      arg.role = arg.name;
      if (!cursor.at_literal()) cursor.fail("a literal after \"=\"");
      arg.equals = cursor.literal();
    }
  }
  if (cursor.accept('~')) {
    if (!arg.equals || !(std::holds_alternative<double>(*arg.equals) || std::holds_alternative<std::int64_t>(*arg.equals))) {
      cursor.fail("a number before \"~\"");
    }
    arg.tolerance = cursor.number();
  }
  return arg;
}

Operation parse_operation(Cursor& cursor, bool emits) {
  Operation operation;
  operation.out = cursor.identifier("a variable for the result");
  while (cursor.accept(',')) operation.others.push_back(cursor.identifier("a variable for a further result"));
  cursor.expect('=');
  cursor.skip_space();
  operation.line = cursor.line();
  operation.column = cursor.column();
  operation.op = cursor.qualified("an operator (\"aten::relu\") or a name of the vocabulary (\"relu\")");
  cursor.expect('(');
  if (!cursor.accept(')')) {
    do operation.args.push_back(parse_argument(cursor, emits));
    while (cursor.accept(','));
    cursor.expect(')');
  }
  operation.commutative = cursor.accept_word("commutative");
  if (operation.commutative && operation.args.size() < 2) cursor.fail("at least two arguments of a commutative operation");
  return operation;
}

bool writes_to_out(const c10::FunctionSchema& schema) {
  return std::any_of(schema.arguments().begin(), schema.arguments().end(), [](const c10::Argument& argument) { return argument.is_out(); });
}

}  // namespace

OperatorName split_overload(const std::string& op) {
  auto dot = op.find('.');
  if (dot == std::string::npos) return {op, std::nullopt};
  auto overload = op.substr(dot + 1);
  return {op.substr(0, dot), overload == "default" ? "" : overload};
}

std::string schema_mismatch(const std::string& op, std::size_t arguments) {
  auto name = split_overload(op);
  for (auto* free : kWithoutSchema) {
    if (name.op == free) return "";
  }
  auto found = torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(name.op));
  if (found.empty()) return "\"" + name.op + "\", which the running torch does not have";
  std::set<std::size_t> arities;
  bool overload_exists = false;
  for (auto& candidate : found) {
    auto& schema = candidate->schema();
    if (name.overload ? schema.overload_name() != *name.overload : writes_to_out(schema)) continue;
    overload_exists = true;
    if (schema.is_vararg() || schema.arguments().size() == arguments) return "";
    arities.insert(schema.arguments().size());
  }
  if (!overload_exists) return "\"" + op + "\": " + name.op + " has no such overload";
  std::string takes;
  for (auto arity : arities) takes += (takes.empty() ? "" : " or ") + std::to_string(arity);
  return std::to_string(arguments) + " (" + op + " takes " + takes + ")";
}

std::vector<Operation> parse_operations(Cursor& cursor, bool emits) {
  std::vector<Operation> operations;
  for (;;) {
    operations.push_back(parse_operation(cursor, emits));
    auto& last = operations.back();
    if (operations.size() > kMaxOperations) {
      cursor.fail_at(last.line, last.column, "at most " + std::to_string(kMaxOperations) + " operations", "more");
    }
    if (is_operator(last.op)) {
      auto mismatch = schema_mismatch(last.op, last.args.size());
      if (!mismatch.empty()) cursor.fail_at(last.line, last.column, "an operator with its number of arguments", mismatch);
    } else if (last.op.find('.') != std::string::npos) {
      cursor.fail_at(last.line, last.column, "an operator (\"aten::relu\") or a name", "\"" + last.op + "\"");
    }
    if (!cursor.accept(';')) break;
    if (cursor.at_line_end() && !cursor.next_line()) cursor.fail("an operation after \";\"");
  }
  cursor.end_line();
  return operations;
}

}  // namespace fusible::patterns
