#include "ops/kernels/team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace fusible::kernels {
namespace {

// Loops of which each reads what all tasks of the one before wrote. A task that ran twice, early or not at all gives other numbers.
std::vector<std::uint64_t> chained(Team& team, std::int64_t loops, std::int64_t tasks) {
  std::vector<std::uint64_t> before(tasks, 1), after(tasks, 0);
  for (std::int64_t loop = 0; loop < loops; ++loop) {
    const auto task = [&](std::int64_t i) {
      std::uint64_t sum = 0;
      for (std::uint64_t value : before) sum = sum * 31 + value;
      after[i] += sum + i;
    };
    team.run(tasks, task, loop % 2 ? Order::back : Order::forth);
    before.swap(after);
    std::fill(after.begin(), after.end(), 0);
  }
  return before;
}

// Threads that stand by while `lead` leads.
template <typename Lead>
void with_threads(Team& team, std::int64_t threads, const Lead& lead) {
  std::vector<std::thread> others;
  for (std::int64_t own = 1; own < threads; ++own) others.emplace_back([&, own] { team.stand_by(own); });
  lead();
  team.end();
  for (auto& other : others) other.join();
}

template <typename Body>
void on_a_thread_that_never_waited(const Body& body) {
  std::thread(body).join();
}

TEST(Team, RunsEachTaskOnceBetweenTheLoopBeforeAndTheNext) {
  for (const std::int64_t tasks : {1, 3, 16, 61}) {
    Team alone(1), team(4);
    with_threads(team, 4, [&] { EXPECT_EQ(chained(team, 3000, tasks), chained(alone, 3000, tasks)) << tasks; });
  }
}

TEST(Team, DoesWithoutThreadsThatNeverCome) {
  Team alone(1), team(3);
  EXPECT_EQ(chained(team, 500, 16), chained(alone, 500, 16));
}

TEST(Team, GivesAThreadItsRunForthAndBack) {
  Team team(1);
  for (const Order order : {Order::forth, Order::back}) {
    std::vector<std::int64_t> seen;
    team.run(4, [&](std::int64_t i) { seen.push_back(i); }, order);
    EXPECT_EQ(seen, order == Order::forth ? (std::vector<std::int64_t>{0, 1, 2, 3}) : (std::vector<std::int64_t>{3, 2, 1, 0}));
  }
}

// Its core is another's for 20 ms at each of its tasks: of 50 loops of 16 tasks it would have 8 in each, 8 s.
TEST(Team, DoesTheWorkOfAThreadThatIsAway) {
  Team team(2);
  with_threads(team, 2, [&] {
    const auto leader = std::this_thread::get_id();
    const auto start = std::chrono::steady_clock::now();
    std::atomic<std::int64_t> done{0};
    for (std::int64_t loop = 0; loop < 50; ++loop)
      team.run(16, [&](std::int64_t) {
        std::this_thread::sleep_for(std::chrono::milliseconds(std::this_thread::get_id() == leader ? 1 : 20));
        ++done;
      });
    EXPECT_EQ(done, 50 * 16);
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 4);
  });
}

// It holds up one loop, and is asked again after 4 times as long: here 80 ms, longer than 20 loops without it take.
TEST(Team, DoesNotWaitTwiceInARowForAThreadThatIsAway) {
  Team team(2);
  with_threads(team, 2, [&] {
    const auto leader = std::this_thread::get_id();
    std::atomic<std::int64_t> others{0};
    const auto loop = [&] {
      team.run(4, [&](std::int64_t) {
        const bool leads = std::this_thread::get_id() == leader;
        others += !leads;
        std::this_thread::sleep_for(leads ? std::chrono::microseconds(50) : std::chrono::microseconds(20000));
      });
    };
    while (!others) loop();
    for (int i = 0; i < 20; ++i) loop();
    EXPECT_LE(others, 10);  // of 20 and more, were it waited for each time
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    const auto start = std::chrono::steady_clock::now();
    others = 0;
    while (!others && std::chrono::steady_clock::now() - start < std::chrono::seconds(5)) loop();
    EXPECT_GE(others, 1);
  });
}

TEST(Team, ThrowsWhatATaskThrewWhenNoneRunsAnyMore) {
  on_a_thread_that_never_waited([] {
    Team team(2);
    with_threads(team, 2, [&] {
      std::atomic<std::int64_t> running{0}, done{0};
      const auto task = [&](std::int64_t i) {
        ++running;
        std::this_thread::sleep_for(std::chrono::microseconds(100));
        ++done, --running;
        if (i % 5 == 3) throw std::runtime_error("no memory");
      };
      EXPECT_THROW(team.run(20, task), std::runtime_error);
      EXPECT_EQ(running, 0);
      done = 0;
      team.run(2, task);  // and is as it was
      EXPECT_EQ(done, 2);
    });
  });
}

TEST(Team, IsOneForAllLoopsWithinIt) {
  on_a_thread_that_never_waited([] {
    std::atomic<std::int64_t> nested{0};
    with_team([&] {
      Team* const team = leading();
      EXPECT_EQ(team != nullptr, at::get_num_threads() > 1);
      with_team([&] { EXPECT_EQ(leading(), team); });
      for_each_task(8, [&](std::int64_t) {
        EXPECT_EQ(leading(), nullptr);
        for_each_task(4, [&](std::int64_t) { ++nested; });  // one after the other
      });
      EXPECT_EQ(leading(), team);
    });
    EXPECT_EQ(leading(), nullptr);
    EXPECT_EQ(nested, 32);
    EXPECT_THROW(with_team([] { throw std::runtime_error("in the lead"); }), std::runtime_error);
  });
}

TEST(Team, CutsARangeIntoPiecesThatCoverIt) {
  for (const std::int64_t count : {0, 1, 7, 1000}) {
    std::vector<std::atomic<int>> met(count);
    for_each_range(count, 3, [&](std::int64_t begin, std::int64_t end) {
      EXPECT_TRUE(end - begin >= 3 || end - begin == count);
      for (; begin < end; ++begin) ++met[begin];
    });
    for (auto& times : met) EXPECT_EQ(times, 1);
  }
}

}  // namespace
}  // namespace fusible::kernels
