#pragma once

// Modules for tests: TorchScript methods on a module with seeded random weights.

#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/jit/api/module.h>

namespace fusible::testing {

using Weights = std::vector<std::pair<std::string, at::Tensor>>;

// `source` defines methods of a module whose parameters are `weights` and whose buffers are `buffers`, in eval mode.
inline torch::jit::Module script(const std::string& source, const Weights& weights = {}, const Weights& buffers = {}) {
  torch::jit::Module module("model");
  for (const auto& [name, tensor] : weights) module.register_parameter(name, tensor.clone(at::MemoryFormat::Preserve), /*is_buffer=*/false);
  for (const auto& [name, tensor] : buffers) module.register_buffer(name, tensor.clone(at::MemoryFormat::Preserve));
  module.register_attribute("training", c10::BoolType::get(), false);
  module.define(source + "\n");
  return module;
}

inline at::Tensor seeded(std::vector<std::int64_t> sizes, std::uint64_t seed) {
  return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions());
}

}  // namespace fusible::testing
