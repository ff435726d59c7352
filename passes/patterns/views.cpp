#include "passes/patterns/views.h"

#include <algorithm>

#include <torch/csrc/jit/ir/ir.h>

#include "passes/patterns/operations.h"

namespace fusible::patterns {

NodeKey key_of(const Node* node) { return {node->kind(), node->inputs().size()}; }

bool has_overload(const Node* node, const std::string& overload) {
  auto* schema = node->maybeSchema();
  return schema && schema->overload_name() == overload;
}

bool writes_first_argument(const std::string& op) {
  auto name = split_overload(op).op;
  return name.size() > 2 && name.back() == '_' && name[name.size() - 2] != '_';
}

Views::Views(const Library& library) {
  for (auto& entry : library.entries) {
    for (auto& spelling : entry.spellings) {
      if (!spelling.is_composite() && is_operator(spelling.operations.front().op)) add(entry, spelling.operations.front());
    }
  }
  for (auto& [key, candidates] : candidates_) {
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.compared.size() > b.compared.size(); });
  }
}

void Views::add(const Entry& entry, const Operation& operation) {
  auto name = split_overload(operation.op);
  Candidate candidate{&entry, name.overload, {}, {}, {}, writes_first_argument(operation.op)};
  for (std::size_t i = 0; i < operation.args.size(); ++i) {
    auto& arg = operation.args[i];
    if (arg.equals) candidate.compared.push_back({i, normalized(*arg.equals), arg.tolerance});
    if (arg.name.empty()) continue;
    auto first = std::find_if(candidate.roles.begin(), candidate.roles.end(), [&](auto& role) { return role.first == arg.name; });
    if (first == candidate.roles.end()) candidate.roles.emplace_back(arg.name, i);
    else candidate.same.emplace_back(first->second, i);
  }
  candidates_[{c10::Symbol::fromQualString(name.op), operation.args.size()}].push_back(std::move(candidate));
}

bool Views::fits(const Candidate& candidate, Node* node, const ConstantOf& constant) {
  for (auto& [a, b] : candidate.same) {
    if (node->input(a) != node->input(b)) return false;
  }
  for (auto& compared : candidate.compared) {
    auto* value = constant(node->input(compared.input));
    auto literal = value ? as_literal(*value) : std::nullopt;
    if (!literal || !equals(compared.literal, *literal, compared.tolerance)) return false;
  }
  return !candidate.overload || has_overload(node, *candidate.overload);
}

std::optional<View> Views::find(Node* node, const ConstantOf& constant) const {
  auto found = candidates_.find(key_of(node));
  if (found == candidates_.end() || node->outputs().empty()) return std::nullopt;
  for (auto& candidate : found->second) {
    if (!fits(candidate, node, constant)) continue;
    View view;
    view.entry = candidate.entry;
    view.root = node;
    view.nodes = {node};
    view.in_place = candidate.in_place;
    view.roles.reserve(candidate.roles.size());
    for (auto& [role, input] : candidate.roles) view.roles.emplace_back(role, node->input(input));
    return view;
  }
  return std::nullopt;
}

}  // namespace fusible::patterns
