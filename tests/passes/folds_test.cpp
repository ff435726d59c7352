// Folds and steps by value: each expression on a contraction's result y, for inputs with and without a batch, in both layouts.

#include "passes/verify.h"
#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

// The fused module computes what the original computes, or raises where it raises (stock operators in words of their own); gives the sequence
// of the first contraction.
std::string fused_as(const torch::jit::Module& module, const std::vector<std::vector<c10::IValue>>& calls, const Options& options = {}) {
  const auto fused = fuse(module, options);
  for (const auto& inputs : calls) {
    const auto found = compare(module, fused.module, inputs);
    if (options.target == "aten" && found.why == "another exception type") continue;
    EXPECT_EQ(found.outcome, Comparison::Outcome::equal) << found.why << " for " << inputs[0].toTensor().sizes();
  }
  return fused.report.verdicts.at(0).pattern;
}

std::vector<std::vector<c10::IValue>> calls_with(const at::Tensor& x) {
  return {{x}, {x.contiguous(at::MemoryFormat::ChannelsLast)}, {x[0]}, {x[0].transpose(1, 2)}};
}

const Weights kWeights = [] {
  Weights all = conv_and_norm();
  all.push_back({"s", seeded({6, 1, 1}, 11)});
  all.push_back({"z", seeded({6, 1, 1}, 12).index_fill(0, at::tensor({2}, at::kLong), 0)});
  all.push_back({"t", seeded({4, 3, 3, 3}, 13)});
  return all;
}();

const Weights kBuffers = {{"i", at::tensor({2, 3, 1, 4, 5, 6}, at::kLong).view({6, 1, 1})}, {"d0", at::full({}, 1.7, at::kDouble)},
                          {"d", seeded({6, 1, 1}, 14).to(at::kDouble)}, {"width", seeded({1, 6}, 15)}};

struct Expression {
  const char* text;
  const char* pattern;
};

class FoldOf : public ::testing::TestWithParam<Expression> {};

TEST_P(FoldOf, ComputesTheSameForEveryRankAndLayout) {
  const auto module = script("def forward(self, x):\n    y = torch.conv2d(x, self.w, self.b)\n    return " + std::string(GetParam().text), kWeights, kBuffers);
  EXPECT_EQ(fused_as(module, calls_with(seeded({2, 4, 9, 8}, 9))), GetParam().pattern);
}

INSTANTIATE_TEST_SUITE_P(All, FoldOf, ::testing::Values(
  Expression{"y + self.s", "conv+add"}, Expression{"self.s + y", "conv+add"}, Expression{"y - self.s", "conv+sub"},
  Expression{"self.s - y", "conv+sub"}, Expression{"y * self.s", "conv+mul"}, Expression{"y / (self.s)", "conv+div"},
  Expression{"self.s / torch.sigmoid(y)", "conv+sigmoid+div"}, Expression{"self.s / y", "conv+div"},
  Expression{"torch.add(y, self.s, alpha=2)", "conv+add"}, Expression{"torch.add(y, 3, alpha=2)", "conv+add"},
  Expression{"torch.sub(y, self.s, alpha=2)", "conv+sub"}, Expression{"torch.add(self.s, y, alpha=2)", "conv"},
  Expression{"y * self.z", "conv+mul"}, Expression{"(y + 1) * self.z + self.s", "conv+add+mul+add"},
  Expression{"(y * self.s - 2) * self.s", "conv+mul+sub+mul"}, Expression{"y * self.i", "conv+mul"}, Expression{"y * self.d0", "conv+mul"},
  Expression{"y * self.d", "conv"}, Expression{"torch.sigmoid(y).add_(self.d)", "conv+sigmoid+add"},
  Expression{"y * torch.relu6(y + 3) / 6 + y", "conv"}, Expression{"y * self.width", "conv+mul"},
  Expression{"torch.batch_norm(y, self.g, self.h, self.m, self.v, False, 0.1, 0.5, False) * self.s", "conv+batch_norm+mul"},
  Expression{"torch.batch_norm(y, None, self.h, self.m, self.v, False, 0.1, 0.5, False)", "conv+batch_norm"}));

TEST(Folds, IntoTransposedConvolutionsOfGroups) {
  const auto module = script("def forward(self, x):\n    y = torch.conv_transpose2d(x, self.t, None, [2, 2], [1, 1], [1, 1], 2)\n"
                             "    return torch.batch_norm(y, self.g, self.h, self.m, self.v, False, 0.1, 0.5, False) + self.s", kWeights);
  EXPECT_EQ(fused_as(module, calls_with(seeded({2, 4, 9, 8}, 9))), "conv_transpose+batch_norm+add");
}

TEST(Folds, IntoLinearsLieAlongTheLastDimension) {
  const Weights weights{{"w", seeded({5, 4}, 1)}, {"b", seeded({5}, 2)}, {"g", seeded({5}, 3)}, {"h", seeded({5}, 4)}, {"m", seeded({5}, 5)},
                        {"v", seeded({5}, 6).abs() + 0.3}, {"column", seeded({5, 1}, 7)}, {"row", seeded({1, 5}, 8)}};
  const std::vector<std::vector<c10::IValue>> calls = {{seeded({3, 4}, 9)}, {seeded({5, 5, 4}, 9)}, {seeded({2, 3, 5, 4}, 9)}, {seeded({4}, 9)}, {seeded({5, 4}, 9)}};
  for (const char* expression : {"torch.batch_norm(y, self.g, self.h, self.m, self.v, False, 0.1, 0.5, False)", "y * self.g", "y * self.row", "y + self.column"}) {
    SCOPED_TRACE(expression);
    for (const char* target : {"cpu", "aten"}) {
      Options options;
      options.target = target;
      fused_as(script(std::string("def forward(self, x):\n    y = torch.linear(x, self.w, self.b)\n    return ") + expression, weights), calls, options);
    }
  }
}

