#include "passes/patterns/ir_pair.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/irparser.h>
#include <torch/csrc/jit/ir/ir.h>

#include "fusible/fusible.h"
#include "passes/patterns/check.h"
#include "passes/patterns/literal.h"
#include "passes/patterns/operations.h"

namespace fusible::patterns {

namespace {

constexpr std::array kBlocks = {"contraction ", "activation ", "binary ", "normalization ", "transparent ", "rule ", "pattern "};

bool starts_block(std::string_view line) {
  return std::any_of(kBlocks.begin(), kBlocks.end(), [&](std::string_view word) { return line.substr(0, word.size()) == word; });
}

// torch's parser recurses into brackets, which overflows the stack of the host where they nest deeply enough; operators stay below ten.
constexpr int kDeepest = 100;

bool nests_too_deeply(std::string_view text) {
  int depth = 0;
  return std::any_of(text.begin(), text.end(), [&](char c) {
    const bool opens = c == '(' || c == '[' || c == '{' || c == '<', closes = c == ')' || c == ']' || c == '}' || c == '>';
    depth = std::max(depth + opens - closes, 0);
    return depth > kDeepest;
  });
}

// One graph of the pair as operations.
class Reader {
 public:
  Reader(const Cursor& cursor, int line) : cursor_(cursor), line_(line) {}

  // torch's parser and its readers of attributes throw exceptions of several kinds.
  std::vector<Operation> read(const std::string& text) {
    if (nests_too_deeply(text)) cursor_.fail_at(line_, 1, "brackets that nest at most " + std::to_string(kDeepest) + " deep", "more");
    torch::jit::Graph graph;
    try {
      torch::jit::parseIR(text, &graph);
      return read(graph);
    } catch (const Error&) {
      throw;
    } catch (const std::exception& e) {
      std::string why = e.what();
      cursor_.fail_at(line_, 1, "TorchScript IR", why.substr(0, why.find('\n')));
    }
  }

  std::vector<std::string> inputs;

 private:
  std::vector<Operation> read(torch::jit::Graph& graph) {
    if (graph.outputs().size() != 1) cursor_.fail_at(line_, 1, "one returned value", std::to_string(graph.outputs().size()));
    for (auto* input : graph.inputs()) inputs.push_back(name(input));
    std::vector<Operation> operations;
    for (auto* node : graph.nodes()) {
      if (!read_constant(node)) operations.push_back(read_node(node));
    }
    if (operations.empty() || operations.back().out != name(graph.outputs()[0])) {
      cursor_.fail_at(line_, 1, "the returned value to be the last operation's result", "another");
    }
    return operations;
  }

  std::string name(const Value* value) {
    auto& known = names_[value];
    if (known.empty()) known = "v_" + value->debugName();
    return known;
  }

  // Constants and lists of them are compared (or written) in place of a variable.
  bool read_constant(const torch::jit::Node* node) {
    std::optional<Literal> literal;
    if (node->kind() == c10::prim::Constant) {
      auto value = torch::jit::toIValue(node->output());
      literal = value ? as_literal(*value) : std::nullopt;
      if (!literal)
        cursor_.fail_at(line_, 1, "constants that are None, bool, number, string or int list", "%" + node->output()->debugName());
    } else if (node->kind() == c10::prim::ListConstruct) {
      std::vector<std::int64_t> list;
      for (auto* item : node->inputs()) {
        auto value = torch::jit::toIValue(item);
        if (!value || !value->isInt()) return false;
        list.push_back(value->toInt());
      }
      literal = std::move(list);
    }
    if (literal) constants_[node->output()] = *literal;
    return literal.has_value();
  }

  Operation read_node(const torch::jit::Node* node) {
    if (!node->blocks().empty() || node->hasAttributes()) {
      cursor_.fail_at(line_, 1, "operators without blocks and attributes", node->kind().toQualString());
    }
    Operation operation;
    operation.op = node->kind().toQualString();
    operation.line = line_;
    operation.column = 1;
    for (auto* input : node->inputs()) {
      Arg arg;
      auto constant = constants_.find(input);
      if (constant == constants_.end()) arg.name = name(input);
      else arg.equals = constant->second;
      operation.args.push_back(std::move(arg));
    }
    auto mismatch = schema_mismatch(operation.op, operation.args.size());
    if (!mismatch.empty()) cursor_.fail_at(line_, 1, "an operator with its number of arguments", mismatch);
    for (auto* output : node->outputs()) {
      if (operation.out.empty()) operation.out = name(output);
      else operation.others.push_back(name(output));
    }
    return operation;
  }

  const Cursor& cursor_;
  int line_;
  std::unordered_map<const Value*, std::string> names_;
  std::unordered_map<const Value*, Literal> constants_;
};

}  // namespace

Rule parse_ir_pair(Cursor& cursor) {
  Rule rule;
  rule.file = cursor.name();
  rule.name = cursor.identifier("a name");
  int line = cursor.line(), column = cursor.column();
  cursor.end_line();
  std::string pattern, replacement;
  int pattern_line = line + 1, replacement_line = 0;
  while (cursor.next_line() && !starts_block(cursor.raw_line())) {
    cursor.skip_space();
    auto text = cursor.raw_line().substr(static_cast<std::size_t>(cursor.column()) - 1);
    if (text.substr(0, 2) == "=>") {
      replacement_line = cursor.line() + 1;
      continue;
    }
    (replacement_line ? replacement : pattern).append(cursor.raw_line()).push_back('\n');
  }
  if (!replacement_line) cursor.fail_at(line, column, "two graphs joined by \"=>\" in pattern \"" + rule.name + "\"", "one");
  Reader from(cursor, pattern_line), to(cursor, replacement_line);
  rule.match = from.read(pattern);
  rule.emit = to.read(replacement);
  if (from.inputs.size() != to.inputs.size()) {
    cursor.fail_at(replacement_line, 1, std::to_string(from.inputs.size()) + " inputs as in the pattern", std::to_string(to.inputs.size()));
  }
  // The two graphs' inputs correspond by position; results of the replacement are named apart from the pattern's.
  auto rename = [&](std::string& name) {
    auto input = std::find(to.inputs.begin(), to.inputs.end(), name);
    if (input != to.inputs.end()) name = from.inputs[static_cast<std::size_t>(input - to.inputs.begin())];
    else if (!name.empty()) name = "new_" + name;
  };
  for (auto& operation : rule.emit) {
    rename(operation.out);
    for (auto& other : operation.others) rename(other);
    for (auto& arg : operation.args) rename(arg.name);
  }
  check_rule(cursor, rule, line, column);
  return rule;
}

}  // namespace fusible::patterns
