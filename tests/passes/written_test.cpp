// Constants that something writes are none, whichever way the write takes: parts, lists of parts, views, other methods.

#include "passes/verify.h"
#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

const Weights kWeights{{"w", seeded({6, 4, 3, 3}, 1)}, {"l", seeded({5, 7}, 2)}};

TEST(Written, PartsOfAConstantAreConstants) {
  const auto module = script("def forward(self, x):\n    a, b = torch.chunk(self.w, 2)\n    return torch.relu(torch.conv2d(x, a)) + torch.conv2d(x, b)", kWeights);
  const auto fused = fuse(module);
  EXPECT_THAT(fused.report, Fused("conv+relu"));
  EXPECT_THAT(run(fused.module, {image()}), ComputesLike(run(module, {image()})));
}

// What fuse makes computes the same in both calls, between which `grow` runs where there is one.
void expect_the_same(const std::string& source) {
  const auto make = [&] { return script(source, kWeights); };
  auto original = make();
  const auto fused = fuse(make());
  auto module = fused.module;
  const auto z = seeded({3, 4, 3, 3}, 3);
  const at::NoGradGuard no_grad;
  for (int call = 0; call < 2; ++call) {
    EXPECT_THAT(run(module, {image(), z}), ComputesLike(run(original, {image(), z}))) << source << fused.report.to_string();
    if (!original.find_method("grow")) continue;
    original.get_method("grow")({});
    module.get_method("grow")({});
  }
}

TEST(Written, APartIsWrittenInAListOfParts) {
  expect_the_same("def forward(self, x, z):\n    parts = torch.chunk(self.w, 2)\n    parts[0] = z\n    a, b = parts\n    return torch.relu(torch.conv2d(x, a))");
}

TEST(Written, PartsAreWrittenWithTheWhole) {
  expect_the_same("def forward(self, x, z):\n    self.w.mul_(1.5)\n    a, b = torch.chunk(self.w, 2)\n    return torch.relu(torch.conv2d(x, a))");
  expect_the_same("def forward(self, x, z):\n    a, b = torch.chunk(self.w, 2)\n    b.mul_(1.5)\n    return torch.relu(torch.conv2d(x, self.w))");
}

TEST(Written, AViewIsWrittenByAnotherMethod) {
  const std::string grow = "\ndef grow(self):\n    self.w.mul_(2)\n    self.l.mul_(2)\n    return 0";
  for (const char* result : {"torch.conv2d(x, self.w.transpose(2, 3))", "torch.conv2d(x, self.w.detach().contiguous())",
                             "torch.linear(torch.conv2d(x, self.w).flatten(2)[:, :, :7], self.l)", "torch.matmul(x, self.l.t())"})
    expect_the_same("def forward(self, x, z):\n    return torch.relu(" + std::string(result) + ")" + grow);
}

}  // namespace
}  // namespace fusible::testing
