#include "ops/kernels/weight_memory.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <unistd.h>

namespace fusible::kernels {
namespace {

std::uintptr_t address(const at::Tensor& weights) { return reinterpret_cast<std::uintptr_t>(weights.const_data_ptr<float>()); }

std::int64_t resident_bytes() {
  std::int64_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

TEST(WeightMemory, SmallWeightsLieBehindEachOther) {
  std::vector<at::Tensor> weights;
  for (std::int64_t floats : {1, 100, 16, 5000, 3}) weights.push_back(weight_memory(floats));
  int neighbours = 0;
  for (size_t i = 1; i < weights.size(); ++i) {
    EXPECT_EQ(address(weights[i]) % 64, 0u);
    neighbours += address(weights[i]) == address(weights[i - 1]) + (weights[i - 1].nbytes() + 63) / 64 * 64;
  }
  EXPECT_GE(neighbours, 3);  // one of them may open a chunk
}

TEST(WeightMemory, LargeWeightsBeginAtAHugePage) {
  for (std::int64_t floats : {1100000, 1 << 21, 5000001}) EXPECT_EQ(address(weight_memory(floats)) % (2 << 20), 0u) << floats;
}

TEST(WeightMemory, NoTwoWeightsShareMemory) {
  constexpr int kThreads = 6, kWeights = 200;
  std::vector<std::vector<at::Tensor>> of(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kWeights; ++i) {
        of[t].push_back(weight_memory(1 + 997 * (i % 50)));
        std::fill_n(of[t].back().mutable_data_ptr<float>(), of[t].back().numel(), static_cast<float>(t * kWeights + i));
      }
    });
  for (auto& thread : threads) thread.join();
  for (int t = 0; t < kThreads; ++t)
    for (int i = 0; i < kWeights; ++i) {
      const float* const begin = of[t][i].const_data_ptr<float>();
      ASSERT_TRUE(std::all_of(begin, begin + of[t][i].numel(), [&](float value) { return value == t * kWeights + i; })) << t << ", " << i;
    }
}

TEST(WeightMemory, GoesWithTheLastWeight) {
  const std::int64_t before = resident_bytes();
  for (int i = 0; i < 30; ++i) {
    const at::Tensor small = weight_memory(700000).fill_(1), large = weight_memory(2000000).fill_(1);
    ASSERT_EQ(small.numel(), 700000);
  }
  EXPECT_LT(resident_bytes() - before, 64 << 20);
}

}  // namespace
}  // namespace fusible::kernels
