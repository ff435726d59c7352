#include "passes/sizes.h"

#include "passes/copies.h"
#include "passes/shape_formulas.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <torch/csrc/jit/ir/constants.h>

namespace fusible {

namespace {

namespace aten = torch::jit::aten;
namespace prim = torch::jit::prim;
using torch::jit::Stack;

constexpr int kMostNodes = 200000;  // of loops that run long
constexpr int kMostIterations = 64;

// Numbers of one element (sizes that tracing recorded as tensors) keep their value.
bool stays(const at::Tensor& tensor) { return !tensor.defined() || tensor.dim() == 0 || tensor.is_meta(); }

std::optional<c10::IValue> to_meta(const c10::IValue& value) {
  if (value.isTensor()) {
    const auto& tensor = value.toTensor();
    if (stays(tensor)) return value;
    if (tensor.layout() != at::kStrided || tensor.is_quantized()) return std::nullopt;
    return at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kMeta).requires_grad(false));
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> moved;
    for (const at::Tensor& tensor : value.toTensorVector()) {
      const auto element = to_meta(tensor);
      if (!element) return std::nullopt;
      moved.push_back(element->toTensor());
    }
    return c10::IValue(std::move(moved));
  }
  if (value.isTuple()) {
    std::vector<c10::IValue> moved;
    for (const auto& element : value.toTupleRef().elements()) {
      auto inner = to_meta(element);
      if (!inner) return std::nullopt;
      moved.push_back(std::move(*inner));
    }
    return c10::IValue(c10::ivalue::Tuple::create(std::move(moved)));
  }
  if (value.isDevice()) return c10::IValue(c10::Device(c10::kMeta));
  return value;
}

std::optional<TensorSize::Layout> layout_of(const at::Tensor& tensor) {
  if (tensor.layout() != at::kStrided) return std::nullopt;
  return TensorSize::Layout{tensor.sizes().vec(), tensor.strides().vec(), tensor.scalar_type()};
}

class Raised : public std::exception {};

class MetaRun {
 public:
  MetaRun(const Model& model, std::unordered_map<const Value*, TensorSize>& sizes) : model_(model), sizes_(sizes) {}

  void run(const Graph& graph, const std::vector<c10::IValue>& inputs) {
    set(graph.inputs()[0], model_.source._ivalue());
    for (std::size_t i = 0; i < inputs.size() && i + 1 < graph.inputs().size(); ++i) set(graph.inputs()[i + 1], to_meta(own(inputs[i])));
    try {
      run(graph.block());
    } catch (const Raised&) {
      // On these shapes the model raises: what was reached is known.
    }
  }

 private:
  void set(const Value* value, std::optional<c10::IValue> held) {
    if (!held) {
      held_.erase(value);
      return;
    }
    if (held->isTensor() && held->toTensor().defined()) {
      const auto& tensor = held->toTensor();
      auto& size = sizes_[value];
      size.elements += tensor.numel();
      size.bytes += tensor.numel() * static_cast<std::int64_t>(tensor.element_size());
      auto layout = layout_of(tensor);
      if (size.times++ == 0) size.layout = std::move(layout);
      else if (size.layout != layout) size.layout.reset();
    }
    held_[value] = std::move(*held);
  }

  const c10::IValue* get(const Value* value) const {
    auto it = held_.find(value);
    return it == held_.end() ? nullptr : &it->second;
  }

  void run(const Block* block) {
    for (const Node* node : block->nodes()) {
      if (++nodes_ > kMostNodes) throw Raised();
      run(const_cast<Node*>(node));
    }
  }

  void run(Node* node) {
    if (node->kind() == prim::RaiseException) throw Raised();
    if (node->kind() == prim::Constant) return set(node->output(), constant(node));
    if (node->kind() == prim::GetAttr) return set(node->output(), attribute(node));
    if (node->kind() == prim::SetAttr) return assign(node);
    if (node->kind() == prim::If) return branch(node);
    if (node->kind() == prim::Loop) return loop(node);
    Stack stack;
    for (const Value* input : node->inputs()) {
      const auto* value = get(input);
      if (!value) return forget(node);
      stack.push_back(*value);
    }
    try {
      if (!compute(node, stack)) return forget(node);
    } catch (const std::exception&) {
      return forget(node);  // asks for numbers, or has no meta kernel
    }
    for (std::size_t i = 0; i < node->outputs().size(); ++i) set(node->output(i), i < stack.size() ? moved_back(stack[i]) : std::nullopt);
  }

