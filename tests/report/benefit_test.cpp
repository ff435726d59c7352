// What a missed fusion costs, from shapes: 2 x the bytes of the value that is written and read again, and 2 x the elements of a batch_norm.

#include "fusible/fusible.h"
#include "tests/graph_matchers.h"
#include "tests/script.h"

namespace fusible {
namespace {

using testing::script;
using testing::seeded;

const testing::Weights kConv{{"w", seeded({6, 4, 3, 3}, 2)}, {"b", seeded({6}, 3)}, {"gamma", seeded({6}, 4)}, {"beta", seeded({6}, 5)},
                             {"mean", seeded({6}, 6)}, {"var", seeded({6}, 7).abs() + 0.5}};
// The convolution's result: float32 [2, 6, 7, 7].
constexpr std::int64_t kElements = 2 * 6 * 7 * 7, kBytes = 4 * kElements;

Report linted(const std::string& body, std::optional<std::vector<c10::IValue>> inputs, const std::string& arguments = "self, x") {
  Options options;
  options.example_inputs = std::move(inputs);
  return lint(script("def forward(" + arguments + "):\n" + body, kConv), options);
}

Report linted(const std::string& body) { return linted(body, std::vector<c10::IValue>{at::empty({2, 4, 7, 7})}); }

const Diagnostic& finding(const Report& report, const std::string& code) {
  static const Diagnostic none{};
  for (const auto& diagnostic : report.diagnostics) {
    if (diagnostic.code == code) return diagnostic;
  }
  ADD_FAILURE() << code << " was not found\n" << report.to_string();
  return none;
}

const std::string kConvolution = "    y = torch.conv2d(x, self.w, self.b, [1, 1], [1, 1])\n";
const std::string kSecondUse = kConvolution + "    return torch.relu(y) + torch.exp(y)\n";

TEST(Benefit, OfASecondUseIsTheValueNotWrittenAndReadAgain) {
  const auto report = linted(kSecondUse);
  const auto& benefit = finding(report, "FUS201").benefit;
  EXPECT_EQ(benefit.bytes, 2 * kBytes);
  EXPECT_EQ(benefit.flops, 0);
  EXPECT_EQ(benefit.ns, -1);
  EXPECT_EQ(benefit.basis, "shapes of the example inputs");
}

TEST(Benefit, OfABatchNormHoldsItsArithmetic) {
  const auto report = linted(kConvolution + "    return torch.batch_norm(y, self.gamma, self.beta, self.mean, self.var, True, 0.1, 1e-5, True)\n");
  const auto& benefit = finding(report, "FUS301").benefit;
  EXPECT_EQ(benefit.bytes, 2 * kBytes);
  EXPECT_EQ(benefit.flops, 2 * kElements);
}

TEST(Benefit, IsUnknownWithoutShapes) {
  const auto report = linted(kSecondUse, std::nullopt);
  const auto& benefit = finding(report, "FUS201").benefit;
  EXPECT_EQ(benefit.bytes, -1);
  EXPECT_EQ(benefit.flops, -1);
  EXPECT_EQ(benefit.basis, "");
}

TEST(Benefit, OfSeveralPlacesWithOneCauseIsTheirSum) {
  // Called twice from one line: one cause, two places, of 7x7 and 5x5 elements per channel.
  torch::jit::Module module = script("def block(self, x):\n" + kSecondUse +
                                     "def forward(self, x):\n    return self.block(x).sum() + self.block(x[:, :, 2:, 2:]).sum()\n", kConv);
  Options options;
  options.example_inputs = {at::empty({2, 4, 7, 7})};
  const auto report = lint(module, options);
  const auto& diagnostic = finding(report, "FUS201");
  EXPECT_EQ(diagnostic.sites.size(), 2);
  EXPECT_EQ(diagnostic.benefit.bytes, 2 * 4 * 2 * 6 * (49 + 25));
}

TEST(Benefit, FollowsShapesThroughBranchesLoopsListsAndFactories) {
  const auto report = linted(R"(
    if x.size(0) == 2:
        z = torch.cat([x, torch.zeros([x.size(0), 4, 7, 7])], 0)
    else:
        z = x
    for i in range(3):
        z = z + float(i)
    a, b = torch.chunk(z, 2, 0)
    y = torch.conv2d(a + b, self.w, self.b, [1, 1], [1, 1])
    return torch.relu(y) + torch.exp(y)
)", std::vector<c10::IValue>{at::empty({2, 4, 7, 7})});
  EXPECT_EQ(finding(report, "FUS201").benefit.bytes, 2 * kBytes);
}

TEST(Benefit, OfALoopIsCountedPerCall) {
  const auto report = linted("    s = torch.zeros([1])\n    for i in range(3):\n        y = torch.conv2d(x, self.w, self.b, [1, 1], [1, 1])\n"
                             "        s = s + (torch.relu(y) + torch.exp(y)).sum()\n    return s\n");
  EXPECT_EQ(finding(report, "FUS201").benefit.bytes, 3 * 2 * kBytes);
}

TEST(Benefit, BehindNumbersThatAreNotComputedIsUnknown) {
  const auto report = linted("    n = int(x.sum().item())\n    y = torch.conv2d(x[:n], self.w, self.b, [1, 1], [1, 1])\n"
                             "    return torch.relu(y) + torch.exp(y)\n");
  EXPECT_EQ(finding(report, "FUS201").benefit.bytes, -1);
}

TEST(Benefit, RunsNothingThatWritesToTheModule) {
  auto module = script("def forward(self, x):\n    self.calls.add_(1.0)\n    self.last = x\n" + kSecondUse, kConv,
                       {{"calls", at::zeros({3})}, {"last", at::zeros({1})}});
  Options options;
  options.example_inputs = {at::ones({2, 4, 7, 7})};
  const auto report = lint(module, options);
  EXPECT_EQ(finding(report, "FUS201").benefit.bytes, 2 * kBytes);
  EXPECT_TRUE(module.attr("calls").toTensor().equal(at::zeros({3})));
  EXPECT_TRUE(module.attr("last").toTensor().equal(at::zeros({1})));
}

TEST(Benefit, OfAContractionThatIsNotFusedIsWhatFollowsIt) {
  const std::string product = "    y = torch.matmul(x, x.transpose(1, 2))\n";
  const auto lone = linted(product + "    return torch.exp(y)\n", std::vector<c10::IValue>{at::empty({3, 5, 8})});
  EXPECT_EQ(finding(lone, "FUS107").benefit.bytes, -1);
  const auto followed = linted(product + "    return torch.relu(y)\n", std::vector<c10::IValue>{at::empty({3, 5, 8})});
  EXPECT_EQ(finding(followed, "FUS303").benefit.bytes, 2 * 4 * 3 * 5 * 5);
}

TEST(Benefit, RanksFindingsOfOneSeverity) {
  const auto report = linted(R"(
    small = torch.conv2d(x[:, :, 4:, 4:], self.w, self.b)
    y = torch.relu(small).sum() + torch.exp(small).sum()
    z = torch.conv2d(x, self.w, self.b, [1, 1], [1, 1])
    return torch.sigmoid(z) + torch.exp(z) + y
)", std::vector<c10::IValue>{at::empty({2, 4, 7, 7})});
  ASSERT_GE(report.diagnostics.size(), 2);
  EXPECT_EQ(report.diagnostics[0].benefit.bytes, 2 * kBytes);
  EXPECT_EQ(report.diagnostics[1].benefit.bytes, 2 * 4 * 2 * 6);
}

}  // namespace
}  // namespace fusible
