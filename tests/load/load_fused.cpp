// load_fused [--minutes M] [--threads N]: N threads (16) run fused modules for M minutes (10), each call with another of many shapes; another
// thread switches the JIT pass on and off meanwhile. Exit 1 when a result has other bits than in a single thread, or memory grows.

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <limits>
#include <random>
#include <thread>

#include "fusible/fusible.h"
#include "tests/load/network.h"

namespace {

using fusible::testing::call;
using fusible::testing::Expected;
using torch::jit::Module;
using Clock = std::chrono::steady_clock;

constexpr double kKiB = 1 << 10, kMiB = 1 << 20;
// Between phases, while no call runs, what is held can be counted to the byte. Before that every shape is called once more, in one order, since what
// the caches hold depends on the last calls. The first phases fill caches; then the executor's and the C library's own lists move a little.
constexpr int kPhases = 12, kWarm = 4;
constexpr double kMoves = 2 * kMiB, kBytesOfACall = 8;

struct Memory {
  double held = 0, resident = 0;
};

Memory memory() {
  const struct mallinfo2 heap = mallinfo2();
  std::size_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return {static_cast<double>(heap.uordblks + heap.hblkhd), static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE))};
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

struct Counts {
  std::atomic<std::int64_t> calls{0}, compiled{0}, differences{0};
};

// Until `end`: calls of the fused module, and of fresh copies of the original, whose first calls are compiled with the pass or without it.
void phase(Module& original, Module& fused, const std::vector<Expected>& expected, int threads, unsigned seed, Clock::time_point end, Counts& counts) {
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t)
    running.emplace_back([&, t] {
      const at::NoGradGuard guard;
      std::mt19937 random(seed + static_cast<unsigned>(t));
      while (Clock::now() < end) {
        const auto& [x, wanted] = expected[random() % expected.size()];
        const auto found = call(fused, x);
        for (std::size_t i = 0; i < wanted.size(); ++i) counts.differences += !at::equal(found[i], wanted[i]);
        ++counts.calls;
      }
    });
  running.emplace_back([&] {
    const at::NoGradGuard guard;
    for (std::size_t i = 0; Clock::now() < end; ++i) {
      if (i % 2 == 0) fusible::enable();
      else fusible::disable();
      Module fresh = original.deepcopy();
      const auto& [x, wanted] = expected[i % expected.size()];
      for (int again = 0; again < 3; ++again) {
        const auto found = call(fresh, x);
        for (std::size_t k = 0; k < wanted.size(); ++k) counts.differences += !at::allclose(found[k], wanted[k], 1e-4, 1e-4);
      }
      ++counts.compiled;
    }
    fusible::disable();
  });
  for (auto& thread : running) thread.join();
}

int run(const Arguments& arguments) {
  const at::NoGradGuard no_grad;
  Module original = fusible::testing::network();
  Module fused = fusible::fuse(original).module;
  const auto expected = fusible::testing::single_threaded(fused);

  Counts counts;
  std::int64_t calls_when_warm = 0;
  Memory warm, last;
  double resident = std::numeric_limits<double>::infinity();  // the least of the last phases: it wavers by the huge pages that are touched, and a leak is in all
  const auto length = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(60 * arguments.minutes / kPhases));
  for (int i = 1; i <= kPhases; ++i) {
    phase(original, fused, expected, arguments.threads, static_cast<unsigned>(1000 * i), Clock::now() + length, counts);
    for (const Expected& one : expected) call(fused, one.x);
    last = memory();
    if (i > kPhases - 4) resident = std::min(resident, last.resident);
    std::printf("phase %2d: %9.0f KiB held, %6.0f MiB resident, %ld calls, %ld plans\n", i, last.held / kKiB, last.resident / kMiB, counts.calls.load(),
                counts.compiled.load());
    std::fflush(stdout);
    if (i != kWarm) continue;
    warm = last;
    calls_when_warm = counts.calls;
  }
  const double growth = last.held - warm.held, calls = static_cast<double>(counts.calls - calls_when_warm);
  const bool grows = growth > kMoves + kBytesOfACall * calls || resident > 1.05 * warm.resident + 16 * kMiB;
  std::printf("%ld calls in %d threads, %ld with other bits; since phase %d %+.0f KiB held and %+.1f MiB resident in %.0f calls: %s\n", counts.calls.load(),
              arguments.threads, counts.differences.load(), kWarm, growth / kKiB, (resident - warm.resident) / kMiB, calls, grows ? "memory grows" : "flat");
  return counts.differences > 0 || grows ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) try {
  return run(parse(argc, argv));
} catch (const std::exception& error) {
  std::fprintf(stderr, "load_fused: %s\n", error.what());
  return 2;
}
