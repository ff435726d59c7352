// What the cost model (ops/kernel.cpp, ops/region/step_contraction.cpp) takes against what measures fastest: our loop nests, oneDNN's operator
// with a post-op, ATen's operators one by one. Per shape: an operator on a contiguous input, and one inside of a region (channels_last there).
// Ways take turns; the least time of each counts, since neighbours only ever add to it. Regret: time of the model's way / the least of all.
//   ways_bench [threads] [chain] [group of shapes]

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "ops/region/region.h"
#include "ops/trial.h"

namespace {

using fusible::Argument;
using fusible::Contraction;
using fusible::ContractionSpec;
using fusible::Trial;
using fusible::Way;

struct Shape {
  const char* what;
  std::int64_t in, out, kernel, stride, groups, size, batch;  // size: height and width; linear: rows, kernel 0
};

const Shape kShapes[] = {
    {"resnet50", 3, 64, 7, 2, 1, 224, 1},       {"resnet50", 64, 64, 1, 1, 1, 56, 1},     {"resnet50", 64, 64, 3, 1, 1, 56, 1},
    {"resnet50", 256, 64, 1, 1, 1, 56, 1},      {"resnet50", 128, 128, 3, 2, 1, 56, 1},   {"resnet50", 256, 512, 1, 2, 1, 56, 1},
    {"resnet50", 256, 1024, 1, 1, 1, 14, 1},    {"resnet50", 256, 256, 3, 1, 1, 14, 1},   {"resnet50", 2048, 512, 1, 1, 1, 7, 1},
    {"resnet50", 512, 512, 3, 1, 1, 7, 1},      {"vgg16", 64, 64, 3, 1, 1, 224, 1},       {"vgg16", 512, 512, 3, 1, 1, 14, 1},
    {"mobilenet_v2", 32, 32, 3, 1, 32, 112, 1}, {"mobilenet_v2", 96, 96, 3, 2, 96, 112, 1}, {"mobilenet_v2", 384, 384, 3, 1, 384, 14, 1},
    {"mobilenet_v2", 144, 24, 1, 1, 1, 56, 1},  {"mobilenet_v2", 960, 160, 1, 1, 1, 7, 1}, {"encoder", 768, 768, 0, 1, 1, 128, 1},
    {"encoder", 768, 3072, 0, 1, 1, 128, 1},    {"encoder", 3072, 768, 0, 1, 1, 197, 1},  {"small", 3, 16, 3, 1, 1, 16, 1},
    {"small", 3, 16, 3, 1, 1, 16, 8},           {"small", 3, 8, 3, 1, 1, 8, 1},           {"small", 16, 16, 3, 1, 1, 16, 1},
    {"small", 16, 16, 3, 1, 1, 16, 8},          {"small", 16, 16, 1, 1, 1, 8, 1},         {"small", 8, 8, 3, 1, 1, 4, 1},
    {"small K", 4, 16, 1, 1, 1, 56, 1},         {"small K", 8, 32, 1, 1, 1, 28, 1},       {"small K", 12, 24, 1, 1, 1, 28, 8},
    {"depthwise", 8, 8, 3, 1, 8, 16, 1},        {"depthwise", 32, 32, 3, 1, 32, 14, 1},   {"depthwise", 64, 64, 5, 2, 64, 28, 1},
    {"groups", 64, 64, 3, 1, 4, 14, 1},         {"groups", 32, 32, 3, 1, 4, 28, 1},       {"groups", 128, 128, 1, 1, 8, 14, 8},
    {"row", 32, 64, 0, 1, 1, 1, 1},             {"row", 64, 10, 0, 1, 1, 1, 1},           {"row", 128, 128, 0, 1, 1, 1, 1},
    {"row", 512, 1000, 0, 1, 1, 1, 1},          {"row", 768, 768, 0, 1, 1, 1, 1},         {"row", 1024, 1024, 0, 1, 1, 1, 1},
    {"row", 4096, 4096, 0, 1, 1, 1, 1},         {"rows", 32, 64, 0, 1, 1, 8, 1},          {"rows", 512, 512, 0, 1, 1, 8, 1},
    {"rows", 64, 64, 0, 1, 1, 64, 1},           {"rows", 16, 16, 0, 1, 1, 16, 1},         {"resnet50", 64, 64, 3, 1, 1, 56, 8},
    {"resnet50", 256, 1024, 1, 1, 1, 14, 8},    {"mobilenet_v2", 96, 96, 3, 2, 96, 112, 8},
    {"first", 3, 32, 3, 2, 1, 224, 1},          {"first", 3, 64, 7, 2, 1, 112, 1},        {"first", 3, 96, 4, 4, 1, 224, 1},
    {"first", 3, 768, 16, 16, 1, 224, 1},       {"first", 1, 6, 5, 1, 1, 28, 1},          {"groups", 64, 64, 3, 1, 8, 56, 1},
    {"groups", 48, 48, 3, 1, 2, 28, 1},         {"groups", 120, 120, 3, 1, 5, 14, 1},     {"groups", 128, 128, 3, 1, 8, 28, 1},
    {"1x1", 32, 32, 1, 1, 1, 56, 1},            {"1x1", 64, 128, 1, 1, 1, 28, 1},         {"1x1", 128, 128, 1, 1, 1, 28, 1},
    {"1x1", 256, 256, 1, 1, 1, 7, 1},           {"1x1", 512, 512, 1, 1, 1, 7, 1},         {"1x1", 96, 24, 1, 1, 1, 28, 1},
    {"1x1", 24, 144, 1, 1, 1, 28, 1},           {"1x1", 16, 16, 1, 1, 1, 112, 1},         {"1x1", 64, 64, 1, 1, 1, 28, 8},
};

constexpr std::array<std::optional<Way>, 4> kAsked{std::nullopt, Way::panels, Way::onednn, Way::aten};

struct Least {
  std::array<double, 3> seconds{-1, -1, -1};  // -1: the way cannot be taken
  Way model = Way::aten;
};

template <typename Run>
Least measure(const Run& run, double work) {
  Least least;
  const int rounds = static_cast<int>(std::clamp(2e10 / work, 25.0, 300.0));
  for (int round = 0; round < rounds + 2; ++round)
    for (const auto& asked : kAsked) {
      Trial trial(asked);
      run();
      const auto& seen = trial.seen.at(0);
      if (!asked) {
        least.model = seen.way;
        continue;
      }
      if (seen.way != *asked || round < 2) continue;
      double& best = least.seconds[static_cast<size_t>(*asked)];
      if (best < 0 || seen.seconds < best) best = seen.seconds;
    }
  return least;
}

void print(const Shape& s, const char* where, const Least& least) {
  double best = 1e9;
  for (double seconds : least.seconds)
    if (seconds > 0) best = std::min(best, seconds);
  std::printf("%-13s b%ld %4ld -> %4ld k%ld s%ld g%-4ld @%-4ld %-10s", s.what, s.batch, s.in, s.out, s.kernel, s.stride, s.groups, s.size, where);
  for (double seconds : least.seconds) seconds < 0 ? std::printf(" %10s", "-") : std::printf(" %10.2f", 1e6 * seconds);
  std::printf("  %-6s regret %5.1f %%\n", name_of(least.model), 100 * (least.seconds[static_cast<size_t>(least.model)] / best - 1));
  std::fflush(stdout);
}

void measure(const Shape& s, const std::string& chain) {
  ContractionSpec spec;
  const bool linear = s.kernel == 0;
  spec.kind = linear ? Contraction::linear : Contraction::conv;
  if (linear) {
    spec.weight = at::randn({s.out, s.in}) / std::sqrt(static_cast<double>(s.in));
  } else {
    spec.weight = at::randn({s.out, s.in / s.groups, s.kernel, s.kernel}) / std::sqrt(static_cast<double>(s.in * s.kernel));
    spec.stride = {s.stride, s.stride};
    spec.padding = {s.kernel / 2, s.kernel / 2};
    spec.dilation = {1, 1};
    spec.output_padding = {0, 0};
    spec.groups = s.groups;
  }
  spec.bias = at::randn({s.out});
  const auto packed = fusible::make_packed(spec);
  const char* const name = linear ? "fusible::linear" : "fusible::conv";
  const at::Tensor x = linear ? at::randn({s.size, s.in}) : at::randn({s.batch, s.in, s.size, s.size});
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  const double work = static_cast<double>(x.numel() / s.in) * static_cast<double>(spec.weight.numel());
  print(s, "operator", measure(
                           [&] {
                             std::vector<c10::IValue> stack{x, packed, chain, std::vector<at::Tensor>{}};
                             op.callBoxed(stack);
                           },
                           work));
  fusible::Region::Builder builder;
  const auto in = builder.input();
  builder.output(builder.call({name, ""}, {Argument::reg(in), Argument::constant(packed), Argument::constant(chain), Argument::regs({})}));
  const auto region = builder.finish();
  const at::Tensor inside = linear ? x : x.contiguous(at::MemoryFormat::ChannelsLast);
  print(s, "in region", measure([&] { region->run({inside}); }, work));
}

}  // namespace

int main(int argc, char** argv) {
  const at::NoGradGuard no_grad;
  at::set_num_threads(argc > 1 ? std::atoi(argv[1]) : 1);
  const std::string chain = argc > 2 ? argv[2] : "silu";
  std::printf("%s, %d threads, %s; microseconds\n%-60s %10s %10s %10s\n", fusible::this_machine().c_str(), at::get_num_threads(), chain.c_str(), "", "panels",
              "onednn", "aten");
  for (const Shape& s : kShapes)
    if (argc < 4 || std::string(argv[3]) == s.what) measure(s, chain);
}
