// preloaded_host MODEL.pt SIZE...: loads, runs five times, and prints each sum and the operators of the plan that ran.
// Run it as it is, and with LD_PRELOAD=libfusible.so FUSIBLE_ENABLE=1: same sums, another plan.

#include <cstdint>
#include <iomanip>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

namespace {

void count(const torch::jit::Block* block, std::map<std::string, int>& operators) {
  for (const torch::jit::Node* node : block->nodes()) {
    ++operators[node->kind().toQualString()];
    for (const torch::jit::Block* inner : node->blocks()) count(inner, operators);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: preloaded_host MODEL.pt SIZE...\n";
    return 2;
  }
  std::vector<std::int64_t> shape;
  for (int i = 2; i < argc; ++i) shape.push_back(std::stoll(argv[i]));

  at::NoGradGuard no_grad;
  torch::jit::Module module = torch::jit::load(argv[1]);
  at::manual_seed(0);
  const at::Tensor x = at::randn(shape);
  std::cout << std::setprecision(9);
  for (int call = 0; call < 5; ++call) std::cout << "sum " << module.forward({x}).toTensor().abs().sum().item<double>() << "\n";

  std::map<std::string, int> operators;
  count(torch::jit::lastExecutedOptimizedGraph()->block(), operators);
  for (const auto& [name, number] : operators) std::cout << "plan " << name << " " << number << "\n";
}
