// The distinct shapes of the race's models (shapes.csv, written by shapes.py) at batch 1: our loop nests and oneDNN's (through ATen), in % of the
// roof, which is what libtorch's brgemm does on one warm tile per thread in the same run. Rounds are interleaved; medians of 7 rounds.
// Behind the shapes, per model: all its work in all its time, and the same over what has a depth of 64 and 6 rows or more.
//
//     kernels_bench bench/shapes.csv 1        # threads

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include "ops/kernels/chain.h"
#include "ops/kernels/packed_weights.h"

namespace {

using fusible::Contraction;
using fusible::ContractionSpec;

// The columns of shapes.csv between kind and times; a linear layer has height 1 and as many columns as x has rows.
struct Shape {
  bool linear;
  std::array<std::int64_t, 13> columns;

  std::int64_t in() const { return columns[0]; }
  std::int64_t out() const { return columns[1]; }
  std::vector<std::int64_t> pair(size_t of) const { return {columns[2 + 2 * of], columns[3 + 2 * of]}; }  // kernel, stride, padding, dilation
  std::int64_t groups() const { return columns[10]; }
  std::int64_t height() const { return columns[11]; }
  std::int64_t width() const { return columns[12]; }
  auto operator<=>(const Shape&) const = default;
};

struct Use {
  std::string model;
  std::int64_t times;
};

std::map<Shape, std::vector<Use>> read(const char* path) {
  std::map<Shape, std::vector<Use>> shapes;
  std::ifstream file(path);
  std::string line, model, kind, cell;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::istringstream cells(line);
    std::getline(cells, model, ',');
    std::getline(cells, kind, ',');
    Shape shape{kind == "linear", {}};
    for (auto& column : shape.columns) std::getline(cells, cell, ','), column = std::stoll(cell);
    std::getline(cells, cell);
    shapes[shape].push_back({model, std::stoll(cell)});
  }
  return shapes;
}

// Products and time of all calls, over the roof's of the same minute.
struct Sum {
  double work = 0, at_roof = 0, ours = 0, aten = 0;
  void add(double times, double products, double roof, double our_seconds, double aten_seconds) {
    work += times * products, at_roof += times * products / roof, ours += times * our_seconds, aten += times * aten_seconds;
  }
};

struct Sums {
  Sum all, deep;
};

double seconds(const std::function<void()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> list) {
  std::sort(list.begin(), list.end());
  return list[list.size() / 2];
}

// Multiply-adds per second of brgemm on one tile that stays in the first-level caches, all threads at once.
double roof() {
  constexpr std::int64_t kM = 48, kN = 64, kK = 64, kTimes = 400;
  const at::Tensor a = at::rand({kM, kK}), b = at::rand({kK, kN});
  const int threads = at::get_num_threads();
  double best = 1e9;
  for (int round = 0; round < 10; ++round)
    best = std::min(best, seconds([&] {
                      at::parallel_for(0, threads, 1, [&](std::int64_t, std::int64_t) {
                        std::vector<float> c(kM * kN);
                        for (std::int64_t i = 0; i < kTimes; ++i)
                          at::native::cpublas::brgemm(kM, kN, kK, kK, kN, kN, false, a.const_data_ptr<float>(), b.const_data_ptr<float>(),
                                                      c.data(), false);
                      });
                    }));
  return threads * kTimes * kM * kN * kK / best;
}

