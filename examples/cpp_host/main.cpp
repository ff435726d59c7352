// cpp_host IN.pt OUT.pt SIZE...: loads a model, fuses it, runs both on one input of that shape, and saves the fused one.

#include <cstdint>
#include <fstream>
#include <iostream>
#include <sstream>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/jit/serialization/import.h>

#include <fusible/fusible.h>

int main(int argc, char** argv) try {
  if (argc < 4) {
    std::cerr << "usage: cpp_host IN.pt OUT.pt SIZE...\n";
    return 2;
  }
  std::vector<std::int64_t> shape;
  for (int i = 3; i < argc; ++i) shape.push_back(std::stoll(argv[i]));

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
}
