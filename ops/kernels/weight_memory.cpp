#include "ops/kernels/weight_memory.h"

#include <cstdlib>
#include <memory>
#include <mutex>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <ATen/ATen.h>

#include "ops/kernels/loop_nest.h"

namespace fusible::kernels {

namespace {

constexpr std::int64_t kLine = 64, kHugePage = 2 << 20, kChunk = 8 << 20;

// Of the system itself and given back to it at once: malloc would keep pieces of this size for whatever comes next, on huge pages.
std::shared_ptr<char> on_huge_pages(std::int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const std::size_t size = static_cast<std::size_t>(round_up(bytes, 4096)), room = size + kHugePage;
  void* const whole = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  TORCH_CHECK(whole != MAP_FAILED, "can't allocate memory: ", bytes, " bytes for packed weights were needed");
  char* const first = static_cast<char*>(whole);
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(first) % kHugePage) % kHugePage;
  char* const memory = first + before;
  if (before) munmap(first, before);
  if (const std::size_t behind = room - before - size) munmap(memory + size, behind);
  madvise(memory, size, MADV_HUGEPAGE);
  return {memory, [size](char* begin) { munmap(begin, size); }};
#else
  void* memory = nullptr;
  TORCH_CHECK(!posix_memalign(&memory, kHugePage, static_cast<std::size_t>(bytes)), "can't allocate memory: ", bytes, " bytes for packed weights were needed");
  return {static_cast<char*>(memory), std::free};
#endif
}

// The chunk that is being filled; the weights in it hold it.
struct Filling {
  std::mutex mutex;
  std::weak_ptr<char> chunk;
  std::int64_t used = 0;
};

}  // namespace

at::Tensor weight_memory(std::int64_t count, at::ScalarType dtype) {
  const std::int64_t bytes = round_up(count * static_cast<std::int64_t>(c10::elementSize(dtype)), kLine);
  std::shared_ptr<char> memory;
  if (bytes > kChunk / 2) {
    memory = on_huge_pages(bytes);
  } else {
    static Filling& filling = *new Filling;  // never destroyed: a thread may pack while the process ends
    const std::lock_guard lock(filling.mutex);
    std::shared_ptr<char> chunk = filling.chunk.lock();
    if (!chunk || filling.used + bytes > kChunk) {
      filling.chunk = chunk = on_huge_pages(kChunk);
      filling.used = 0;
    }
    memory = {chunk, chunk.get() + filling.used};
    filling.used += bytes;
  }
  char* const begin = memory.get();
  return at::from_blob(begin, {count}, [memory = std::move(memory)](void*) {}, dtype);
}

}  // namespace fusible::kernels