  void forget(const Node* node) {
    for (const Value* output : node->outputs()) held_.erase(output);
  }

  std::optional<c10::IValue> constant(const Node* node) const {
    const auto value = torch::jit::toIValue(node->output());
    // A device stays what the model says: it may be compared. compute() sees to it that nothing is made there.
    return !value || value->isDevice() ? value : to_meta(own(*value));
  }

  static std::optional<c10::IValue> moved_back(const c10::IValue& value) { return value.isDevice() ? std::make_optional(value) : to_meta(value); }

  std::optional<c10::IValue> attribute(const Node* node) const {
    const auto* owner = get(node->input());
    if (!owner || !owner->isObject()) return std::nullopt;
    auto* object = owner->toObject().get();
    const auto& name = node->s(torch::jit::attr::name);
    if (auto it = assigned_.find({object, name}); it != assigned_.end()) return it->second;
    if (!object->type()->hasAttribute(name)) return std::nullopt;
    const c10::IValue value = object->getAttr(name);
    return value.isObject() ? std::make_optional(value) : to_meta(own(value));
  }

  // Numbers are computed with, and may be written: never the module's nor the caller's. Larger tensors only lend their sizes.
  c10::IValue own(const c10::IValue& value) const { return copies_.copy(value); }

  // The module itself is not written to.
  void assign(const Node* node) {
    const auto *owner = get(node->input(0)), *value = get(node->input(1));
    if (!owner || !owner->isObject()) return;
    assigned_[{owner->toObject().get(), node->s(torch::jit::attr::name)}] = value ? std::make_optional(*value) : std::nullopt;
  }

  void branch(Node* node) {
    const auto* condition = get(node->input());
    if (!condition || !condition->isBool()) return forget(node);
    const Block* chosen = node->blocks()[condition->toBool() ? 0 : 1];
    run(chosen);
    for (std::size_t i = 0; i < node->outputs().size(); ++i) hand_on(chosen->outputs()[i], node->output(i));
  }

  // A value that only gets another name is carried once more in the map, but not in memory.
  void hand_on(const Value* from, const Value* to) {
    const auto* value = get(from);
    if (!value) {
      held_.erase(to);
      return;
    }
    held_[to] = *value;
    if (auto it = sizes_.find(from); it != sizes_.end()) sizes_[to] = it->second;
  }

  void loop(Node* node) {
    const auto *trips = get(node->input(0)), *condition = get(node->input(1));
    const Block* body = node->blocks()[0];
    if (!trips || !trips->isInt() || !condition || !condition->isBool()) return forget(node);
    for (std::size_t i = 0; i < node->outputs().size(); ++i) hand_on(node->input(i + 2), node->output(i));
    bool goes_on = condition->toBool();
    for (std::int64_t i = 0; goes_on && i < trips->toInt(); ++i) {
      if (i == kMostIterations) return forget(node);
      held_[body->inputs()[0]] = i;
      for (std::size_t j = 1; j < body->inputs().size(); ++j) hand_on(node->output(j - 1), body->inputs()[j]);
      run(body);
      const auto* next = get(body->outputs()[0]);
      if (!next || !next->isBool()) return forget(node);
      goes_on = next->toBool();
      for (std::size_t j = 1; j < body->outputs().size(); ++j) hand_on(body->outputs()[j], node->output(j - 1));
    }
  }

