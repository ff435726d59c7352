// Free-form rules of a user's pattern file: proved by the same laws as the vocabulary's chains.

#include "fusible/pattern.h"
#include "passes/rewrite.h"

namespace fusible {

namespace {

using patterns::Match;

// Of constants only: the sizes and the dtype in the type of another value are those of the example that it was traced with.
class MatchedFacts : public Matched {
 public:
  MatchedFacts(const Match& match, const Facts& facts) : match_(match), facts_(facts) {}

  const c10::IValue* constant(const std::string& variable) const override {
    Value* value = match_[variable];
    if (!value || facts_.is_written(value)) return nullptr;
    return facts_.constant(value);
  }
  std::optional<at::ScalarType> dtype(const std::string& variable) const override {
    if (const auto* known = constant(variable); known && known->isTensor()) return known->toTensor().scalar_type();
    return std::nullopt;
  }
  std::optional<std::vector<std::int64_t>> sizes(const std::string& variable) const override {
    if (const auto* known = constant(variable); known && known->isTensor()) return known->toTensor().sizes().vec();
    return std::nullopt;
  }

 private:
  const Match& match_;
  const Facts& facts_;
};

// Messages of torch's schema matching begin with an empty line and go on for pages.
std::string first_line(const std::string& text) {
  const auto begin = text.find_first_not_of(" \n");
  return begin == std::string::npos ? text : text.substr(begin, text.find('\n', begin) - begin);
}

Finding silent() { return Finding{codes::pattern_failed}; }

const Code* code_named(const std::string& id) {
  static const std::vector<const Code*> usable{
      &codes::intervening_op, &codes::second_use, &codes::graph_output, &codes::mutation_between, &codes::view_between, &codes::in_place_on_other,
      &codes::training_batch_norm, &codes::no_running_statistics, &codes::weight_not_constant, &codes::weight_written,
      &codes::operand_not_constant, &codes::dtype, &codes::channel_mismatch, &codes::broadcast_enlarges, &codes::not_per_channel,
      &codes::device_or_layout, &codes::alpha_not_one, &codes::unsupported_attribute, &codes::dynamic_attribute, &codes::unprofitable,
      &codes::operator_missing, &codes::strict_numerics};
  for (const Code* code : usable) {
    if (id == code->id) return code;
  }
  return nullptr;
}

// An in-place operator inside a sequence may overwrite only what the sequence made itself and nothing else reads.
bool writes_only_its_own(Node* node, const std::vector<Value*>& outside, const Facts& facts) {
  const auto& schema = node->schema();
  for (std::size_t i = 0; i < schema.arguments().size(); ++i) {
    if (!schema.is_mutable({c10::SchemaArgType::input, i})) continue;
    if (node->input(i)->uses().size() != 1) return false;
  }
  return !facts.may_write(node, outside);
}

std::optional<Finding> prove_dataflow(const Match& match, const Facts& facts) {
  const auto inside = [&](const Node* node) { return std::find(match.nodes.begin(), match.nodes.end(), node) != match.nodes.end(); };
  std::vector<Value*> outside;
  for (Node* node : match.nodes) {
    for (Value* input : node->inputs()) {
      if (!inside(input->node())) outside.push_back(input);
    }
  }
  for (Node* node : match.nodes) {
    if (node->owningBlock() != match.root->owningBlock())
      return finding_of(match, codes::block_boundary, "the whole sequence in one block", std::string(node->kind().toQualString()) + " stands in another block");
    const auto* schema = node->maybeSchema();
    if (!schema || node->hasSideEffects() || node->isNondeterministic() || (schema->is_mutable() && !writes_only_its_own(node, outside, facts)))
      return finding_of(match, codes::mutation_between, "operators without effects on what others see", std::string(node->kind().toQualString()) + " writes or has effects");
    std::vector<Value*> reads;
    for (Value* input : node->inputs()) {
      if (!inside(input->node())) reads.push_back(input);
    }
    if (node == match.root) continue;
    for (const Value* output : node->outputs()) {
      for (const auto& use : output->uses()) {
        if (inside(use.user)) continue;
        const bool returned = use.user->kind() == torch::jit::prim::Return;
        return finding_of(match, returned ? codes::graph_output : codes::second_use, "inner values that only the sequence uses",
                          std::string("the result of ") + node->kind().toQualString() + (returned ? " is returned" : " is used by ") +
                          (returned ? "" : use.user->kind().toQualString()));
      }
    }
    if (Node* writer = facts.writer_between(node, match.root, reads, match.nodes)) {
      if (is_with(writer)) return finding_of(match, codes::block_boundary, "the whole sequence inside of one `with`, or outside", "a `with` begins or ends in it");
      return finding_of(match, codes::mutation_between, "operands that nothing writes inside the sequence", std::string(writer->kind().toQualString()) + " may write one");
    }
  }
  return std::nullopt;
}

}  // namespace

Finding finding_of(const patterns::Match& match, const Code& code, const std::string& needed, const std::string& found) {
  Finding finding{code};
  finding.pattern = match.rule->name;
  finding.message = match.rule->name + " not fused: " + found;
  finding.needed = needed;
  finding.found = found;
  finding.did = "left as it is";
  finding.help = "see the rule '" + match.rule->name + "' in " + match.rule->file;
  finding.matched = static_cast<int>(match.nodes.size());
  finding.steps = finding.matched;
  finding.producer = match.nodes.front();
  return finding;
}

std::optional<Finding> prove_rule(AcceptedRule& rule, const Facts& facts, const std::unordered_set<const Node*>& claimed) {
  const Match& match = rule.match;
  for (Node* node : match.nodes) {
    if (claimed.count(node)) return silent();
  }
  if (auto finding = prove_dataflow(match, facts)) return finding;
  const MatchedFacts matched(match, facts);
  for (const auto& need : match.rule->needs) {
    const auto condition = find_condition(need.condition);
    if (!condition) return finding_of(match, codes::pattern_failed, "a registered condition", "'" + need.condition + "' is not registered");
    std::optional<Unmet> unmet;
    try {
      unmet = condition->check(matched, need.args);
    } catch (const std::exception& error) {
      return finding_of(match, codes::pattern_failed, "condition " + need.condition + " to be decided", error.what());
    }
    if (!unmet) continue;
    const Code* code = code_named(need.code.empty() ? condition->code : need.code);
    return finding_of(match, code ? *code : codes::pattern_failed, unmet->needed, unmet->found);
  }
  try {
    rehearse(rule, facts);
  } catch (const std::exception& error) {
    return finding_of(match, codes::pattern_failed, "emit lines that can be carried out", first_line(error.what()));
  }
  return std::nullopt;
}

}  // namespace fusible
