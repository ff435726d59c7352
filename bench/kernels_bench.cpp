// The distinct shapes of resnet50, vgg16, mobilenet_v2 and of an encoder of width 768: our loop nests and oneDNN's (through ATen), in % of
// the roof, which is what libtorch's brgemm does on one warm tile per thread in the same run. Rounds are interleaved; medians of 7 rounds.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include "ops/kernels/chain.h"
#include "ops/kernels/packed_weights.h"

namespace {

using fusible::Contraction;
using fusible::ContractionSpec;

struct Shape {
  const char* model;
  std::int64_t in, out, kernel, stride, groups, size;  // size: height and width; linear: rows, kernel 0
  int times;
};

const Shape kShapes[] = {
    {"resnet50", 3, 64, 7, 2, 1, 224, 1},         {"resnet50", 64, 64, 1, 1, 1, 56, 1},      {"resnet50", 64, 64, 3, 1, 1, 56, 3},
    {"resnet50", 64, 256, 1, 1, 1, 56, 4},        {"resnet50", 256, 64, 1, 1, 1, 56, 2},     {"resnet50", 256, 128, 1, 1, 1, 56, 1},
    {"resnet50", 128, 128, 3, 2, 1, 56, 1},       {"resnet50", 128, 512, 1, 1, 1, 28, 4},    {"resnet50", 256, 512, 1, 2, 1, 56, 1},
    {"resnet50", 512, 128, 1, 1, 1, 28, 3},       {"resnet50", 128, 128, 3, 1, 1, 28, 3},    {"resnet50", 512, 256, 1, 1, 1, 28, 1},
    {"resnet50", 256, 256, 3, 2, 1, 28, 1},       {"resnet50", 256, 1024, 1, 1, 1, 14, 6},   {"resnet50", 512, 1024, 1, 2, 1, 28, 1},
    {"resnet50", 1024, 256, 1, 1, 1, 14, 5},      {"resnet50", 256, 256, 3, 1, 1, 14, 5},    {"resnet50", 1024, 512, 1, 1, 1, 14, 1},
    {"resnet50", 512, 512, 3, 2, 1, 14, 1},       {"resnet50", 512, 2048, 1, 1, 1, 7, 3},    {"resnet50", 1024, 2048, 1, 2, 1, 14, 1},
    {"resnet50", 2048, 512, 1, 1, 1, 7, 2},       {"resnet50", 512, 512, 3, 1, 1, 7, 2},     {"vgg16", 3, 64, 3, 1, 1, 224, 1},
    {"vgg16", 64, 64, 3, 1, 1, 224, 1},           {"vgg16", 64, 128, 3, 1, 1, 112, 1},       {"vgg16", 128, 128, 3, 1, 1, 112, 1},
    {"vgg16", 128, 256, 3, 1, 1, 56, 1},          {"vgg16", 256, 256, 3, 1, 1, 56, 2},       {"vgg16", 256, 512, 3, 1, 1, 28, 1},
    {"vgg16", 512, 512, 3, 1, 1, 28, 2},          {"vgg16", 512, 512, 3, 1, 1, 14, 3},       {"mobilenet_v2", 32, 32, 3, 1, 32, 112, 1},
    {"mobilenet_v2", 32, 16, 1, 1, 1, 112, 1},    {"mobilenet_v2", 16, 96, 1, 1, 1, 112, 1}, {"mobilenet_v2", 96, 96, 3, 2, 96, 112, 1},
    {"mobilenet_v2", 144, 144, 3, 1, 144, 56, 1}, {"mobilenet_v2", 144, 24, 1, 1, 1, 56, 1}, {"mobilenet_v2", 192, 32, 1, 1, 1, 28, 2},
    {"mobilenet_v2", 384, 384, 3, 1, 384, 14, 4}, {"mobilenet_v2", 384, 64, 1, 1, 1, 14, 3}, {"mobilenet_v2", 960, 160, 1, 1, 1, 7, 2},
    {"encoder", 768, 768, 0, 1, 1, 128, 4},       {"encoder", 768, 3072, 0, 1, 1, 128, 1},   {"encoder", 3072, 768, 0, 1, 1, 128, 1},
    {"vit_b_16", 768, 768, 0, 1, 1, 197, 1},      {"vit_b_16", 768, 3072, 0, 1, 1, 197, 1},    {"vit_b_16", 3072, 768, 0, 1, 1, 197, 1},
    {"mlp", 1024, 1024, 0, 1, 1, 1, 8},
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

void measure(const Shape& s) {
  ContractionSpec spec;
  const bool linear = s.kernel == 0;
  spec.kind = linear ? Contraction::linear : Contraction::conv;
  if (linear) {
    spec.weight = at::randn({s.out, s.in});
  } else {
    spec.weight = at::randn({s.out, s.in / s.groups, s.kernel, s.kernel});
    spec.stride = {s.stride, s.stride};
    spec.padding = {s.kernel / 2, s.kernel / 2};
    spec.dilation = {1, 1};
    spec.groups = s.groups;
  }
  spec.bias = at::randn({s.out});
  const fusible::kernels::PackedWeights weights(spec);
  const at::Tensor x = linear ? at::randn({s.size, s.in}) : at::randn({1, s.in, s.size, s.size}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor w = linear ? spec.weight : spec.weight.contiguous(at::MemoryFormat::ChannelsLast);
  fusible::kernels::Pixels pixels{1, s.size, s.size, s.in, false};
  if (linear) pixels = {1, 1, s.size, s.in, false};
  const auto out = weights.out_pixels(pixels);
  at::Tensor y = at::empty({out.height * out.width, s.out}), scratch = at::empty({weights.scratch_floats(pixels)});
  fusible::kernels::Step relu{};
  relu.kind = fusible::kernels::StepKind::clamp;
  relu.b = std::numeric_limits<float>::infinity();
  const std::vector<fusible::kernels::Step> chain = {relu};
  const auto ours = [&] {
    weights.run(x.const_data_ptr<float>(), pixels, y.mutable_data_ptr<float>(), s.out, chain, true, scratch.mutable_data_ptr<float>());
  };
  const auto aten = [&] {
    if (linear)
      at::linear(x, w, spec.bias).relu_();
    else
      at::conv2d(x, w, spec.bias, spec.stride, spec.padding, spec.dilation, spec.groups).relu_();
  };
  const double work = static_cast<double>(out.height * out.width) * static_cast<double>(spec.weight.numel());
  const int repeats = static_cast<int>(std::clamp(4e8 / work, 2.0, 200.0));
  std::vector<double> a, b, ratio, roofs;
  ours();
  aten();
  for (int round = 0; round < 7; ++round) {
    a.push_back(seconds([&] {
                  for (int i = 0; i < repeats; ++i) ours();
                }) /
                repeats);
    b.push_back(seconds([&] {
                  for (int i = 0; i < repeats; ++i) aten();
                }) /
                repeats);
    ratio.push_back(b.back() / a.back());
    roofs.push_back(roof());
  }
  const double top = median(roofs);
  std::printf("%-13s %4ld -> %4ld  k%ld s%ld g%-4ld @%-4ld x%d  %9.1f us  %5.1f %%   ATen %9.1f us  %5.1f %%   %5.2fx\n", s.model, s.in,
              s.out, s.kernel, s.stride, s.groups, s.size, s.times, 1e6 * median(a), 100 * work / median(a) / top, 1e6 * median(b),
              100 * work / median(b) / top, median(ratio));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const c10::InferenceMode inference;
  at::set_num_threads(argc > 1 ? std::atoi(argv[1]) : 1);
  std::printf("%d threads, %s, roof %.1f GFLOP/s\n", at::get_num_threads(), fusible::kernels::isa().name, 2e-9 * roof());
  for (const Shape& s : kShapes) measure(s);
}
