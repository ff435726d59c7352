// preloaded_host MODEL.pt SIZE...: loads, runs five times, and prints each sum and the operators of the plan that ran.
// Run it as it is, and with LD_PRELOAD=libfusible.so FUSIBLE_ENABLE=1: same sums, another plan.

#include <charconv>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iomanip>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <system_error>
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

std::int64_t size(const char* text) {
  const char* end = text + std::strlen(text);
  std::int64_t value = 0;
  const auto [stop, error] = std::from_chars(text, end, value);
  if (error != std::errc() || stop != end || value < 0) throw std::invalid_argument("a size of 0 or more was needed, found \"" + std::string(text) + "\"");
  return value;
}

// The interpreter puts its traceback before the reason.
std::string last_line(const std::string& text) {
  const auto end = text.find_last_not_of(" \n");
  const auto begin = text.rfind('\n', end);
  return end == std::string::npos ? "no message" : text.substr(begin == std::string::npos ? 0 : begin + 1, end - begin);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::cerr << "usage: preloaded_host MODEL.pt SIZE...\n";
    return 2;
  }
  std::vector<std::int64_t> shape;
  for (int i = 2; i < argc; ++i) shape.push_back(size(argv[i]));

  at::NoGradGuard no_grad;
  torch::jit::Module module = torch::jit::load(argv[1]);
  at::manual_seed(0);
  const at::Tensor x = at::randn(shape);
  std::cout << std::setprecision(9);
  for (int call = 0; call < 5; ++call) std::cout << "sum " << module.forward({x}).toTensor().abs().sum().item<double>() << "\n";

  std::map<std::string, int> operators;
  count(torch::jit::lastExecutedOptimizedGraph()->block(), operators);
  for (const auto& [name, number] : operators) std::cout << "plan " << name << " " << number << "\n";
} catch (const c10::Error& error) {
  std::cerr << "preloaded_host: " << error.what_without_backtrace() << "\n";
  return 2;
} catch (const std::exception& error) {
  std::cerr << "preloaded_host: " << last_line(error.what()) << "\n";
  return 2;
}
