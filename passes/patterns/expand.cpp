#include "passes/patterns/expand.h"

#include <algorithm>
#include <map>

#include <torch/csrc/jit/runtime/operator.h>

#include "fusible/fusible.h"
#include "passes/patterns/check.h"
#include "passes/patterns/literal.h"
#include "passes/patterns/operations.h"
#include "passes/patterns/views.h"

namespace fusible::patterns {

namespace {

constexpr std::size_t kMaxVariants = 4096;

// A variant in the making; in-place twins that a vocabulary name brought in are checked at the end.
struct Draft {
  Variant variant;
  std::vector<bool> from_name;
};

class Expander {
 public:
  Expander(const Library& library, const std::vector<std::string>& wanted, const std::string& owner)
      : library_(library), wanted_(wanted), owner_(owner) {}

  std::vector<Draft> all(const std::vector<Operation>& operations, bool from_name) {
    std::vector<Draft> drafts(1);
    for (auto& operation : operations) {
      std::vector<Draft> grown;
      auto ways = one(operation, from_name);
      if (drafts.size() * ways.size() > kMaxVariants) {
        throw Error(owner_ + ": needed at most " + std::to_string(kMaxVariants) + " ways to spell it, found more");
      }
      for (auto& draft : drafts) {
        for (auto& way : ways) grown.push_back(joined(draft, way));
      }
      drafts = std::move(grown);
    }
    return drafts;
  }

 private:
  static Draft joined(Draft draft, const Draft& way) {
    auto offset = draft.variant.operations.size();
    for (auto& operation : way.variant.operations) draft.variant.operations.push_back(operation);
    for (auto named : way.variant.named) {
      named.operation += offset;
      draft.variant.named.push_back(std::move(named));
    }
    draft.from_name.insert(draft.from_name.end(), way.from_name.begin(), way.from_name.end());
    return draft;
  }

  std::vector<Draft> one(const Operation& operation, bool from_name) {
    std::vector<Draft> ways;
    auto add = [&](const Operation& ordered) {
      if (is_operator(operation.op)) ways.push_back(operator_way(ordered, from_name));
      else named_ways(ordered, ways);
    };
    add(operation);
    if (operation.commutative) {
      auto swapped = operation;
      std::swap(swapped.args[0], swapped.args[1]);
      add(swapped);
    }
    return ways;
  }

  bool wants(const std::string& name) const { return std::find(wanted_.begin(), wanted_.end(), name) != wanted_.end(); }

  Draft operator_way(const Operation& operation, bool from_name) const {
    Draft draft{{{operation}, {}}, {from_name}};
    for (std::size_t i = 0; i < operation.args.size() && !wanted_.empty(); ++i) {
      auto name = operation.out + "." + argument_name(operation, i);
      if (wants(name)) draft.variant.named.push_back({name, 0, i});
    }
    return draft;
  }

  // Every spelling of the entry in which each role that the operation gives exists.
  void named_ways(const Operation& operation, std::vector<Draft>& ways) {
    auto& entry = *library_.entry(operation.op);
    auto roles = roles_of(entry);
    std::map<std::string, Arg> given;
    for (std::size_t i = 0; i < operation.args.size(); ++i) {
      auto arg = operation.args[i];
      auto role = arg.role.empty() ? roles[i] : arg.role;
      if (arg.role == arg.name) arg.name.clear();  // `groups=1` compares a role, it binds no variable
      arg.role.clear();
      given[role] = std::move(arg);
    }
    for (auto& spelling : entry.spellings) {
      for (auto& draft : all(spelling.operations, true)) {
        if (substitute(draft, given, operation)) ways.push_back(std::move(draft));
      }
    }
  }

