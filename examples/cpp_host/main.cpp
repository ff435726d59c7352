// cpp_host IN.pt OUT.pt SIZE...: loads a model, fuses it, runs both on one input of that shape, and saves the fused one.

#include <charconv>
#include <cstdint>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/jit/serialization/import.h>

#include <fusible/fusible.h>

namespace {

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
  if (argc < 4) {
    std::cerr << "usage: cpp_host IN.pt OUT.pt SIZE...\n";
    return 2;
  }
  std::vector<std::int64_t> shape;
  for (int i = 3; i < argc; ++i) shape.push_back(size(argv[i]));

  at::NoGradGuard no_grad;
  torch::jit::Module original = torch::jit::load(argv[1], c10::Device(c10::kCPU));
  fusible::Options options;
  options.model_path = argv[1];
  auto [fused, report] = fusible::fuse(original, options);
  std::cout << report.to_string() << "\n";

  const at::Tensor x = at::randn(shape);
  const at::Tensor expected = original.forward({x}).toTensor();
  const at::Tensor found = fused.forward({x}).toTensor();
  const double error = ((found - expected).abs().max() / expected.abs().max()).item<double>();
  std::cout << "fused " << report.counts().fused << " of " << report.counts().candidates << ", error " << error << "\n";

  // In memory first: save(path) ends the process when the disk is full.
  std::ostringstream archive;
  fused.save(archive);
  std::ofstream file(argv[2], std::ios::binary);
  file << archive.str();
  file.close();
  if (!file) {
    std::cerr << "cpp_host: " << argv[2] << " could not be written\n";
    return 2;
  }
  return error <= 1e-5 ? 0 : 1;
} catch (const fusible::Error& error) {
  std::cerr << "cpp_host: " << error.what() << "\n";
  return 2;
} catch (const c10::Error& error) {
  std::cerr << "cpp_host: " << error.what_without_backtrace() << "\n";
  return 2;
} catch (const std::exception& error) {
  std::cerr << "cpp_host: " << last_line(error.what()) << "\n";
  return 2;
}
