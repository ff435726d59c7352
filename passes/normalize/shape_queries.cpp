#include "passes/normalize/normalize.h"

namespace fusible {

namespace {

namespace aten = torch::jit::aten;

// A convolution's result has a fixed rank in the ScriptModule itself: the executor's peephole folds conv2d(...).dim() to 4
// (pytorch PR#50221), so folding it here is what the original computes. It does not see through any operator after the convolution.
std::optional<std::int64_t> rank_of(const Value* value) {
  static const std::unordered_map<c10::Symbol, std::int64_t> ranks{
      {aten::conv1d, 3}, {aten::conv2d, 4}, {aten::conv3d, 5}};
  auto it = ranks.find(value->node()->kind());
  return it == ranks.end() ? std::nullopt : std::make_optional(it->second);
}

// Contractions that take inputs of several ranks and give results of the same rank.
bool keeps_rank(const Node* node) {
  static const std::unordered_set<c10::Symbol> kinds{aten::linear, aten::conv_transpose1d, aten::conv_transpose2d, aten::conv_transpose3d};
  return kinds.count(node->kind()) != 0;
}

// Operators whose result has the sizes of their first operand.
bool keeps_sizes(const Node* node) {
  static const std::unordered_set<std::string> kinds{
      "aten::batch_norm", "aten::relu", "aten::relu_", "aten::relu6", "aten::relu6_", "aten::hardtanh", "aten::hardtanh_", "aten::clamp",
      "aten::clamp_", "aten::leaky_relu", "aten::leaky_relu_", "aten::sigmoid", "aten::sigmoid_", "aten::tanh", "aten::tanh_", "aten::silu",
      "aten::silu_", "aten::hardswish", "aten::hardswish_", "aten::hardsigmoid", "aten::hardsigmoid_", "aten::gelu", "aten::elu", "aten::elu_",
      "aten::mish", "aten::mish_", "aten::softplus", "aten::prelu"};
  return kinds.count(node->kind().toQualString()) != 0;
}

}  // namespace

bool forward_shape_query(Node* node) {
  if (node->kind() != aten::dim) return false;
  // Stop only past a contraction: a result between a contraction and its post-ops must not get one more use.
  Value* asked = nullptr;
  for (Value* value = node->input(0);;) {
    const auto rank = rank_of(value);
    if (rank && value == node->input(0)) {
      torch::jit::WithInsertPoint here(node);
      node->output()->replaceAllUsesWith(node->owningGraph()->insertConstant(*rank));
      node->destroy();
      return true;
    }
    const bool contraction = rank || keeps_rank(value->node());
    if (!contraction && !keeps_sizes(value->node())) break;
    value = value->node()->input(0);
    if (contraction) asked = value;
  }
  if (asked) node->replaceInput(0, asked);
  return false;
}

}  // namespace fusible