  // The entry's roles become the caller's arguments, its inner results names of their own. False when the two contradict each other.
  bool substitute(Draft& draft, const std::map<std::string, Arg>& given, const Operation& caller) {
    auto prefix = caller.out + "/" + std::to_string(fresh_++) + "/";
    std::map<std::string, std::string> results;
    auto& operations = draft.variant.operations;
    for (auto& operation : operations) {
      bool root = &operation == &operations.back();
      results[operation.out] = root ? caller.out : prefix + operation.out;
      for (auto& other : operation.others) results[other] = prefix + other;
    }
    std::map<std::string, bool> used;
    for (std::size_t i = 0; i < operations.size(); ++i) {
      for (std::size_t k = 0; k < operations[i].args.size(); ++k) {
        auto& arg = operations[i].args[k];
        if (arg.name.empty()) continue;
        if (auto result = results.find(arg.name); result != results.end()) {
          arg.name = result->second;
          continue;
        }
        auto dotted = caller.out + "." + arg.name;
        if (wants(dotted)) draft.variant.named.push_back({dotted, i, k});
        auto role = given.find(arg.name);
        arg.name = role == given.end() ? prefix + arg.name : role->second.name;
        if (role == given.end()) continue;
        used[role->first] = true;
        if (!merge(arg, role->second)) return false;
      }
    }
    for (auto& operation : operations) {
      operation.out = results[operation.out];
      for (auto& other : operation.others) other = results[other];
    }
    return used.size() == given.size();
  }

  static bool merge(Arg& arg, const Arg& given) {
    if (!given.equals) return true;
    if (arg.equals && !equals(normalized(*arg.equals), normalized(*given.equals), std::max(arg.tolerance, given.tolerance))) return false;
    arg.equals = given.equals;
    arg.tolerance = given.tolerance;
    return true;
  }

  const Library& library_;
  const std::vector<std::string>& wanted_;
  const std::string& owner_;
  int fresh_ = 0;
};

// An in-place twin that a name of the vocabulary stands for may only write to a result of this very pattern that nothing else in it reads.
bool writes_only_own_results(const Draft& draft) {
  auto& operations = draft.variant.operations;
  for (std::size_t i = 0; i < operations.size(); ++i) {
    if (!draft.from_name[i] || !writes_first_argument(operations[i].op)) continue;
    auto& written = operations[i].args[0].name;
    bool own = std::any_of(operations.begin(), operations.end(), [&](auto& o) { return o.out == written; });
    std::ptrdiff_t reads = 0;
    for (auto& operation : operations) {
      reads += std::count_if(operation.args.begin(), operation.args.end(), [&](auto& arg) { return arg.name == written; });
    }
    if (!own || reads != 1) return false;
  }
  return true;
}

void add_dotted(std::vector<std::string>& names, const std::string& name) {
  if (name.find('.') != std::string::npos && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

}  // namespace

std::string argument_name(const Operation& operation, std::size_t argument) {
  auto name = split_overload(operation.op);
  for (auto& candidate : torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(name.op))) {
    auto& schema = candidate->schema();
    if (schema.arguments().size() == operation.args.size() && (!name.overload || schema.overload_name() == *name.overload)) {
      return schema.arguments()[argument].name();
    }
  }
  return "argument " + std::to_string(argument);
}

std::vector<std::string> dotted_names(const Rule& rule) {
  std::vector<std::string> names;
  for (auto& need : rule.needs) {
    for (auto& arg : need.args) add_dotted(names, arg);
  }
  for (auto& operation : rule.emit) {
    for (auto& arg : operation.args) add_dotted(names, arg.name);
  }
  return names;
}

std::vector<Variant> expand(const Library& library, const std::vector<Operation>& operations, const std::vector<std::string>& wanted,
                            const std::string& file) {
  std::vector<Variant> variants;
  auto& first = operations.front();
  auto owner = file + ":" + std::to_string(first.line) + ":" + std::to_string(first.column);
  for (auto& draft : Expander(library, wanted, owner).all(operations, false)) {
    if (writes_only_own_results(draft)) variants.push_back(std::move(draft.variant));
  }
  return variants;
}

}  // namespace fusible::patterns
