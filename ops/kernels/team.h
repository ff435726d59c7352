#pragma once

// How tasks meet the threads. OpenMP's own loops end when every thread has come by, also one that has nothing left to do and whose core another process
// has; here a loop ends when its tasks are done, and the threads come by once, at the end of many loops.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

#include <ATen/Parallel.h>
#include <c10/util/FunctionRef.h>

#include "fusible/export.h"

namespace fusible::kernels {

// In which order a thread has its tasks: back at one loop and forth at the next finds in the cache what was read last.
enum class Order { forth, back };

// One thread leads, the others stand by for its loops. Each has a run of tasks of its own, so that it reads what it wrote in the loop before, and then
// takes from the others': those of a thread that is away are done without it.
class FUSIBLE_API Team {
 public:
  static constexpr std::int64_t kMostThreads = 64;

  explicit Team(std::int64_t threads) : threads_(std::min(threads, kMostThreads)) {}

  // By the one that leads: task(i) for each i in [0, tasks), once. Throws what a task threw, when none runs any more.
  template <typename Task>
  void run(std::int64_t tasks, const Task& task, Order order = Order::forth) {
    run_erased(tasks, [](const void* erased, std::int64_t i) { (*static_cast<const Task*>(erased))(i); }, &task, order);
  }
  // By thread `own` of the others, from 1 on, if it comes at all: until the end.
  void stand_by(std::int64_t own);
  void end() { loop_.store(kEnd, std::memory_order_release); }

 private:
  using Call = void (*)(const void*, std::int64_t);

  struct alignas(64) Run {
    std::atomic<std::int64_t> taken{0};  // number of the loop << 32 | how many of its tasks in this run
    std::atomic<std::int64_t> begin{0}, end{0};
  };

  void run_erased(std::int64_t tasks, Call call, const void* task, Order order);
  std::int64_t take_all(std::int64_t own, std::int64_t loop);
  std::int64_t take(Run& run, std::int64_t loop);
  void call(std::int64_t i) noexcept;

  static constexpr std::int64_t kEnd = -1;
  const std::int64_t threads_;
  // Of the loop at hand: read by who has taken one of its tasks, and not written before that one is done.
  Call call_ = nullptr;
  const void* task_ = nullptr;
  Order order_ = Order::forth;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  alignas(64) std::atomic<std::int64_t> loop_{0};
  alignas(64) std::atomic<std::int64_t> finished_{0};  // tasks of the loop at hand
  Run runs_[kMostThreads];
};

// The team that the calling thread leads and no task of which it is in; null: none.
FUSIBLE_API Team* leading();

// `work` on the calling thread, with a team of at::get_num_threads() that its loops meet; ATen's own loops run on the calling thread alone meanwhile.
// Just `work` within a team, a task, or another parallel region, and for a while after a thread has kept the caller waiting: a thread whose core another
// process has holds up more than it does.
FUSIBLE_API void with_team(c10::function_ref<void()> work);

// How many teams the calling thread has led. Each costs a parallel region: with one loop of threads or none, a team for all loops saves nothing.
FUSIBLE_API std::int64_t teams_led();

// task(i) for each i in [0, tasks), on the team at hand or one of its own; one after the other within a task or another parallel region.
template <typename Task>
void for_each_task(std::int64_t tasks, const Task& task, Order order = Order::forth) {
  const auto meet = [&] {
    if (Team* const team = leading()) return team->run(tasks, task, order);
    for (std::int64_t i = 0; i < tasks; ++i) task(order == Order::back ? tasks - 1 - i : i);
  };
  tasks > 1 && !leading() ? with_team(meet) : meet();
}

// work(begin, end) on pieces of [0, count), of at least `grain`: what at::parallel_for does.
template <typename Work>
void for_each_range(std::int64_t count, std::int64_t grain, const Work& work) {
  constexpr std::int64_t kPieces = 4;  // for each thread, so that one that comes late finds something left
  const std::int64_t pieces = std::clamp<std::int64_t>(count / std::max<std::int64_t>(1, grain), 1, kPieces * at::get_num_threads());
  for_each_task(pieces, [&](std::int64_t i) { work(count * i / pieces, count * (i + 1) / pieces); });
}

}  // namespace fusible::kernels
