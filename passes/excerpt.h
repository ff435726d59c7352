#pragma once

#include <optional>

#include "passes/facts.h"
#include "passes/sizes.h"

namespace fusible {

// Some nodes of a method, copied into a module of their own that can be run by itself. What they read is a constant where the model has one,
// else an input: random positive numbers of the shape, strides and dtype in `sizes`.
class Excerpt {
 public:
  // `only_input`: what else the nodes read becomes a constant; null: every value that is not known is an input.
  Excerpt(const Facts& facts, const Sizes& sizes, const Value* only_input = nullptr);

  // Whoever reads `original` reads `instead`, which is the result of a node that was added.
  void read_instead(const Value* original, const Value* instead) { copies_[original] = copies_.at(instead); }
  // The copy; null when an input is neither known nor a floating-point tensor of known shape, or `node` is no operator of torch.
  Node* add(Node* node);
  Value* copy_of(const Value* original) const { return copies_.at(original); }
  Graph& graph() { return *graph_; }

  // A module whose forward takes inputs() and returns the copies of `results`.
  torch::jit::Module module(const std::vector<const Value*>& results);
  const std::vector<c10::IValue>& inputs() const { return inputs_; }
  // Text that is equal for excerpts of equal operators on equal shapes.
  const std::string& signature() const { return signature_; }

 private:
  Value* value_for(const Value* original);
  Value* tensor_for(const at::Tensor& known);

  const Facts& facts_;
  const Sizes& sizes_;
  const Value* only_input_;
  std::shared_ptr<Graph> graph_ = std::make_shared<Graph>();
  std::unordered_map<const Value*, Value*> copies_;
  std::vector<c10::IValue> inputs_;
  at::Generator numbers_;
  std::string signature_;
};

}  // namespace fusible