TEST(Folds, OfTargetAtenComputeTheSame) {
  Options options;
  options.target = "aten";
  for (const char* body :
       {"torch.batch_norm(torch.conv2d(x, self.w, self.b), self.g, self.h, self.m, self.v, False, 0.1, 0.5, False)",
        "torch.conv2d(x, self.w, self.b, [1, 1], \"same\", [2, 2]) * self.s", "torch.conv2d(x, self.w, self.b, [2, 1], [0, 1], [1, 2]) * 3",
        "torch.batch_norm(torch.conv_transpose2d(x, self.t, None, [2, 2], [1, 1], [1, 1], 2, [1, 2]), self.g, self.h, self.m, self.v, False, 0.1, 0.5, False)",
        "torch.relu(torch.conv2d(x, self.w, self.b) * self.s) * self.s",
        "torch._convolution(x, self.w, self.b, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, False, False, False, False) * 2"}) {
    SCOPED_TRACE(body);
    fused_as(script(std::string("def forward(self, x):\n    return ") + body, kWeights), calls_with(seeded({2, 4, 10, 9}, 9)), options);
  }
}

// batch_norm's scale may be next to nothing, beside a shift that is not: what is left of the bias then is not to be read from the folded one.
TEST(Folds, OfScalesNextToNothingAreUndoneForOtherRanks) {
  for (const double scale : {1e-3, 1e-6, 1e-20, 1e-40, 0.0}) {
    for (const char* bias : {"self.b", "None"}) {
      Weights weights = conv_and_norm();
      for (auto& [name, value] : weights)
        if (name == "g") value = at::tensor({0.8, -1.1, scale, 1.3, 0.6, 0.9}).to(at::kFloat);
      const auto module = script(std::string("def forward(self, x):\n    y = torch.conv2d(x, self.w, ") + bias +
                                 ")\n    return torch.batch_norm(y, self.g, self.h, self.m, self.v, False, 0.1, 0.5, False)", weights);
      for (const char* target : {"cpu", "aten"}) {
        SCOPED_TRACE(std::string(target) + " " + bias + " " + std::to_string(scale));
        Options options;
        options.target = target;
        EXPECT_EQ(fused_as(module, calls_with(seeded({2, 4, 8, 8}, 9)), options), "conv+batch_norm");
        EXPECT_THAT(run(fuse(module, options).module, {seeded({4, 8, 8}, 9)}), ComputesLike(run(module, {seeded({4, 8, 8}, 9)})));
      }
    }
  }
}

// w * 1e38 is an infinity where (w x) * 1e38 is none.
TEST(Folds, OfScalesBeyondAnyModelAreNotMade) {
  const auto module = script("def forward(self, x):\n    return torch.conv2d(x, self.w) * self.huge",
                             {{"w", seeded({6, 4, 3, 3}, 1) * 50}, {"huge", at::full({6, 1, 1}, 1e38)}});
  fused_as(module, {{seeded({2, 4, 9, 8}, 9) * 1e-4}});
}

TEST(Folds, AddmmTakesMatricesAlone) {
  const Weights weights{{"w", seeded({4, 5}, 1)}, {"b", seeded({5}, 2)}};
  const std::string source = "def forward(self, x):\n    return torch.addmm(self.b, x, self.w) * 3";
  const std::vector<std::vector<c10::IValue>> calls = {{seeded({3, 4}, 9)}, {seeded({2, 3, 4}, 9)}, {seeded({4}, 9)}};
  EXPECT_EQ(fused_as(script(source, weights), calls), "linear+mul");
  Options options;
  options.target = "aten";
  EXPECT_EQ(fused_as(script(source, weights), calls, options), "linear+mul");
}

TEST(Folds, AConstantThatAMethodWritesIsReadAtEachCall) {
  for (const char* expression : {"y * self.s", "y + self.s", "torch.prelu(y, self.p)", "y * torch.relu6(y + self.three) / 6"}) {
    SCOPED_TRACE(expression);
    Weights weights = kWeights;
    weights.push_back({"p", seeded({6}, 3)});
    weights.push_back({"three", at::full({}, 3.0)});
    const auto make = [&] {
      return script("def forward(self, x):\n    y = torch.conv2d(x, self.w, self.b)\n    return " + std::string(expression) +
                    "\ndef grow(self):\n    self.s.mul_(3)\n    self.p.mul_(2)\n    self.three.mul_(4)\n    return 0", weights);
    };
    auto original = make(), fused = fuse(make()).module;
    for (int call = 0; call < 2; ++call) {
      EXPECT_THAT(run(fused, {image()}), ComputesLike(run(original, {image()})));
      const at::NoGradGuard no_grad;
      original.get_method("grow")({});
      fused.get_method("grow")({});
    }
  }
}

TEST(Folds, TextOfANumberTellsDoublesFromIntegers) {
  EXPECT_EQ(scalar_text(3.0), "3.0");
  EXPECT_EQ(scalar_text(3), "3");
  EXPECT_EQ(scalar_text(1e-5), "1e-05");
}

}  // namespace
}  // namespace fusible::testing