  // Tuples, lists and dicts are built and taken apart by the interpreter itself: torch has no operators for that.
  static bool regroup(const Node* node, Stack& stack) {
    if (node->kind() == prim::TupleConstruct) {
      stack = {c10::ivalue::Tuple::create(std::move(stack))};
    } else if (node->kind() == prim::ListConstruct) {
      c10::impl::GenericList list(node->output()->type()->expectRef<c10::ListType>().getElementType());
      for (auto& element : stack) list.push_back(std::move(element));
      stack = {std::move(list)};
    } else if (node->kind() == prim::DictConstruct) {
      const auto& type = node->output()->type()->expectRef<c10::DictType>();
      c10::impl::GenericDict dict(type.getKeyType(), type.getValueType());
      for (std::size_t i = 0; i + 1 < stack.size(); i += 2) dict.insert_or_assign(stack[i], stack[i + 1]);
      stack = {std::move(dict)};
    } else if (node->kind() == prim::TupleUnpack) {
      stack = stack.at(0).toTupleRef().elements().vec();
    } else if (node->kind() == prim::ListUnpack) {
      const auto elements = stack.at(0).toListRef();
      stack = Stack(elements.begin(), elements.end());
    } else {
      return false;
    }
    return true;
  }

  // Replaces the inputs on `stack` by the outputs. False: this operator is not run.
  static bool compute(Node* node, Stack& stack) {
    if (regroup(node, stack)) return true;
    // The model's files, its output and the operators of other libraries are left alone.
    if ((!node->kind().is_aten() && !node->kind().is_prim()) || node->kind() == prim::Print || node->hasSideEffects() || reads_files(node)) return false;
    const auto* schema = node->maybeSchema();
    if (!schema || !node->maybeOperator()) return false;
    if (auto shaped = shaped_by_formula(node, stack)) {
      stack = {*shaped};
      return true;
    }
    make_on_meta(node, *schema, stack);
    node->getOperation()(stack);
    return true;
  }

  static bool reads_files(const Node* node) {
    static const auto from_file = c10::Symbol::fromQualString("aten::from_file");
    return node->kind() == from_file;
  }

  // What an operator makes from sizes, or moves to a device, goes to the meta device.
  static void make_on_meta(const Node* node, const c10::FunctionSchema& schema, Stack& stack) {
    static const auto tensor = c10::Symbol::fromQualString("aten::tensor"), scalar = c10::Symbol::fromQualString("aten::scalar_tensor");
    if (node->kind() == tensor || node->kind() == scalar) return;  // numbers that may be asked for
    const bool from_number = !stack.empty() && stack[0].isTensor() && stack[0].toTensor().defined() && !stack[0].toTensor().is_meta();
    if (from_number) return;
    const bool from_tensor = !stack.empty() && stack[0].isTensor();
    const auto& arguments = schema.arguments();
    for (std::size_t i = 0; i < arguments.size() && i < stack.size(); ++i) {
      if (arguments[i].name() == "device" && (stack[i].isDevice() || (stack[i].isNone() && !from_tensor))) stack[i] = c10::Device(c10::kMeta);
    }
  }

  const Model& model_;
  std::unordered_map<const Value*, TensorSize>& sizes_;
  std::unordered_map<const Value*, c10::IValue> held_;
  std::map<std::pair<const c10::ivalue::Object*, std::string>, std::optional<c10::IValue>> assigned_;
  mutable Copier copies_{[](const at::Tensor& tensor) { return tensor.dim() > 0; }};
  int nodes_ = 0;
};

// Tensors of the shapes that tracing wrote into the types of the inputs; nothing when one is missing.
std::optional<std::vector<c10::IValue>> recorded_inputs(const Graph& graph) {
  std::vector<c10::IValue> inputs;
  for (std::size_t i = 1; i < graph.inputs().size(); ++i) {
    const auto type = graph.inputs()[i]->type()->cast<c10::TensorType>();
    if (!type || !type->sizes().concrete_sizes() || !type->scalarType()) return std::nullopt;
    inputs.emplace_back(at::empty(*type->sizes().concrete_sizes(), at::TensorOptions(*type->scalarType()).device(at::kMeta)));
  }
  return inputs.empty() ? std::nullopt : std::make_optional(std::move(inputs));
}

}  // namespace

Sizes sizes_on_meta(const Model& model, const MethodGraph& method, const std::vector<c10::IValue>* inputs) {
  Sizes sizes;
  const auto recorded = inputs ? std::nullopt : recorded_inputs(*method.graph);
  if (!inputs && !recorded) return sizes;
  sizes.basis = inputs ? "shapes of the example inputs" : "shapes that tracing recorded";
  const at::NoGradGuard no_grad;
  MetaRun(model, sizes.of).run(*method.graph, inputs ? *inputs : *recorded);
  return sizes;
}

}  // namespace fusible
