// Cost of matching: `matcher_bench [nodes]`. Prints the median of interleaved rounds, constants known beforehand, and torch's
// SubgraphRewriter (matching only: every match is refused by a filter) on the same graph with 20 patterns of the same kinds.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include <torch/csrc/jit/ir/irparser.h>
#include <torch/csrc/jit/ir/subgraph_matcher.h>

#include "tests/patterns/matcher_graphs.h"

using namespace fusible::patterns;

namespace {

template <typename F>
double ms(F&& run) {
  auto begin = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  int nodes = argc > 1 ? std::atoi(argv[1]) : 50000;
  auto work = make_workload(nodes);
  auto tenth = make_workload(nodes / 10);
  auto constant = work.constant();
  auto vocabulary = library();
  double compile_vocabulary = ms([&] { Matcher matcher(vocabulary); });
  double compile = ms([] { Matcher(make_rules(1000)); });
  Matcher few(make_rules(20)), many(make_rules(1000));
  auto texts = make_ir_patterns(20);
  std::vector<double> t20, t1000, t_tenth, t_torch;
  std::size_t matches20 = 0, matches1000 = 0, matches_torch = 0;
  for (int round = 0; round < 11; ++round) {
    t20.push_back(ms([&] { matches20 = few.match(*work.graph, constant).matches.size(); }));
    t1000.push_back(ms([&] { matches1000 = many.match(*work.graph, constant).matches.size(); }));
    t_tenth.push_back(ms([&] { many.match(*tenth.graph, tenth.constant()); }));
    if (round % 3) continue;
    t_torch.push_back(ms([&] {
      matches_torch = 0;
      for (auto& text : texts) {
        torch::jit::Graph pattern;
        torch::jit::parseIR(text, &pattern);
        matches_torch += torch::jit::findPatternMatches(pattern, *work.graph).size();
      }
    }));
  }
  double a = median(t20), b = median(t1000), c = median(t_tenth), d = median(t_torch);
  std::printf("%d nodes\n", nodes);
  std::printf("20 patterns       %8.2f ms  %zu matches\n", a, matches20);
  std::printf("1000 patterns     %8.2f ms  %zu matches   %.2f x of 20\n", b, matches1000, b / a);
  std::printf("a tenth of nodes  %8.2f ms                 %.1f x less\n", c, b / c);
  std::printf("torch, 20         %8.2f ms  %zu matches   %.1f x of ours\n", d, matches_torch, d / a);
  std::printf("compiling the vocabulary          %.1f ms\n", compile_vocabulary);
  std::printf("reading and compiling 1000 rules  %.1f ms\n", compile);
}
