#include "passes/layout.h"

#include <optional>

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/constants.h>

#include "ops/packed.h"
#include "ops/post_op.h"
#include "passes/facts.h"
#include "passes/rewrite.h"

namespace fusible {

namespace {

namespace prim = torch::jit::prim;
using PackedObjects = std::map<std::string, c10::intrusive_ptr<PackedContraction>>;

// Operators that compute the same numbers in either layout and hand the layout on. Inputs that are images come first.
std::size_t image_inputs(const Node* node) {
  static const std::unordered_map<std::string, std::size_t> kinds{
      {"aten::max_pool2d", 1}, {"aten::avg_pool2d", 1}, {"aten::adaptive_avg_pool2d", 1}, {"aten::batch_norm", 1}, {"aten::relu", 1},
      {"aten::relu_", 1}, {"aten::relu6", 1}, {"aten::hardtanh", 1}, {"aten::hardtanh_", 1}, {"aten::silu", 1}, {"aten::silu_", 1},
      {"aten::hardswish", 1}, {"aten::hardswish_", 1}, {"aten::hardsigmoid", 1}, {"aten::sigmoid", 1}, {"aten::tanh", 1}, {"aten::gelu", 1},
      {"aten::leaky_relu", 1}, {"aten::leaky_relu_", 1}, {"aten::elu", 1}, {"aten::add", 2}, {"aten::mul", 2}, {"aten::sub", 2}, {"aten::cat", 1}};
  auto it = kinds.find(node->kind().toQualString());
  return it == kinds.end() ? 0 : it->second;
}

// Constants and weights broadcast in either layout; they are no images.
bool is_image(const Value* value) {
  const auto kind = value->node()->kind();
  return value->type()->kind() == c10::TypeKind::TensorType && kind != prim::Constant && kind != prim::GetAttr;
}

// Whether an operand on the left may tell a layout of its own: its strides come first. Along one dimension alone it tells none.
bool decides_layout(const Value* value) {
  if (is_image(value) || value->type()->kind() != c10::TypeKind::TensorType) return false;
  const auto constant = torch::jit::toIValue(value);
  if (!constant || !constant->isTensor()) return true;
  const auto sizes = constant->toTensor().sizes();
  return std::count_if(sizes.begin(), sizes.end(), [](std::int64_t size) { return size > 1; }) > 1;
}

// A weight of more dimensions than an image gives the result as many.
bool enlarges(const Value* value) {
  const auto constant = torch::jit::toIValue(value);
  return constant && constant->isTensor() && constant->toTensor().dim() > 4;
}

struct Run {
  std::vector<Node*> nodes;
  int convolutions = 0;
};

class Layout {
 public:
  Layout(MethodGraph& method, const PackedObjects& packed) : method_(method), graph_(*method.graph), packed_(packed) {
    for_each_node(graph_.block(), [this](Node* node) {
      const auto* schema = node->maybeSchema();
      if (node->blocks().empty() && (schema ? schema->is_mutable() : node->hasSideEffects())) writers_.push_back(node);
    });
  }

  void run() { visit(graph_.block()); }

 private:
  const ContractionSpec* convolution(const Node* node) const {
    if (node->kind() != c10::Symbol::fromQualString("fusible::conv")) return nullptr;
    const std::string* const name = name_of_root_attribute(node->input(1));
    if (!name) return nullptr;
    auto it = packed_.find(*name);
    if (it == packed_.end()) return nullptr;
    const auto& spec = it->second->spec();
    // One channel is both layouts at once: torch 2.13's conv2d computes wrong numbers from a channels_last image of one channel.
    // ATen's float64 kernels are slower on channels_last, and its bfloat16 ones put NaN in other places there.
    // On one thread ATen runs a kernel of 1x1 group by group, and a group of one channel loses the layout.
    const auto& sizes = spec.weight.sizes();
    if (spec.groups > 1 && sizes.size() == 4 && sizes[2] * sizes[3] == 1 && (sizes[1] == 1 || sizes[0] == spec.groups)) return nullptr;
    const bool takes = spec.weight.dim() == 4 && spec.weight.scalar_type() == at::kFloat && spec.weight.suggest_memory_format() == at::MemoryFormat::Contiguous &&
                       spec.weight.size(1) * spec.groups > 1 && spec.out_channels() > 1;
    return takes ? &spec : nullptr;
  }

  // The image operands of a node that can be part of a run, in the order that decides the result's layout; empty: it cannot.
  std::vector<Value*> images(Node* node) const {
    if (convolution(node)) {
      const auto operands = node->input(3)->node()->inputs();
      if (std::any_of(operands.begin(), operands.end(), enlarges)) return {};
      std::vector<Value*> all{node->input(0)};
      for (Value* operand : operands) {
        if (is_image(operand)) all.push_back(operand);
      }
      return all;
    }
    const std::size_t count = image_inputs(node);
    if (count == 0 || node->outputs().size() != 1 || !is_image(node->output())) return {};
    if (node->kind() == torch::jit::aten::cat) {
      const auto dim = torch::jit::toIValue(node->input(1));
      if (node->input(0)->node()->kind() != prim::ListConstruct || !dim || !dim->isInt() || dim->toInt() != 1) return {};
      return node->input(0)->node()->inputs().vec();
    }
    if (count == 2 && (decides_layout(node->input(0)) || enlarges(node->input(0)) || enlarges(node->input(1)))) return {};
    std::vector<Value*> all;
    for (std::size_t i = 0; i < count; ++i) {
      if (is_image(node->input(i))) all.push_back(node->input(i));
    }
    return all;
  }

