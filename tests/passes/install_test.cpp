// install: what a fused module shares with the original (nothing that runs), and what it keeps of it (everything that is read or no parameter).

#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

const char* const kConv = "def forward(self, x):\n    return torch.relu(torch.conv2d(x, self.w, self.b))\n";

TEST(Install, OneSubmoduleUnderTwoNamesStaysOne) {
  auto module = script(kConv, conv_and_norm());
  torch::jit::Module inner("inner");
  inner.register_buffer("n", at::ones({1}));
  module.register_module("p", inner);
  module.register_module("q", inner);
  const auto fused = fuse(module).module;
  EXPECT_EQ(fused.attr("p").toObject(), fused.attr("q").toObject());
  EXPECT_NE(fused.attr("p").toObject(), module.attr("p").toObject());
  EXPECT_TRUE(fused.attr("p").toModule().hasattr("n"));
}

TEST(Install, BuffersThatNothingReadsAnyMoreStay) {
  const auto fused = fuse(script(kConv, conv_and_norm(), {{"unused", at::ones({2})}})).module;
  EXPECT_TRUE(fused.hasattr("unused"));
  EXPECT_FALSE(fused.hasattr("w"));
}

TEST(Install, AParameterThatIsStillReadStaysOneWithoutGradient) {
  auto weights = conv_and_norm();
  weights.push_back({"k", seeded({5}, 7).requires_grad_()});
  const auto module = script("def forward(self, x):\n    return torch.cumsum(torch.conv2d(x, self.w), 3) * self.k", weights);
  const auto fused = fuse(module).module;
  EXPECT_FALSE(fused.attr("k").toTensor().requires_grad());
  EXPECT_TRUE(fused.type()->is_parameter(fused.type()->getAttributeSlot("k")));
  EXPECT_THAT(run(fused, {image()}), ComputesLike(run(module, {image()})));
}

TEST(Install, ListsAndAssignedAttributesAreTheFusedModulesOwn) {
  torch::jit::Module module("model");
  for (const auto& [name, tensor] : conv_and_norm()) module.register_parameter(name, tensor.clone(), false);
  module.register_buffer("n", at::ones({1}));
  module.register_attribute("training", c10::BoolType::get(), false);
  module.register_attribute("seen", c10::ListType::ofInts(), c10::List<std::int64_t>());
  module.define("def forward(self, x):\n    self.seen.append(x.size(0))\n    self.n = self.n + 1\n    return torch.relu(torch.conv2d(x, self.w)) * self.n\n");
  const auto fused = fuse(module).module;
  run(fused, {image()});
  EXPECT_EQ(fused.attr("seen").toListRef().size(), 1u);
  EXPECT_EQ(module.attr("seen").toListRef().size(), 0u);
  EXPECT_EQ(fused.attr("n").toTensor().item<float>(), 2);
  EXPECT_EQ(module.attr("n").toTensor().item<float>(), 1);
}

TEST(Install, DefaultsOfArgumentsAndClassConstantsStay) {
  auto module = script("def forward(self, x, factor: float = 2.0):\n    return torch.relu(torch.conv2d(x, self.w)) * factor", conv_and_norm());
  module.type()->addConstant("limit", 3);
  const auto fused = fuse(module).module;
  EXPECT_THAT(run(fused, {image()}), ComputesLike(run(module, {image()})));
  EXPECT_EQ(fused.type()->getConstant("limit").toInt(), 3);
}

TEST(Install, WeightsThatOnlyARegionReadsAreInTheRegion) {
  const auto fused = fuse(script("def forward(self, x):\n    return torch.conv2d(torch.max_pool2d(torch.conv2d(x, self.a), 2), self.c)",
                                 {{"a", seeded({6, 4, 1, 1}, 1)}, {"c", seeded({5, 6, 1, 1}, 2)}})).module;
  EXPECT_TRUE(fused.hasattr("_fusible_region_0"));
  EXPECT_FALSE(fused.hasattr("_fusible_0"));
}

// A caller may write to a buffer, to begin a sequence anew, say.
TEST(Install, ABufferThatIsAssignedIsCopied) {
  const auto module = script("def forward(self, x):\n    self.n = self.n + 1\n    return torch.relu(torch.conv2d(x, self.w)) * self.n", conv_and_norm(), {{"n", at::ones({1})}});
  const auto fused = fuse(module).module;
  fused.attr("n").toTensor().fill_(7);
  EXPECT_EQ(module.attr("n").toTensor().item<float>(), 1);
}

TEST(Install, APropertyIsReadByItsGetter) {
  auto module = script("def forward(self, x):\n    return torch.relu(torch.conv2d(x, self.w))\ndef channels(self):\n    return self.w.size(0)", conv_and_norm());
  module.type()->addProperty("width", &module.type()->getMethod("channels"), nullptr);
  const auto fused = fuse(module).module;
  ASSERT_TRUE(fused.type()->getProperty("width"));
  EXPECT_EQ(fused.get_method(fused.type()->getProperty("width")->getter->name())({}).toInt(), 6);
}

// A module as a value keeps its own type, so the model is left as it is; its state is still the copy's own.
TEST(Install, AModelThatCannotBeFollowedIsCopiedWhole) {
  auto module = script("def helper(self, x):\n    return torch.relu(torch.conv2d(x, self.w))", conv_and_norm());
  torch::jit::Module inner("inner");
  inner.register_buffer("n", at::ones({1}));
  inner.define("def count(self, y):\n    self.n.add_(1)\n    return torch.relu(y) * self.n\n");
  torch::jit::Module other = inner.deepcopy();
  module.register_module("p", inner);
  module.register_module("q", other);
  module.define("def forward(self, x, flag: bool):\n    m = self.p\n    if flag:\n        m = self.q\n    return m.count(torch.conv2d(x, self.w))\n");
  const auto result = fuse(module);
  EXPECT_THAT(result.report, Says(codes::foreign_region.id));
  auto copied = result.module;
  const auto expected = run(module.deepcopy(), {image(), true});
  EXPECT_THAT(run(copied, {image(), true}), ComputesLike(expected));
  EXPECT_EQ(module.attr("q").toModule().attr("n").toTensor().item<float>(), 1);
  EXPECT_EQ(copied.attr("q").toModule().attr("n").toTensor().item<float>(), 2);
}

TEST(Install, AFusedModuleIsFusedAlready) {
  const auto once = fuse(script(kConv, conv_and_norm())).module;
  const auto twice = fuse(once);
  EXPECT_EQ(twice.report.diagnostics.back().code, "FUS006");
  EXPECT_THAT(twice.report, Fused("conv+relu"));
  EXPECT_EQ(twice.module.attr("_fusible_0"), once.attr("_fusible_0"));
  EXPECT_NE(twice.module._ivalue(), once._ivalue());
}

}  // namespace
}  // namespace fusible::testing
