#include "ops/packed_state.h"

#include <ATen/ATen.h>

namespace fusible {
namespace {

std::string operand_key(size_t i) { return "folded_operand" + std::to_string(i); }

// The named parts of a spec, in one place for writing and reading.
template <typename Spec, typename Visit>
void visit_tensors(Spec& spec, const Visit& visit) {
  visit("weight", spec.weight);
  visit("bias", spec.bias);
  visit("fold_scale", spec.fold_scale);
  visit("fold_shift", spec.fold_shift);
  visit("unfolded_weight", spec.unfolded_weight);
  visit("unfolded_bias", spec.unfolded_bias);
}

template <typename Spec, typename Visit>
void visit_lists(Spec& spec, const Visit& visit) {
  visit("stride", spec.stride);
  visit("padding", spec.padding);
  visit("dilation", spec.dilation);
  visit("output_padding", spec.output_padding);
}

}  // namespace

SavedState save_state(const ContractionSpec& spec) {
  c10::Dict<std::string, at::Tensor> tensors;
  c10::Dict<std::string, std::vector<std::int64_t>> lists;
  c10::Dict<std::string, std::string> strings;
  visit_tensors(spec, [&](const char* key, const at::Tensor& tensor) {
    if (tensor.defined()) tensors.insert(key, tensor);
  });
  visit_lists(spec, [&](const char* key, const std::vector<std::int64_t>& list) { lists.insert(key, list); });
  lists.insert("kind", std::vector<std::int64_t>{static_cast<std::int64_t>(spec.kind)});
  lists.insert("groups", std::vector<std::int64_t>{spec.groups});
  lists.insert("expected_rank", std::vector<std::int64_t>{spec.expected_rank});
  std::vector<std::int64_t> present;
  for (size_t i = 0; i < spec.folded_operands.size(); ++i) {
    present.push_back(spec.folded_operands[i].defined());
    if (present.back()) tensors.insert(operand_key(i), spec.folded_operands[i]);
  }
  lists.insert("folded_operands", present);
  strings.insert("padding_mode", spec.padding_mode);
  strings.insert("folded_ops", spec.folded_ops);
  if (!spec.choices.empty()) strings.insert("choices", print_choices(spec.choices));
  return {kStateVersion, tensors, lists, strings};
}

ContractionSpec load_state(const SavedState& state) {
  const auto& [version, tensors, lists, strings] = state;
  TORCH_CHECK(version >= 1 && version <= kStateVersion, "fusible.Contraction needs a saved state of format 1 to ", kStateVersion, ", found ",
              version, ": load the model with the release of fusible that saved it or a later one");
  const auto list = [&lists = lists](const std::string& key) {
    const auto found = lists.find(key);
    return found == lists.end() ? std::vector<std::int64_t>{} : found->value();
  };
  const auto number = [&list](const std::string& key, std::int64_t missing) {
    const std::vector<std::int64_t> found = list(key);
    TORCH_CHECK(found.size() <= 1, "fusible.Contraction needs one number as ", key, " in its saved state, found ", found.size());
    return found.empty() ? missing : found[0];
  };
  const auto tensor = [&tensors = tensors](const std::string& key) {
    const auto found = tensors.find(key);
    return found == tensors.end() ? at::Tensor() : found->value();
  };
  const auto text = [&strings = strings](const std::string& key) {
    const auto found = strings.find(key);
    return found == strings.end() ? std::string() : found->value();
  };
  ContractionSpec spec;
  visit_tensors(spec, [&](const char* key, at::Tensor& into) { into = tensor(key); });
  visit_lists(spec, [&](const char* key, std::vector<std::int64_t>& into) { into = list(key); });
  const std::int64_t kind = number("kind", 0);
  TORCH_CHECK(kind >= 0 && kind <= static_cast<std::int64_t>(Contraction::linear), "fusible.Contraction needs a kind of 0 to 2 in its saved state, found ",
              kind);
  spec.kind = static_cast<Contraction>(kind);
  spec.groups = number("groups", 1);
  spec.expected_rank = number("expected_rank", 0);
  const std::vector<std::int64_t> present = list("folded_operands");
  for (size_t i = 0; i < present.size(); ++i) {
    spec.folded_operands.push_back(present[i] ? tensor(operand_key(i)) : at::Tensor());
    TORCH_CHECK(!present[i] || spec.folded_operands.back().defined(), "fusible.Contraction needs ", operand_key(i),
                " in its saved state, found none");
  }
  spec.padding_mode = text("padding_mode");
  spec.folded_ops = text("folded_ops");
  spec.choices = parse_choices(text("choices"));
  return spec;
}

}  // namespace fusible
