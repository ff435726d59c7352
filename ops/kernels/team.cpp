#include "ops/kernels/team.h"

#include <omp.h>

#include <chrono>
#include <thread>
#include <utility>

namespace fusible::kernels {
namespace {

thread_local Team* team_of_this_thread = nullptr;
thread_local std::int64_t teams = 0;

using Clock = std::chrono::steady_clock;
thread_local Clock::time_point alone_until;
thread_local Clock::duration alone_for{};

constexpr std::int64_t kSpins = 4096;  // some 80 us with a core of its own; then a thread that has none gets its turn

void wait_a_little(std::int64_t& spins) {
  if (++spins > kSpins) return std::this_thread::yield();
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

// After a wait that no work explains: the longest that a task may take is about what the caller's own took.
void heed(Clock::duration waited, Clock::duration worked) {
  constexpr std::chrono::milliseconds kLongest(200);
  constexpr std::chrono::microseconds kShort(500);
  constexpr int kExplained = 4, kTimesAlone = 4;
  if (waited <= kShort || waited <= kExplained * worked) return;
  const auto now = Clock::now();
  // Soon after the last time the core is still another's: longer. The threads of OpenMP that are not asked for anything spin for some milliseconds each time.
  const bool again = now - alone_until < alone_for;
  alone_for = std::min<Clock::duration>(std::max(kTimesAlone * waited, again ? 2 * alone_for : Clock::duration{}), kLongest);
  alone_until = now + alone_for;
}

// Leads `team` until it ends; null: is in a task.
class Leads {
 public:
  explicit Leads(Team* team) : before_(std::exchange(team_of_this_thread, team)) {}
  ~Leads() { team_of_this_thread = before_; }
  Leads(const Leads&) = delete;

 private:
  Team* const before_;
};

}  // namespace

Team* leading() { return team_of_this_thread; }

std::int64_t teams_led() { return teams; }

void Team::call(std::int64_t i) noexcept {
  try {
    call_(task_, i);
  } catch (...) {
    if (!failed_.exchange(true)) error_ = std::current_exception();
  }
}

// Taking succeeds where nothing of the run was taken since it was looked at: then the loop is not over, and what was read of it is its own.
std::int64_t Team::take(Run& run, std::int64_t loop) {
  std::int64_t done = 0;
  for (std::int64_t seen = run.taken.load(std::memory_order_acquire);;) {
    const std::int64_t begin = run.begin.load(std::memory_order_relaxed), end = run.end.load(std::memory_order_relaxed), nth = seen - (loop << 32);
    if (nth < 0 || nth >= end - begin) return done;
    if (!run.taken.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    call(order_ == Order::back ? end - 1 - nth : begin + nth);
    ++done, ++seen;
  }
}

std::int64_t Team::take_all(std::int64_t own, std::int64_t loop) {
  std::int64_t done = 0;
  for (std::int64_t t = own; t < own + threads_; ++t) done += take(runs_[t % threads_], loop);
  return done;
}

void Team::run_erased(std::int64_t tasks, Call call, const void* task, Order order) {
  const auto start = Clock::now();
  if (start < alone_until) {
    const Leads in_a_task(nullptr);
    for (std::int64_t i = 0; i < tasks; ++i) call(task, order == Order::back ? tasks - 1 - i : i);
    return;
  }
  const std::int64_t loop = loop_.load(std::memory_order_relaxed) + 1;
  call_ = call;
  task_ = task;
  order_ = order;
  finished_.store(0, std::memory_order_relaxed);
  for (std::int64_t t = 0; t < threads_; ++t) {
    runs_[t].begin.store(tasks * t / threads_, std::memory_order_relaxed);
    runs_[t].end.store(tasks * (t + 1) / threads_, std::memory_order_relaxed);
    runs_[t].taken.store(loop << 32, std::memory_order_release);
  }
  loop_.store(loop, std::memory_order_release);
  std::int64_t done, spins = 0;
  {
    const Leads in_a_task(nullptr);
    done = take_all(0, loop);
  }
  Clock::time_point waiting;
  while (finished_.load(std::memory_order_acquire) + done != tasks) {
    wait_a_little(spins);
    if (spins == kSpins) waiting = Clock::now();
  }
  if (spins >= kSpins) heed(Clock::now() - waiting, waiting - start);
  if (failed_.exchange(false)) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Team::stand_by(std::int64_t own) {
  std::int64_t seen = 0, spins = 0;
  for (std::int64_t loop; (loop = loop_.load(std::memory_order_acquire)) != kEnd;) {
    if (loop == seen) {
      wait_a_little(spins);
      continue;
    }
    seen = loop;
    spins = 0;
    if (const std::int64_t done = take_all(own, loop)) finished_.fetch_add(done, std::memory_order_release);
  }
}

void with_team(c10::function_ref<void()> work) {
  const std::int64_t threads = std::min<std::int64_t>(at::get_num_threads(), Team::kMostThreads);
  if (threads <= 1 || at::in_parallel_region() || Clock::now() < alone_until) return work();
  ++teams;
  Team team(threads);
  std::exception_ptr error;
  Clock::time_point ended;
#pragma omp parallel num_threads(static_cast<int>(threads))
  if (const int own = omp_get_thread_num()) {
    team.stand_by(own);
  } else {
    const Leads leads(&team);
    try {
      work();
    } catch (...) {
      error = std::current_exception();
    }
    team.end();
    ended = Clock::now();
  }
  heed(Clock::now() - ended, {});
  if (error) std::rethrow_exception(error);
}

}  // namespace fusible::kernels
