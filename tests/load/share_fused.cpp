// share_fused [ROUNDS]: threads meet at fused modules that nobody has called yet: first calls, which pack the weights and make the plans, beside
// save, deepcopy, fuse of the same module, new patterns, and the JIT pass switched on and off. Exit 1 when a result has other bits than in a single
// thread.

#include <atomic>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <sstream>
#include <thread>

#include <torch/csrc/jit/serialization/import.h>

#include "fusible/fusible.h"
#include "tests/load/network.h"

namespace {

using fusible::testing::call;
using fusible::testing::Expected;
using torch::jit::Module;

constexpr int kCallers = 4;

int run(int rounds) {
  const at::NoGradGuard no_grad;
  Module original = fusible::testing::network();
  Module reference = fusible::fuse(original).module;
  const std::vector<Expected> expected = fusible::testing::single_threaded(reference);
  Module recurrent = fusible::testing::recurrent_network();
  Module recurrent_reference = fusible::fuse(recurrent).module;
  const at::Tensor sequence = fusible::testing::seeded({2, 3, 256}, 3);
  const Expected of_sequence{sequence, call(recurrent_reference, sequence)};
  std::atomic<int> differences{0}, failures{0};
  const auto compare_with = [&](Module& module, const Expected& wanted) {
    const auto found = call(module, wanted.x);
    for (std::size_t k = 0; k < wanted.y.size(); ++k) differences += !at::equal(found[k], wanted.y[k]);
  };
  const auto compare = [&](Module& module, std::size_t i) { compare_with(module, expected[i % expected.size()]); };
  for (int round = 0; round < rounds; ++round) {
    Module fused = fusible::fuse(original).module, fused_recurrent = fusible::fuse(recurrent).module;
    const auto seed = static_cast<std::size_t>(round);
    std::vector<std::function<void()>> actions;
    for (std::size_t t = 0; t < kCallers; ++t)
      actions.push_back([&, t] { for (std::size_t i = 0; i < 6; ++i) compare(fused, seed + i * (t % 2 ? 1 : 5)); });
    for (int t = 0; t < kCallers; ++t) actions.push_back([&] { compare_with(fused_recurrent, of_sequence); });
    actions.push_back([&] {
      std::stringstream archive;
      fused.save(archive);
      Module loaded = torch::jit::load(archive);
      compare(loaded, seed);
    });
    actions.push_back([&] {
      Module copy = fused.deepcopy();
      compare(copy, seed + 1);
    });
    actions.push_back([&] {
      Module again = fusible::fuse(original).module;
      compare(again, seed + 2);
    });
    actions.push_back([&] { fusible::warmup(fused, {expected[0].x}); });
    actions.push_back([&] {
      for (int i = 0; i < 4; ++i) {
        if (i % 2 == 0) fusible::enable();
        else fusible::disable();
        Module fresh = original.deepcopy();
        for (int again = 0; again < 3; ++again) call(fresh, expected[0].x);
        fusible::why_not_running(&fresh);
      }
    });
    actions.push_back([&] {
      const std::string name = "met" + std::to_string(round);
      fusible::load_patterns("rule " + name + "\n  match e = aten::exp(x)\n  match y = aten::log(e)\n  emit y = aten::clone(x, none)\n", name);
    });
    std::barrier meeting(static_cast<std::ptrdiff_t>(actions.size()));
    std::vector<std::thread> threads;
    for (const auto& action : actions)
      threads.emplace_back([&] {
        const at::NoGradGuard guard;
        meeting.arrive_and_wait();
        try {
          action();
        } catch (const std::exception& error) {
          std::fprintf(stderr, "%s\n", error.what());
          ++failures;
        }
      });
    for (auto& thread : threads) thread.join();
  }
  std::printf("%d rounds, %d results with other bits, %d failures\n", rounds, differences.load(), failures.load());
  return differences > 0 || failures > 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) try {
  return run(argc > 1 ? std::atoi(argv[1]) : 5);
} catch (const std::exception& error) {
  std::fprintf(stderr, "share_fused: %s\n", error.what());
  return 2;
}
