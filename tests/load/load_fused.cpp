// load_fused [--minutes M] [--threads N]: N threads (16) run fused modules for M minutes (10), each call with another of many shapes; another
// thread switches the JIT pass on and off meanwhile. Exit 1 when a result has other bits than in a single thread, or memory grows.

#include <ATen/Parallel.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <random>
#include <thread>

#include "fusible/fusible.h"
#include "tests/script.h"

namespace {

using fusible::testing::script;
using fusible::testing::Weights;
using torch::jit::Module;
using Clock = std::chrono::steady_clock;

// A residual network with a gate and a head, for images of any size.
Module network() {
  at::manual_seed(7);
  const auto weight = [](at::IntArrayRef sizes) { return at::randn(sizes) * 0.1; };
  const Weights weights{{"w0", weight({24, 3, 3, 3})}, {"w1", weight({24, 24, 3, 3})}, {"w2", weight({24, 1, 3, 3})},
                        {"w3", weight({24, 24, 1, 1})}, {"head", weight({10, 24})},    {"g0", at::rand({24}) + 0.5},
                        {"b0", at::randn({24})},        {"g1", at::rand({24}) + 0.5},  {"b1", at::randn({24})}};
  const Weights statistics{{"m0", at::randn({24})}, {"v0", at::rand({24}) + 0.3}, {"m1", at::randn({24})}, {"v1", at::rand({24}) + 0.3}};
  return script(R"(
def forward(self, x):
    y = torch.conv2d(x, self.w0, None, [2, 2], [1, 1])
    y = torch.relu(torch.batch_norm(y, self.g0, self.b0, self.m0, self.v0, False, 0.1, 1e-5, False))
    z = torch.conv2d(y, self.w1, None, [1, 1], [1, 1])
    y = torch.relu(torch.batch_norm(z, self.g1, self.b1, self.m1, self.v1, False, 0.1, 1e-5, False) + y)
    z = torch.hardswish(torch.conv2d(y, self.w2, None, [1, 1], [1, 1], [1, 1], 24))
    y = torch.sigmoid(torch.conv2d(torch.adaptive_avg_pool2d(z, [1, 1]), self.w3)) * z
    return torch.linear(torch.flatten(torch.adaptive_avg_pool2d(y, [1, 1]), 1), self.head), y
)", weights, statistics);
}

std::vector<at::Tensor> call(Module& module, const at::Tensor& x) {
  const auto result = module.forward({x}).toTuple();
  return {result->elements()[0].toTensor(), result->elements()[1].toTensor()};
}

std::size_t resident_bytes() {
  std::size_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

struct Expected {
  at::Tensor x;
  std::vector<at::Tensor> y;
};

// More shapes than a region keeps plans for.
std::vector<Expected> single_threaded(Module& module) {
  std::vector<Expected> all;
  for (std::int64_t n : {1, 2, 3})
    for (std::int64_t size : {17, 24, 32, 40, 57, 64, 80, 96}) {
      const at::Tensor x = at::randn({n, 3, size, size + n});
      all.push_back({x, call(module, x)});
    }
  return all;
}

struct Arguments {
  double minutes = 10;
  int threads = 16;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string word = argv[i];
    if (word == "--minutes") a.minutes = std::stod(argv[i + 1]);
    else if (word == "--threads") a.threads = std::stoi(argv[i + 1]);
    else throw std::runtime_error("--minutes or --threads was needed, found " + word);
  }
  return a;
}

int run(const Arguments& arguments) {
  const at::NoGradGuard no_grad;
  Module original = network();
  Module fused = fusible::fuse(original).module;
  const auto expected = single_threaded(fused);

  const auto start = Clock::now();
  const auto end = start + std::chrono::duration<double>(60 * arguments.minutes);
  std::atomic<std::int64_t> calls{0}, differences{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < arguments.threads; ++t)
    threads.emplace_back([&, t] {
      const at::NoGradGuard guard;
      std::mt19937 random(static_cast<unsigned>(t));
      while (Clock::now() < end) {
        const auto& [x, wanted] = expected[random() % expected.size()];
        const auto found = call(fused, x);
        for (std::size_t i = 0; i < wanted.size(); ++i) differences += !at::equal(found[i], wanted[i]);
        ++calls;
      }
    });
  // The pass is switched while an unfused module runs, whose first calls are compiled with it or without it.
  threads.emplace_back([&] {
    const at::NoGradGuard guard;
    for (int i = 0; Clock::now() < end; ++i) {
      if (i % 2 == 0) fusible::enable();
      else fusible::disable();
      Module fresh = original.deepcopy();
      const auto& [x, wanted] = expected[static_cast<std::size_t>(i) % expected.size()];
      for (int again = 0; again < 3; ++again) {
        const auto found = call(fresh, x);
        for (std::size_t k = 0; k < wanted.size(); ++k) differences += !at::allclose(found[k], wanted[k], 1e-4, 1e-4);
      }
    }
    fusible::disable();
  });
  // A third of the time to fill pools and caches; then the largest size of the second third is the limit of the last.
  std::size_t limit = 0, largest = 0;
  while (Clock::now() < end) {
    const double share = (Clock::now() - start) / (end - start);
    if (share > 1. / 3 && share < 2. / 3) limit = std::max(limit, resident_bytes());
    if (share >= 2. / 3) largest = std::max(largest, resident_bytes());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  for (auto& thread : threads) thread.join();

  constexpr double kMiB = 1 << 20;
  std::printf("%ld calls in %d threads, %ld with other bits; memory %.0f MiB in the second third, %.0f MiB in the last\n", calls.load(),
              arguments.threads, differences.load(), static_cast<double>(limit) / kMiB, static_cast<double>(largest) / kMiB);
  const bool grows = static_cast<double>(largest) > 1.05 * static_cast<double>(limit) + 16 * kMiB;
  if (grows) std::printf("memory grows\n");
  return differences > 0 || grows ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) try {
  return run(parse(argc, argv));
} catch (const std::exception& error) {
  std::fprintf(stderr, "load_fused: %s\n", error.what());
  return 2;
}