void measure(const Shape& s, const std::vector<Use>& uses, std::map<std::string, Sums>& sums) {
  ContractionSpec spec;
  spec.kind = s.linear ? Contraction::linear : Contraction::conv;
  if (s.linear) {
    spec.weight = at::randn({s.out(), s.in()});
  } else {
    spec.weight = at::randn({s.out(), s.in() / s.groups(), s.pair(0)[0], s.pair(0)[1]});
    spec.stride = s.pair(1), spec.padding = s.pair(2), spec.dilation = s.pair(3), spec.groups = s.groups();
    spec.output_padding = {0, 0};
  }
  spec.bias = at::randn({s.out()});
  if (!fusible::kernels::PackedWeights::takes(spec)) {
    std::printf("%4ld -> %4ld  k%ldx%ld g%-4ld left to ATen\n", s.in(), s.out(), s.pair(0)[0], s.pair(0)[1], s.groups());
    return;
  }
  const fusible::kernels::PackedWeights weights(spec);
  const at::Tensor x = s.linear ? at::randn({s.width(), s.in()}) : at::randn({1, s.in(), s.height(), s.width()}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor w = s.linear ? spec.weight : spec.weight.contiguous(at::MemoryFormat::ChannelsLast);
  const fusible::kernels::Pixels pixels{1, s.height(), s.width(), s.in(), false};
  const auto out = weights.out_pixels(pixels);
  at::Tensor y = at::empty({out.height * out.width, s.out()}), scratch = at::empty({weights.scratch_floats(pixels)});
  fusible::kernels::Step relu{};
  relu.kind = fusible::kernels::StepKind::clamp;
  relu.b = std::numeric_limits<float>::infinity();
  const std::vector<fusible::kernels::Step> chain = {relu};
  const auto ours = [&] {
    weights.run(x.const_data_ptr<float>(), pixels, y.mutable_data_ptr<float>(), s.out(), chain, true, scratch.mutable_data_ptr<float>());
  };
  const auto aten = [&] {
    if (s.linear)
      at::linear(x, w, spec.bias).relu_();
    else
      at::conv2d(x, w, spec.bias, spec.stride, spec.padding, spec.dilation, spec.groups).relu_();
  };
  const double rows = static_cast<double>(out.height * out.width), work = rows * static_cast<double>(spec.weight.numel());
  const int repeats = static_cast<int>(std::clamp(2e8 / work, 2.0, 200.0));
  std::vector<double> a, b, ratio, roofs;
  const auto timed = [&](const std::function<void()>& run) {
    return seconds([&] {
             for (int i = 0; i < repeats; ++i) run();
           }) /
           repeats;
  };
  ours();
  aten();
  for (int round = 0; round < 7; ++round) {
    a.push_back(timed(ours));
    b.push_back(timed(aten));
    ratio.push_back(b.back() / a.back());
    roofs.push_back(roof());
  }
  const double top = median(roofs), time = median(a), aten_time = median(b);
  const bool deep = rows >= 6 && spec.weight.numel() / s.out() >= 64;
  std::printf("%4ld -> %4ld  k%ldx%ld s%ld d%ld g%-4ld @%ldx%-4ld %9.1f us  %5.1f %%   ATen %9.1f us  %5.1f %%   %5.2fx ", s.in(), s.out(), s.pair(0)[0], s.pair(0)[1],
              s.pair(1)[0], s.pair(3)[0], s.groups(), s.height(), s.width(), 1e6 * time, 100 * work / time / top, 1e6 * aten_time, 100 * work / aten_time / top, median(ratio));
  for (const auto& [model, times] : uses) {
    std::printf(" %s%s", model.c_str(), times > 1 ? (" x" + std::to_string(times)).c_str() : "");
    sums[model].all.add(static_cast<double>(times), work, top, time, aten_time);
    if (deep) sums[model].deep.add(static_cast<double>(times), work, top, time, aten_time);
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const auto shapes = argc > 1 ? read(argv[1]) : std::map<Shape, std::vector<Use>>{};
  if (shapes.empty()) return std::fprintf(stderr, "usage: kernels_bench bench/shapes.csv [threads]\n"), 2;
  const c10::InferenceMode inference;
  at::set_num_threads(argc > 2 ? std::atoi(argv[2]) : 1);
  std::printf("%d threads, %s, roof %.1f GFLOP/s, %zu shapes\n", at::get_num_threads(), fusible::kernels::isa().name, 2e-9 * roof(), shapes.size());
  std::map<std::string, Sums> sums;
  for (const auto& [shape, uses] : shapes) measure(shape, uses, sums);
  std::printf("\n| model | all shapes | depth >= 64, rows >= 6 | share of the products | to ATen |\n| --- | --- | --- | --- | --- |\n");
  for (const auto& [model, sum] : sums)
    std::printf("| %s | %.0f %% | %.0f %% | %.0f %% | %.2fx |\n", model.c_str(), 100 * sum.all.at_roof / sum.all.ours,
                100 * sum.deep.at_roof / std::max(sum.deep.ours, 1e-12), 100 * sum.deep.work / sum.all.work, sum.all.aten / sum.all.ours);
}
