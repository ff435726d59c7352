#include "ops/region/arena.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include <c10/core/CPUAllocator.h>

namespace fusible {
namespace {

struct Buffer {
  size_t bytes;
  c10::DataPtr memory;
};

constexpr size_t kMostFree = 4;

struct Pool {
  Pool() { free.reserve(kMostFree + 1); }  // so that no destructor of an arena allocates
  std::mutex mutex;
  std::vector<Buffer> free;
};

// Never destroyed: a thread may give its buffer back while the process ends.
Pool& pool() {
  static Pool& instance = *new Pool;
  return instance;
}

}  // namespace

// The smallest free buffer that is large enough; one four times too large stays for those that need it.
Arena::Arena(size_t bytes) {
  if (!bytes) return;
  {
    std::lock_guard lock(pool().mutex);
    auto& free = pool().free;
    auto best = free.end();
    for (auto it = free.begin(); it != free.end(); ++it)
      if (it->bytes >= bytes && it->bytes / 4 <= bytes && (best == free.end() || it->bytes < best->bytes)) best = it;
    if (best != free.end()) {
      bytes_ = best->bytes;
      memory_ = std::move(best->memory);
      free.erase(best);
      return;
    }
  }
  bytes_ = bytes;
  memory_ = c10::GetCPUAllocator()->allocate(bytes);
}

Arena::~Arena() {
  if (!bytes_) return;
  std::lock_guard lock(pool().mutex);
  auto& free = pool().free;
  free.push_back({bytes_, std::move(memory_)});
  // The oldest goes.
  if (free.size() > kMostFree) free.erase(free.begin());
}

}  // namespace fusible
