#include "passes/excerpt.h"

#include <sstream>

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/jit/ir/constants.h>

namespace fusible {

namespace {

std::string described(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.sizes() << tensor.strides() << tensor.scalar_type();
  return text.str();
}

}  // namespace

Excerpt::Excerpt(const Facts& facts, const Sizes& sizes, const Value* only_input)
    : facts_(facts), sizes_(sizes), only_input_(only_input), numbers_(at::make_generator<at::CPUGeneratorImpl>(0)) {
  graph_->addInput("self");
}

Node* Excerpt::add(Node* node) {
  if (!node->kind().is_aten() || !node->maybeSchema() || node->outputs().size() != 1) return nullptr;
  signature_ += std::string(node->kind().toQualString()) + "(";
  for (const Value* input : node->inputs()) {
    if (!copies_.count(input)) {
      const torch::jit::WithInsertPoint first(*graph_->nodes().begin());  // operators may change places afterwards
      Value* made = value_for(input);
      if (!made) return nullptr;
      copies_[input] = made;
    }
    signature_ += std::to_string(copies_[input]->unique()) + ",";
  }
  signature_ += ")";
  Node* copy = graph_->insertNode(graph_->createClone(node, [&](Value* value) { return copies_.at(value); }));
  copies_[node->output()] = copy->output();
  return copy;
}

Value* Excerpt::value_for(const Value* original) {
  const auto* constant = facts_.constant(original);
  if (constant && !constant->isTensor()) {
    signature_ += c10::str(*constant);
    return torch::jit::tryInsertConstant(*graph_, *constant).value_or(nullptr);
  }
  if (const auto* tensor = facts_.constant_tensor(original); tensor && tensor->defined()) return tensor_for(*tensor);
  const auto known = sizes_.of.find(original);
  if (known == sizes_.of.end() || !known->second.layout) return nullptr;
  const auto& layout = *known->second.layout;
  if (!at::isFloatingType(layout.dtype)) return nullptr;
  const at::Tensor made = at::empty_strided(layout.sizes, layout.strides, at::TensorOptions(layout.dtype)).uniform_(0.5, 1.5, numbers_);
  if (only_input_ && only_input_ != original) return tensor_for(made);
  inputs_.emplace_back(made);
  signature_ += "input" + described(made);
  return graph_->addInput();
}

// A private copy of what is small: batch_norm in training mode writes its statistics.
Value* Excerpt::tensor_for(const at::Tensor& known) {
  signature_ += "constant" + described(known);
  const at::Tensor held = known.dim() <= 1 ? known.detach().clone() : known.detach();
  return torch::jit::tryInsertConstant(*graph_, held).value_or(nullptr);
}

torch::jit::Module Excerpt::module(const std::vector<const Value*>& results) {
  const auto unit = std::make_shared<torch::jit::CompilationUnit>();
  torch::jit::Module module("__torch__.Sequence", unit);
  std::vector<Value*> copies;
  for (const Value* result : results) copies.push_back(copies_.at(result));
  graph_->registerOutput(copies.size() == 1 ? copies[0] : graph_->insertNode(graph_->createTuple(copies))->output());
  graph_->inputs()[0]->setType(module.type());
  module.type()->addMethod(unit->create_function(c10::QualifiedName(*module.type()->name(), "forward"), graph_));
  return module;
}

}  // namespace fusible