  void visit(Block* block) {
    for (auto& run : runs(block)) convert(run);
    for (Node* node : block->nodes()) {
      for (Block* inner : node->blocks()) visit(inner);
    }
  }

  // Connected groups: a node joins the run of an image operand, or begins one when it is a convolution. So an operator in place, which has one
  // image operand, writes a value made inside of its run.
  std::vector<Run> runs(Block* block) {
    std::vector<Run> all;
    std::vector<std::size_t> merged_into;
    std::unordered_map<const Value*, std::size_t> run_of;
    const auto find = [&](std::size_t i) {
      while (merged_into[i] != i) i = merged_into[i];
      return i;
    };
    for (Node* node : block->nodes()) {
      if (is_with(node)) run_of.clear();  // what is converted without gradients serves nobody else
      const auto operands = images(node);
      if (operands.empty()) continue;
      std::optional<std::size_t> own;
      for (Value* operand : operands) {
        auto it = run_of.find(operand);
        if (it == run_of.end()) continue;
        const std::size_t other = find(it->second);
        if (!own) own = other;
        if (other == *own) continue;
        merged_into[other] = *own;
        all[*own].nodes.insert(all[*own].nodes.end(), all[other].nodes.begin(), all[other].nodes.end());
        all[*own].convolutions += all[other].convolutions;
        all[other] = {};
      }
      if (!own) {
        if (!convolution(node)) continue;
        own = all.size();
        merged_into.push_back(*own);
        all.emplace_back();
      }
      all[*own].nodes.push_back(node);
      all[*own].convolutions += convolution(node) != nullptr;
      run_of[node->output()] = *own;
    }
    return all;
  }

  // A conversion copies: a value that crosses a border must not be written once it exists.
  bool is_written_later(const Value* value) {
    if (!aliases_ && !writers_.empty()) aliases_.emplace(method_.graph);
    return std::any_of(writers_.begin(), writers_.end(), [&](Node* writer) {
      const bool earlier = writer == value->node() || (writer->owningBlock() == value->node()->owningBlock() && writer->isBefore(value->node()));
      return !earlier && aliases_->writesToAlias(writer, torch::jit::ValueSet{value});
    });
  }

  void convert(Run& run) {
    const std::unordered_set<const Node*> inside(run.nodes.begin(), run.nodes.end());
    std::vector<Value*> entries, exits;
    for (Node* node : run.nodes) {
      for (Value* operand : images(node)) {
        if (!inside.count(operand->node()) && std::find(entries.begin(), entries.end(), operand) == entries.end()) entries.push_back(operand);
      }
      if (leaves(node->output(), inside)) exits.push_back(node->output());
    }
    // So a run of one convolution, which has an entry and an exit, stays as it is.
    if (static_cast<int>(entries.size() + exits.size()) > run.convolutions) return;
    const auto written = [this](const Value* value) { return is_written_later(value); };
    if (std::any_of(entries.begin(), entries.end(), written) || std::any_of(exits.begin(), exits.end(), written)) return;
    std::sort(run.nodes.begin(), run.nodes.end(), [](const Node* a, const Node* b) { return a->isBefore(b); });
    for (Node* node : run.nodes) {
      if (!remember_format(node, inside)) return;
    }
    for (Value* exit : exits) restore(exit, inside);
    std::unordered_set<const Value*> of_any_rank;
    for (Value* entry : entries) of_any_rank.insert(enter(entry, run.nodes));
    for (Node* node : run.nodes) restore_beside(node, of_any_rank);
  }

  // An operand of more dimensions makes a result of as many, whose strides no border restores: the others meet it in the original's layout.
  // `of_any_rank`: what comes from outside, and what is made of it up to a convolution, which takes images alone.
  void restore_beside(Node* node, std::unordered_set<const Value*>& of_any_rank) {
    const auto all = images(node);
    std::vector<Value*> operands;
    std::copy_if(all.begin() + (convolution(node) ? 1 : 0), all.end(), std::back_inserter(operands), [&](Value* image) { return of_any_rank.count(image) != 0; });
    if (operands.empty()) return;
    of_any_rank.insert(node->output());
    if (all.size() == 1 || node->kind() == torch::jit::aten::cat) return;  // of one rank
    Node* reader = convolution(node) ? node->input(3)->node() : node;
    Value* beside = list_before(reader, operands);
    for (Node* user : std::vector<Node*>{reader, node}) {
      for (Value* image : all) {
        const auto inputs = user->inputs();
        if (std::find(inputs.begin(), inputs.end(), image) == inputs.end()) continue;
        Value* like = list_before(user, formats_.at(image));
        user->replaceInputWith(image, border_before(user, "fusible::restore_layout", {image, like, beside}));
      }
    }
  }

