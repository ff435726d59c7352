#include "tests/patterns/cases.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace fusible::patterns {

namespace {

// "def f(x, w):\n    body" becomes "def forward(self, x):\n    w = self.w\n    body".
std::string forward_source(const Case& one) {
  auto body_begin = one.source.find('\n', one.source.find("):")) + 1;
  auto indent = one.source.substr(body_begin, one.source.find_first_not_of(" \n", body_begin) - body_begin);
  std::string head = "def forward(self", weights;
  for (auto& argument : one.arguments) {
    if (argument.constant) weights += indent + argument.name + " = self." + argument.name + "\n";
    else head += ", " + argument.name;
  }
  return head + "):\n" + weights + one.source.substr(body_begin);
}

}  // namespace

CaseModule module_of(const Case& one, std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  CaseModule made{torch::jit::Module("case"), {}};
  for (auto& argument : one.arguments) {
    auto tensor = at::randn(argument.sizes, generator, at::TensorOptions());
    if (argument.positive) tensor = tensor.abs() + 0.3;
    if (argument.constant) made.module.register_parameter(argument.name, tensor, /*is_buffer=*/false);
    else made.inputs.emplace_back(tensor);
  }
  made.module.register_attribute("training", c10::BoolType::get(), false);
  made.module.define(forward_source(one));
  return made;
}

}  // namespace fusible::patterns
