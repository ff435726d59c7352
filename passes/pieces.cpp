#include "passes/pieces.h"

namespace fusible {

namespace {

namespace aten = torch::jit::aten;
namespace prim = torch::jit::prim;

// The operator that gives one of the results; null where there is none.
const char* piece_of(const Node* producer) {
  static const std::unordered_map<std::string, const char*> pieces{{"aten::chunk", "fusible::chunk"},
                                                                   {"aten::split.Tensor", "fusible::split"},
                                                                   {"aten::split_with_sizes", "fusible::split_with_sizes"},
                                                                   {"aten::unbind.int", "fusible::unbind"},
                                                                   {"aten::size", "fusible::size"}};
  const auto* schema = producer->maybeSchema();
  if (!schema) return nullptr;
  const auto& [op, overload] = schema->operator_name();
  const auto found = pieces.find(overload.empty() ? op : op + "." + overload);
  return found == pieces.end() ? nullptr : found->second;
}

void spell_out(Node* unpack) {
  Node* producer = unpack->input()->node();
  const char* const op = piece_of(producer);
  if (!op || unpack->input()->uses().size() != 1) return;
  if (std::none_of(unpack->outputs().begin(), unpack->outputs().end(), [](const Value* output) { return output->hasUses(); })) return;
  Graph& graph = *unpack->owningGraph();
  torch::jit::WithInsertPoint here(producer);
  const auto count = static_cast<std::int64_t>(unpack->outputs().size());
  Value* const total = graph.insertConstant(count);
  for (std::int64_t i = 0; i < count; ++i) {
    Value* const output = unpack->output(i);
    if (!output->hasUses()) continue;
    std::vector<Value*> inputs(producer->inputs().begin(), producer->inputs().end());
    inputs.insert(inputs.end(), {graph.insertConstant(i), total});
    Node* piece = graph.insertNode(graph.create(c10::Symbol::fromQualString(op), inputs));
    piece->copyMetadata(producer);
    piece->output()->copyMetadata(output);
    output->replaceAllUsesWith(piece->output());
  }
  unpack->destroy();
  producer->destroy();
}

}  // namespace

void spell_out_pieces(Block* block) {
  for (auto it = block->nodes().begin(); it != block->nodes().end();) {
    Node* node = *it++;
    for (Block* inner : node->blocks()) spell_out_pieces(inner);
    if (node->kind() == prim::ListUnpack) spell_out(node);
  }
}

}  // namespace fusible
