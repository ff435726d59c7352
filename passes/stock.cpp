#include <torch/csrc/jit/ir/constants.h>

#include "passes/rewrite.h"

namespace fusible {

namespace {

namespace prim = torch::jit::prim;

// batch_norm behind a convolution, and _convolution itself, raise for an unbatched image; addmm for anything but a matrix. The folded
// operator would not, so the check stays.
void emit_rank_check(Graph& graph, Value* input, std::int64_t rank) {
  Value* dim = graph.insert(torch::jit::aten::dim, {input});
  Value* wrong = graph.insert(torch::jit::aten::ne, {dim, rank});
  Node* check = graph.insertNode(graph.create(prim::If, {wrong}, 0));
  Block* raise = check->addBlock();
  check->addBlock();
  torch::jit::WithInsertPoint inside(raise);
  Value* message = graph.insertConstant("expected " + std::to_string(rank) + "D input to this contraction and what was folded into it");
  Value* type = graph.insertConstant(std::string("builtins.ValueError"));
  graph.insertNode(graph.create(prim::RaiseException, {message, type}, 0));
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
  const std::int64_t spatial = spec.weight.dim() - 2;
  if (const std::int64_t rank = normalized ? spec.weight.dim() : spec.expected_rank) emit_rank_check(graph, input, rank);
  Value* weight = graph.insertConstant(spec.weight);
  Value* bias = graph.insertConstant(spec.bias);
  std::vector<torch::jit::NamedValue> arguments{input, weight, bias};
  std::string op = "aten::linear";
  if (spec.kind != Contraction::linear) {
    op = (spec.kind == Contraction::conv ? "aten::conv" : "aten::conv_transpose") + std::to_string(spatial) + "d";
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

}  // namespace fusible
