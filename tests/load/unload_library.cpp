// unload_library LIBFUSIBLE: a host that links torch alone opens the library, closes it, and runs a model that the library's pass fuses; at the end
// one OpenMP runtime is mapped. Exit 1 when a result differs, the pass did not run or another runtime came along.

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>

#include <torch/csrc/jit/runtime/graph_executor.h>

#include "tests/script.h"

namespace {

using torch::jit::Module;

Module network() {
  at::manual_seed(7);
  return fusible::testing::script("def forward(self, x):\n    return torch.relu(torch.conv2d(x, self.w, None, [2, 2], [1, 1]))",
                                  {{"w", at::randn({24, 3, 3, 3})}});
}

bool mentions_fusible(const std::string& text) { return text.find("fusible::conv_unpacked") != std::string::npos; }

std::set<std::string> openmp_runtimes() {
  std::set<std::string> paths;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const auto slash = line.find('/');
    if (slash == std::string::npos) continue;
    const std::string path = line.substr(slash), name = path.substr(path.rfind('/') + 1);
    for (const char* runtime : {"libgomp", "libiomp", "libomp"})
      if (name.rfind(runtime, 0) == 0) paths.insert(path);
  }
  return paths;
}

int run(const char* library) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({2, 3, 33, 35});
  Module before = network();
  const at::Tensor wanted = before.forward({x}).toTensor();
  for (int round = 0; round < 3; ++round) {
    void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) throw std::runtime_error(dlerror());
    if (dlclose(handle)) throw std::runtime_error(dlerror());
    Module module = network();
    for (int call = 0; call < 3; ++call) {
      if (at::allclose(module.forward({x}).toTensor(), wanted, 1e-4, 1e-4)) continue;
      std::printf("round %d: another result\n", round);
      return 1;
    }
    if (!mentions_fusible(torch::jit::lastExecutedOptimizedGraph()->toString())) {
      std::printf("round %d: the pass did not run\n", round);
      return 1;
    }
  }
  const auto runtimes = openmp_runtimes();
  for (const std::string& path : runtimes) std::printf("%s\n", path.c_str());
  return runtimes.size() == 1 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw std::runtime_error("the path of libfusible.so was needed");
  setenv("FUSIBLE_ENABLE", "1", 1);
  return run(argv[1]);
} catch (const std::exception& error) {
  std::fprintf(stderr, "unload_library: %s\n", error.what());
  return 2;
}
