#include <torch/csrc/jit/ir/constants.h>

#include "passes/normalize/normalize.h"

namespace fusible {

namespace {

namespace aten = torch::jit::aten;
using torch::jit::NamedValue;
using torch::jit::constant_as;

// Writes operators in the place of `node`, with its source range and module path.
class Writer {
 public:
  explicit Writer(Node* node) : node_(node), graph_(*node->owningGraph()), here_(node) {}

  Value* call(c10::Symbol op, std::vector<NamedValue> inputs) {
    Value* const result = graph_.insert(op, std::move(inputs), {}, node_->sourceRange());
    result->node()->copyMetadata(node_);
    return result;
  }
  Value* linear(Value* x, Value* weight, Value* bias) { return call(aten::linear, {x, weight, bias}); }

 private:
  Node* node_;
  Graph& graph_;
  torch::jit::WithInsertPoint here_;
};

// A constant float tensor of these sizes.
bool has_sizes(const Value* value, at::IntArrayRef sizes) {
  const auto constant = torch::jit::toIValue(value);
  if (!constant || !constant->isTensor()) return false;
  const auto& t = constant->toTensor();
  return t.defined() && t.scalar_type() == at::kFloat && t.layout() == at::kStrided && t.device().is_cpu() && !t.is_quantized() && t.sizes() == sizes;
}

struct Heads {
  std::int64_t width, count;
  Value *in_weight, *in_bias, *out_weight, *out_bias;
};

// softmax(q k^T / sqrt(d)) v of each head, between two linear (Vaswani et al., 2017); q, k and v are one product with the weights on top of
// each other, as torch keeps them.
Value* attention(Writer& writer, Value* x, const Heads& h) {
  const std::vector<std::int64_t> heads{3, h.count, h.width / h.count}, order{2, 0, 3, 1, 4};
  Value* const qkv = writer.call(aten::unflatten, {writer.linear(x, h.in_weight, h.in_bias), std::int64_t{-1}, heads});
  Value* const parts = writer.call(aten::permute, {qkv, order});
  const auto part = [&](std::int64_t i) { return writer.call(aten::select, {parts, std::int64_t{0}, i}); };
  Value* const q = part(0);
  Value* const k = part(1);
  Value* const seen = writer.call(aten::scaled_dot_product_attention, {q, k, part(2)});
  Value* const joined = writer.call(aten::flatten, {writer.call(aten::transpose, {seen, std::int64_t{1}, std::int64_t{2}}), std::int64_t{2}, std::int64_t{3}});
  return writer.linear(joined, h.out_weight, h.out_bias);
}

std::optional<Heads> heads_of(const Node* node, std::size_t first) {
  const auto width = constant_as<std::int64_t>(node->input(first)), count = constant_as<std::int64_t>(node->input(first + 1));
  if (!width || !count || *count <= 0 || *width % *count) return std::nullopt;
  const Heads heads{*width, *count, node->input(first + 2), node->input(first + 3), node->input(first + 4), node->input(first + 5)};
  const bool fits = has_sizes(heads.in_weight, {3 * *width, *width}) && has_sizes(heads.in_bias, {3 * *width}) &&
                    has_sizes(heads.out_weight, {*width, *width}) && has_sizes(heads.out_bias, {*width});
  return fits ? std::optional(heads) : std::nullopt;
}

// aten::_native_multi_head_attention(query, key, value, embed_dim, num_head, qkv_weight, qkv_bias, proj_weight, proj_bias, mask, need_weights,
//   average_attn_weights, mask_type): self-attention without a mask whose weights nobody asks for.
Value* spelled_out_attention(Node* node) {
  const auto heads = heads_of(node, 3);
  const bool self = node->input(0) == node->input(1) && node->input(0) == node->input(2);
  if (!heads || !self || !node->input(9)->mustBeNone() || constant_as<bool>(node->input(10)).value_or(true) || node->output(1)->hasUses()) return nullptr;
  Writer writer(node);
  return attention(writer, node->input(0), *heads);
}

// aten::_transformer_encoder_layer_fwd(src, embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias, use_gelu, norm_first, eps,
//   norm_weight_1, norm_bias_1, norm_weight_2, norm_bias_2, ffn_weight_1, ffn_bias_1, ffn_weight_2, ffn_bias_2, mask, mask_type)
Value* spelled_out_encoder_layer(Node* node) {
  const auto heads = heads_of(node, 1);
  const auto gelu = constant_as<bool>(node->input(7)), norm_first = constant_as<bool>(node->input(8));
  const auto eps = constant_as<double>(node->input(9));
  const auto inner_bias = torch::jit::toIValue(node->input(15));
  if (!heads || !gelu || !norm_first || !eps || !node->input(18)->mustBeNone()) return nullptr;
  if (!inner_bias || !inner_bias->isTensor() || inner_bias->toTensor().dim() != 1) return nullptr;
  const std::int64_t width = heads->width, inner_width = inner_bias->toTensor().size(0);
  for (std::size_t i = 10; i < 14; ++i) {
    if (!has_sizes(node->input(i), {width})) return nullptr;
  }
  if (!has_sizes(node->input(14), {inner_width, width}) || !has_sizes(node->input(15), {inner_width}) ||
      !has_sizes(node->input(16), {width, inner_width}) || !has_sizes(node->input(17), {width}))
    return nullptr;
  Writer writer(node);
  const auto norm = [&](Value* x, std::size_t weight) {
    return writer.call(aten::layer_norm, {x, std::vector<std::int64_t>{width}, node->input(weight), node->input(weight + 1), *eps, true});
  };
  Value* x = node->input(0);
  Value* const attended = writer.call(aten::add, {attention(writer, *norm_first ? norm(x, 10) : x, *heads), x});
  x = *norm_first ? attended : norm(attended, 10);
  Value* const inner = writer.linear(*norm_first ? norm(x, 12) : x, node->input(14), node->input(15));
  Value* const active = *gelu ? writer.call(aten::gelu, {inner}) : writer.call(aten::relu, {inner});
  Value* const sum = writer.call(aten::add, {writer.linear(active, node->input(16), node->input(17)), x});
  return *norm_first ? sum : norm(sum, 12);
}

void spell_out(Block* block) {
  for (auto it = block->nodes().begin(); it != block->nodes().end();) {
    Node* node = *it++;
    for (Block* inner : node->blocks()) spell_out(inner);
    const std::string op = node->kind().toQualString();
    Value* result = nullptr;
    if (op == "aten::_native_multi_head_attention") result = spelled_out_attention(node);
    if (op == "aten::_transformer_encoder_layer_fwd") result = spelled_out_encoder_layer(node);
    if (!result) continue;
    node->output(0)->replaceAllUsesWith(result);
    node->destroy();
  }
}

}  // namespace

void spell_out_attention(Block* block) {
  // With a padding mask torch.nn.TransformerEncoder hands nested tensors from layer to layer; what is written here takes dense ones.
  bool nested = false;
  for_each_node(block, [&](const Node* node) { nested |= std::string(node->kind().toQualString()).find("_nested_") != std::string::npos; });
  if (!nested) spell_out(block);
}

}  // namespace fusible