  Value* list_before(Node* node, at::ArrayRef<Value*> values) {
    torch::jit::WithInsertPoint here(node);
    return graph_.insertNode(graph_.createList(c10::TensorType::get(), values))->output();
  }

  Value* border_before(Node* node, const char* kind, at::ArrayRef<Value*> inputs) {
    torch::jit::WithInsertPoint here(node);
    Node* border = graph_.insertNode(graph_.create(c10::Symbol::fromQualString(kind), inputs));
    border->copyMetadata(node);
    border->output()->setType(c10::TensorType::get());
    return border->output();
  }

  // A list of operands belongs to the one node that takes it; sizes are the same in every layout.
  static bool stays(const torch::jit::Use& use, const std::unordered_set<const Node*>& inside) {
    if (inside.count(use.user) || use.user->kind() == torch::jit::aten::dim || use.user->kind() == torch::jit::aten::size) return true;
    if (use.user->kind() != prim::ListConstruct) return false;
    const auto& uses = use.user->output()->uses();
    return std::all_of(uses.begin(), uses.end(), [&](const auto& inner) { return inside.count(inner.user) != 0; });
  }

  static bool leaves(const Value* value, const std::unordered_set<const Node*>& inside) {
    return !std::all_of(value->uses().begin(), value->uses().end(), [&](const auto& use) { return stays(use, inside); });
  }

  // The tensors whose layout the original's result has: that of the first image operand, for cat of all of them. False: not known before
  // the graph runs.
  bool remember_format(Node* node, const std::unordered_set<const Node*>& inside) {
    const auto sources_of = [&](Value* operand) { return inside.count(operand->node()) ? formats_.at(operand) : std::vector<Value*>{operand}; };
    auto operands = images(node);
    // Whether a tensor from outside on the left of a sum is broadcast, so that the other decides, is not known before.
    if (image_inputs(node) == 2 && operands.size() == 2 && !inside.count(operands[0]->node()) && sources_of(operands[0]) != sources_of(operands[1])) return false;
    // An operand on the left decides where its strides tell a layout, and the convolution where they do not (one pixel, broadcasting).
    if (reversed(node) && (has_deciding_constant(node) ||
                           !std::all_of(operands.begin(), operands.end(), [&](Value* operand) { return sources_of(operand) == sources_of(operands[0]); })))
      return false;
    if (node->kind() != torch::jit::aten::cat) operands.resize(1);
    std::vector<Value*> like;
    for (Value* operand : operands) {
      for (Value* source : sources_of(operand)) {
        if (std::find(like.begin(), like.end(), source) == like.end()) like.push_back(source);
      }
    }
    formats_[node->output()] = std::move(like);
    return true;
  }

  static bool has_deciding_constant(const Node* convolution) {
    const auto operands = convolution->input(3)->node()->inputs();
    return std::any_of(operands.begin(), operands.end(), decides_layout);
  }

  // A convolution's chain with an operand on the left.
  bool reversed(const Node* node) const {
    if (!convolution(node)) return false;
    const PostOps& chain = parse_post_ops(torch::jit::toIValue(node->input(2))->toStringRef());
    return std::any_of(chain.begin(), chain.end(), [](const PostOp& step) { return step.reversed && step.operands > 0; });
  }

  void restore(Value* exit, const std::unordered_set<const Node*>& inside) {
    Node* next = exit->node()->next();
    Value* restored = border_before(next, "fusible::restore_layout", {exit, list_before(next, formats_.at(exit))});
    restored->node()->copyMetadata(exit->node());
    const auto uses = exit->uses();
    for (const auto& use : uses) {
      if (use.user != restored->node() && !stays(use, inside)) use.user->replaceInput(use.offset, restored);
    }
  }

  Value* enter(Value* entry, const std::vector<Node*>& nodes) {
    Node* first = nullptr;
    std::vector<std::pair<Node*, std::size_t>> uses;
    for (Node* node : nodes) {
      for (std::size_t i = 0; i < node->inputs().size(); ++i) {
        Node* list = node->input(i)->node();
        if (node->input(i) == entry) uses.emplace_back(node, i);
        if (list->kind() != prim::ListConstruct) continue;
        for (std::size_t j = 0; j < list->inputs().size(); ++j) {
          if (list->input(j) == entry) uses.emplace_back(list, j);
        }
      }
    }
    for (const auto& [node, offset] : uses) {
      if (!first || node->isBefore(first)) first = node;
    }
    Value* converted = border_before(first, "fusible::to_channels_last", {entry});
    formats_[converted] = {entry};
    for (const auto& [node, offset] : uses) node->replaceInput(offset, converted);
    return converted;
  }

  MethodGraph& method_;
  Graph& graph_;
  const PackedObjects& packed_;
  std::optional<torch::jit::AliasDb> aliases_;  // once a value that may be written is asked for
  std::vector<Node*> writers_;
  std::unordered_map<const Value*, std::vector<Value*>> formats_;
};

}  // namespace

void choose_layout(MethodGraph& method, const PackedObjects& packed) { Layout(method, packed).run(); }

}  // namespace fusible
