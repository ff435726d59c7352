#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace fuzz {

// splitmix64: the same numbers on every machine for one seed, which <random>'s distributions do not promise.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(n)); }
  bool chance(int percent) { return below(100) < percent; }
  template <typename T>
  T pick(std::initializer_list<T> items) { return items.begin()[below(static_cast<std::int64_t>(items.size()))]; }
  template <typename T>
  const T& pick(const std::vector<T>& items) { return items[below(static_cast<std::int64_t>(items.size()))]; }

 private:
  std::uint64_t state_;
};

}  // namespace fuzz
