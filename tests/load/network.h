#pragma once

// What the programs of this folder run: a residual network with a gate and a head, for images of any size, and a recurrent one.

#include <vector>

#include "tests/script.h"

namespace fusible::testing {

inline torch::jit::Module network() {
  at::manual_seed(7);
  const auto weight = [](at::IntArrayRef sizes) { return at::randn(sizes) * 0.1; };
  const Weights weights{{"w0", weight({24, 3, 3, 3})}, {"w1", weight({24, 24, 3, 3})}, {"w2", weight({24, 1, 3, 3})},
                        {"w3", weight({24, 24, 1, 1})}, {"head", weight({10, 24})},    {"g0", at::rand({24}) + 0.5},
                        {"b0", at::randn({24})},        {"g1", at::rand({24}) + 0.5},  {"b1", at::randn({24})}};
  const Weights statistics{{"m0", at::randn({24})}, {"v0", at::rand({24}) + 0.3}, {"m1", at::randn({24})}, {"v1", at::rand({24}) + 0.3}};
  return script(R"(
def forward(self, x):
    y = torch.conv2d(x, self.w0, None, [2, 2], [1, 1])
    y = torch.relu(torch.batch_norm(y, self.g0, self.b0, self.m0, self.v0, False, 0.1, 1e-5, False))
    z = torch.conv2d(y, self.w1, None, [1, 1], [1, 1])
    y = torch.relu(torch.batch_norm(z, self.g1, self.b1, self.m1, self.v1, False, 0.1, 1e-5, False) + y)
    z = torch.hardswish(torch.conv2d(y, self.w2, None, [1, 1], [1, 1], [1, 1], 24))
    y = torch.sigmoid(torch.conv2d(torch.adaptive_avg_pool2d(z, [1, 1]), self.w3)) * z
    return torch.linear(torch.flatten(torch.adaptive_avg_pool2d(y, [1, 1]), 1), self.head), y
)", weights, statistics);
}

// Two recurrent layers, large enough that threads meet while the first call packs their weights.
inline torch::jit::Module recurrent_network() {
  Weights weights;
  for (const std::string layer : {"0", "1"}) {
    weights.emplace_back("x" + layer, seeded({768, 256}, 1) * 0.1);
    weights.emplace_back("h" + layer, seeded({768, 256}, 2) * 0.1);
  }
  return script(R"(
def forward(self, x):
    h = torch.zeros([2, x.size(1), 256])
    return torch.gru(x, h, [self.x0, self.h0, self.x1, self.h1], False, 2, 0.0, False, False, False)
)", weights);
}

inline std::vector<at::Tensor> call(torch::jit::Module& module, const at::Tensor& x) {
  const auto result = module.forward({x}).toTuple();
  return {result->elements()[0].toTensor(), result->elements()[1].toTensor()};
}

struct Expected {
  at::Tensor x;
  std::vector<at::Tensor> y;
};

// More shapes than a region keeps plans for.
inline std::vector<Expected> single_threaded(torch::jit::Module& module) {
  std::vector<Expected> all;
  for (std::int64_t n : {1, 2, 3})
    for (std::int64_t size : {17, 24, 32, 40, 57, 64, 80, 96}) {
      const at::Tensor x = at::randn({n, 3, size, size + n});
      all.push_back({x, call(module, x)});
    }
  return all;
}

}  // namespace fusible::testing
