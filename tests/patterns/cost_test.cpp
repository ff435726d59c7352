#include <ctime>

#include <algorithm>

#include "tests/patterns/matcher_graphs.h"

namespace fusible::patterns {
namespace {

double cpu_ms() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

// Processor milliseconds of one match, the least of `repeats`: other processes only ever add to it.
double match_ms(const Matcher& matcher, const Workload& work, int repeats) {
  double least = 1e9;
  for (int i = 0; i < repeats; ++i) {
    auto begin = cpu_ms();
    auto result = matcher.match(*work.graph, work.constant());
    least = std::min(least, cpu_ms() - begin);
    EXPECT_FALSE(result.matches.empty());
  }
  return least;
}

// What a shared cache adds is a factor of two or three, what a worse law adds is a power: the bounds lie between.

// Rules that were tried one by one would cost 50 times as much. bench/matcher_bench measures the target, 1.2.
TEST(Cost, AThousandPatternsCostAsTwentyDo) {
  auto work = make_workload(5000);
  Matcher few(make_rules(20)), many(make_rules(1000));
  EXPECT_LE(match_ms(many, work, 50) / match_ms(few, work, 50), 5);
}

// Forty times the nodes: a quadratic law would give 1600, caches that no longer hold the graph give up to 4 times 40.
TEST(Cost, IsLinearInTheNumberOfNodes) {
  auto small = make_workload(5000), large = make_workload(200000);
  Matcher matcher(make_rules(100));
  EXPECT_LE(match_ms(matcher, large, 3) / match_ms(matcher, small, 50), 400);
}

}  // namespace
}  // namespace fusible::patterns
