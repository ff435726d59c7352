#include <torch/csrc/jit/ir/constants.h>

#include "ops/reference.h"
#include "passes/rewrite.h"

namespace fusible {

namespace {

namespace prim = torch::jit::prim;

// Whether the input has another rank. `dim` would not do: the executor takes that of a convolution's result for known (conv2d: 4), which an
// unbatched image belies.
Value* emit_other_rank(Graph& graph, Value* input, std::int64_t rank) {
  Value* sizes = graph.insert(torch::jit::aten::size, {input});
  return graph.insert(torch::jit::aten::ne, {graph.insert(torch::jit::aten::len, {sizes}), rank});
}

// addmm raises for anything but a matrix, _convolution for an unbatched image. The folded operator would not, so the check stays.
void emit_rank_check(Graph& graph, Value* input, std::int64_t rank) {
  Node* check = graph.insertNode(graph.create(prim::If, {emit_other_rank(graph, input, rank)}, 0));
  Block* raise = check->addBlock();
  check->addBlock();
  torch::jit::WithInsertPoint inside(raise);
  Value* message = graph.insertConstant("expected " + std::to_string(rank) + "D input to this contraction and what was folded into it");
  Value* type = graph.insertConstant(std::string("builtins.RuntimeError"));
  graph.insertNode(graph.create(prim::RaiseException, {message, type}, 0));
}

// z = F0(x) / scale + bias, in double as ops/reference.cpp does it.
Value* emit_unfolded(Graph& graph, const ContractionSpec& folded, Value* result) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(folded.spatial_dims()) + 1, 1);
  shape[0] = folded.out_channels();
  const auto along_channels = [&](const at::Tensor& t) { return graph.insertConstant(t.to(at::kDouble).view(shape)); };
  using torch::jit::aten::type_as;
  Value* scaled = graph.insert(torch::jit::aten::div, {result, along_channels(folded.fold_scale)});
  return graph.insert(type_as, {graph.insert(torch::jit::aten::add, {scaled, along_channels(bias_before_fold(folded))}), result});
}

Value* emit_contraction(Graph& graph, const Chain& chain, const ContractionSpec& spec, Value* input, const at::Tensor& weight, const at::Tensor& bias) {
  std::vector<torch::jit::NamedValue> arguments{input, graph.insertConstant(weight), graph.insertConstant(bias.defined() ? c10::IValue(bias) : c10::IValue())};
  std::string op = "aten::linear";
  if (spec.kind != Contraction::linear) {
    op = (spec.kind == Contraction::conv ? "aten::conv" : "aten::conv_transpose") + std::to_string(spec.spatial_dims()) + "d";
    arguments.emplace_back(graph.insertConstant(spec.stride));
    if (spec.padding_mode.empty()) arguments.emplace_back(graph.insertConstant(spec.padding));
    else arguments.emplace_back(graph.insertConstant(spec.padding_mode));
    if (spec.kind == Contraction::conv_transpose) {
      arguments.emplace_back(graph.insertConstant(spec.output_padding));
      arguments.emplace_back(graph.insertConstant(spec.groups));
      arguments.emplace_back(graph.insertConstant(spec.dilation));
    } else {
      arguments.emplace_back(graph.insertConstant(spec.dilation));
      arguments.emplace_back(graph.insertConstant(spec.groups));
    }
  }
  Value* result = graph.insert(c10::Symbol::fromQualString(op), arguments);
  result->node()->copyMetadata(chain.anchor);
  return result;
}

// The steps one by one, as they stood in the graph.
Value* emit_steps(Graph& graph, const Chain& chain, Value* result) {
  std::unordered_map<Value*, Value*> made{{chain.anchor->output(), result}};
  for (const Step& step : chain.steps) {
    for (Node* node : step.nodes) {
      Node* copy = graph.insertNode(graph.createClone(node, [&](Value* value) { return made.count(value) ? made[value] : value; }));
      for (std::size_t i = 0; i < node->outputs().size(); ++i) made[node->output(i)] = copy->output(i);
    }
  }
  return made.at(chain.root()->output());
}

// batch_norm normalizes dimension 1, which is the height of an unbatched image: there the fold is undone and the steps run one by one.
Value* emit_guard(Graph& graph, const Chain& chain, const ContractionSpec& folded, Value* input, Value* result) {
  Node* guard = graph.insertNode(graph.create(prim::If, {emit_other_rank(graph, input, folded.weight.dim())}, 1));
  guard->output()->setType(c10::TensorType::get());
  Block* unbatched = guard->addBlock();
  guard->addBlock()->registerOutput(result);
  torch::jit::WithInsertPoint inside(unbatched);
  Value* before = folded.unfolded_weight.defined()
                      ? emit_contraction(graph, chain, folded, input, folded.unfolded_weight, folded.unfolded_bias)
                      : emit_unfolded(graph, folded, emit_contraction(graph, chain, folded, input, folded.weight, {}));
  unbatched->registerOutput(emit_steps(graph, chain, before));
  return guard->output();
}

}  // namespace

Value* emit_stock(Graph& graph, const Chain& chain, Value* input) {
  std::vector<Affine> affines;
  bool normalized = false;
  for (const auto& step : chain.steps) {
    affines.push_back(*step.affine);
    normalized |= step.name == "batch_norm";
  }
  const ContractionSpec spec = fold(chain.spec, affines);
  torch::jit::WithInsertPoint here(chain.root());
  if (spec.expected_rank) emit_rank_check(graph, input, spec.expected_rank);
  Value* result = emit_contraction(graph, chain, spec, input, spec.weight, spec.bias);
  return normalized && spec.expected_rank != spec.weight.dim() ? emit_guard(graph, chain, spec, input, result) : result;
}

}  // namespace fusible
