// Free-form rules and pairs of TorchScript graphs, from text to the fused module.

#include "fusible/fusible.h"
#include "fusible/pattern.h"
#include "tests/graph_matchers.h"
#include "tests/script.h"
#include "tests/tensor_matchers.h"

namespace fusible::testing {
namespace {

using torch::jit::Module;

fusible::Fused fuse_with(const Module& module, const std::string& text, Options options = {}) {
  options.patterns = {text};
  return fuse(module, options);
}

const auto kImage = seeded({2, 4, 7, 7}, 1);
const Weights kConv{{"w", seeded({6, 4, 3, 3}, 2)}, {"b", seeded({6}, 3)}, {"s", seeded({6, 1, 1}, 4)}, {"r", seeded({5, 5}, 5)}};


const char* const kScaleRule = R"(
rule conv_erf_scale
  match c = conv(x, w, b, groups=1); y = aten::mul(c, s) commutative
  need  constant(w, b, s) else FUS303
  need  rank(s, 3)
  emit  w2, b2 = fold_affine(w, b, s, none)
  emit  y2 = aten::conv2d(x, w2, b2, c.stride, c.padding, c.dilation, 1)
)";

TEST(Rules, WithConditionsAndABuilderAreAppliedAndNamed) {
  for (const char* product : {"y * self.s", "self.s * y"}) {
    const auto module = script(std::string("def forward(self, x):\n    y = torch.conv2d(x, self.w, self.b, [1, 1], [1, 1])\n    return torch.erf(") +
                               product + ")\n", kConv);
    const auto fused = fuse_with(module, kScaleRule);
    EXPECT_THAT(fused.report, Fused("conv_erf_scale"));
    EXPECT_THAT(graph_of(fused.module), HasNo("aten::mul"));
    EXPECT_THAT(run(fused.module, {kImage}), ComputesLike(run(module, {kImage})));
  }
}

TEST(Rules, ThatMatchTwiceAreAppliedTwice) {
  const auto module = script(R"(
def forward(self, x):
    y = torch.conv2d(x, self.w, self.b, [1, 1], [1, 1]) * self.s
    z = torch.conv2d(x, self.w, self.b, [1, 1], [1, 1], [1, 1]) * self.s
    return torch.erf(y) + torch.conv2d(torch.relu(z), self.v, None, [1, 1], [1, 1]) * self.s
)", {kConv[0], kConv[1], kConv[2], {"v", seeded({6, 6, 3, 3}, 5)}});
  const std::string without_bias = std::string(kScaleRule) +
      "rule conv_scale_no_bias\n"
      "  match c = conv(x, w, none, groups=1); y = aten::mul(c, s)\n"
      "  need  constant(w, s)\n"
      "  emit  w2, b2 = fold_affine(w, none, s, none)\n"
      "  emit  y2 = aten::conv2d(x, w2, b2, c.stride, c.padding, c.dilation, 1)\n";
  const auto fused = fuse_with(module, without_bias);
  EXPECT_THAT(graph_of(fused.module), HasNo("aten::mul"));
  EXPECT_EQ(fused.report.counts().fused, 3);
  EXPECT_THAT(run(fused.module, {kImage}), ComputesLike(run(module, {kImage})));
}

// The rule's operand is the result of a built-in sequence, and the built-in sequence's operand the rule's result.
TEST(Rules, NextToBuiltInSequencesReadTheirResults) {
  const auto module = script(R"(
def forward(self, x):
    y = torch.relu(torch.conv2d(x, self.w, self.b))
    z = torch.sinh(torch.neg(y))
    return torch.linear(z, self.m) + y
)", {kConv[0], kConv[1], {"m", seeded({5, 5}, 6)}});
  const auto fused = fuse_with(module, R"(
rule sinh_of_negative
  match n = aten::neg(x); y = aten::sinh(n)
  emit  e = aten::sinh(x)
  emit  m = aten::neg(e)
)");
  EXPECT_THAT(fused.report, Fused("conv+relu"));
  const auto text = text_of(*graph_of(fused.module));
  EXPECT_LT(text.find("aten::sinh"), text.find("aten::neg")) << text;
  EXPECT_THAT(run(fused.module, {kImage}), ComputesLike(run(module, {kImage})));
}

TEST(Rules, OfTorchScriptPairsAreApplied) {
  const auto module = script("def forward(self, x, y):\n    return torch.tanh(torch.matmul(x, y) * 2)\n");
  const auto fused = fuse_with(module, R"(
pattern double_before
graph(%a, %b):
  %two : int = prim::Constant[value=2]()
  %p = aten::matmul(%a, %b)
  %r = aten::mul(%p, %two)
  return (%r)
=>
graph(%a, %b):
  %two : int = prim::Constant[value=2]()
  %d = aten::mul(%a, %two)
  %r = aten::matmul(%d, %b)
  return (%r)
)");
  EXPECT_THAT(fused.report, Fused("double_before"));
  const auto text = text_of(*graph_of(fused.module));
  EXPECT_LT(text.find("aten::mul"), text.find("aten::matmul")) << text;
  const auto a = seeded({3, 4}, 7), b = seeded({4, 5}, 8);
  EXPECT_THAT(run(fused.module, {a, b}), ComputesLike(run(module, {a, b})));
}

TEST(Rules, WithSeveralResultsBindEach) {
  const auto module = script(R"(
def forward(self, x):
    values, indices = torch.max(x, 1)
    return torch.add(values, indices)
)");
  const auto fused = fuse_with(module, R"(
rule max_and_place
  match v, i = aten::max.dim(x, d, k); y = aten::add(v, i, 1)
  emit  v2, i2 = aten::max(x, d, k)
  emit  y2 = aten::add(i2, v2, 1)
)");
  const auto x = seeded({3, 9}, 9);
  EXPECT_THAT(run(fused.module, {x}), ComputesLike(run(module, {x})));
  const auto* sum = graph_of(fused.module)->outputs()[0]->node();
  EXPECT_EQ(sum->input(0), sum->input(1)->node()->outputs()[1]) << *graph_of(fused.module);
}

// x is overwritten in place, but x is the sequence's own: nobody else sees it.
TEST(Rules, MayHoldAnInPlaceOperatorOnTheirOwnResult) {
  const char* const rule = R"(
rule erf_exp
  match e = aten::erf(x); y = aten::exp_(e)
  emit  a = aten::erf(x)
  emit  y2 = aten::exp(a)
)";
  const auto own = script("def forward(self, x):\n    return torch.exp_(torch.erf(x))\n");
  EXPECT_THAT(graph_of(fuse_with(own, rule).module), Has("aten::exp"));
  const auto x = seeded({3, 4}, 10);
  EXPECT_THAT(run(fuse_with(own, rule).module, {x}), ComputesLike(run(own, {x})));
  const auto seen = script("def forward(self, x):\n    e = torch.erf(x)\n    y = torch.exp_(e)\n    return y + e\n");
  EXPECT_THAT(graph_of(fuse_with(seen, rule).module), Has("aten::exp_"));
  // What reads the overwritten value must not be another part of the sequence, whose author may think of the value before.
  const auto inside = script("def forward(self, x):\n    e = torch.erf(x)\n    y = torch.exp_(e)\n    return torch.sinh(torch.mul(e, y))\n");
  const char* const reads_it = "rule reads_it\n  match e = aten::erf(x); y = aten::exp_(e); m = aten::mul.Tensor(e, y); s = aten::sinh(m)\n"
                               "  emit  a = aten::erf(x)\n  emit  b = aten::exp(a)\n  emit  c = aten::mul(a, b)\n  emit  d = aten::sinh(c)\n";
  EXPECT_THAT(fuse_with(inside, reads_it).report, Says("FUS203", "reads_it"));
  EXPECT_THAT(run(fuse_with(inside, reads_it).module, {x}), ComputesLike(run(inside, {x})));
}

TEST(Rules, WithAnInPlaceOperatorOnAViewOfAnInputDecline) {
  const auto module = script("def forward(self, x):\n    return torch.exp_(x.t()) + x\n");
  const auto fused = fuse_with(module, R"(
rule exp_of_transpose
  match t = aten::t(x); y = aten::exp_(t)
  emit  a = aten::exp(x)
  emit  y2 = aten::t(a)
)");
  EXPECT_THAT(fused.report, Says("FUS203", "exp_of_transpose"));
  const auto x = seeded({3, 3}, 10);
  EXPECT_THAT(run(fused.module, {x.clone()}), ComputesLike(run(module, {x.clone()})));
}

struct Declining {
  const char* name;
  const char* body;
  const char* code;
};

class RulesDecline : public ::testing::TestWithParam<Declining> {};

// One more erf keeps the built-in vocabulary away, so that the finding is the rule's.
TEST_P(RulesDecline, WithTheirNameAndTheCode) {
  const auto module = script(GetParam().body, kConv, {{"state", seeded({6, 5, 5}, 12)}});
  const auto fused = fuse_with(module, R"(
rule erf_scale
  match e = aten::erf(x); c = aten::exp(e); y = aten::mul.Tensor(c, s)
  need  constant(s)
  need  rank(s, 3) else FUS404
  emit  e2 = aten::erf(x)
  emit  c2 = aten::exp(e2)
  emit  y2 = aten::mul(s, c2)
)");
  EXPECT_THAT(fused.report, Says(GetParam().code, "erf_scale"));
  const auto x = seeded({6, 5, 5}, 11);
  EXPECT_THAT(run(fused.module, {x.clone(), true}), ComputesLike(run(module, {x.clone(), true})));
}

INSTANTIATE_TEST_SUITE_P(All, RulesDecline, ::testing::Values(
    Declining{"SecondUse", "def forward(self, x, f: bool):\n    y = torch.exp(torch.erf(x))\n    return y * self.s + y\n", "FUS201"},
    Declining{"MutationBetween", "def forward(self, x, f: bool):\n    y = torch.exp(torch.erf(x))\n    x.add_(1)\n    return y * self.s + x\n", "FUS203"},
    Declining{"BlockBoundary", "def forward(self, x, f: bool):\n    y = torch.erf(x)\n    if f:\n        x = torch.exp(y) * self.s\n    return x\n", "FUS103"},
    Declining{"NeedOfAConstant", "def forward(self, x, f: bool):\n    return torch.exp(torch.erf(x)) * torch.neg(x)\n", "FUS303"},
    Declining{"WrittenConstant", "def forward(self, x, f: bool):\n    self.state.add_(1)\n    return torch.exp(torch.erf(x)) * self.state\n", "FUS303"},
    Declining{"NeedOfARank", "def forward(self, x, f: bool):\n    return torch.exp(torch.erf(x)) * self.r\n", "FUS404"}),
    [](const auto& info) { return info.param.name; });

TEST(Rules, WhoseBuilderThrowsDecline) {
  register_builder("always_throws", [](const auto&) -> std::vector<c10::IValue> { throw std::runtime_error("no weights today"); });
  const auto module = script("def forward(self, x):\n    return torch.erf(x) * self.s\n", kConv);
  const auto fused = fuse_with(module, R"(
rule built_in_vain
  match c = aten::erf(x); y = aten::mul.Tensor(c, s)
  emit  t = always_throws(s)
  emit  y2 = aten::mul(c, t)
)");
  EXPECT_THAT(fused.report, Says("FUS802", "built_in_vain"));
  EXPECT_THAT(fused.report.to_string(), ::testing::HasSubstr("no weights today"));
  EXPECT_THAT(run(fused.module, {kImage.narrow(1, 0, 1)}), ComputesLike(run(module, {kImage.narrow(1, 0, 1)})));
}

TEST(Rules, WhoseEmitDoesNotTypeCheckDecline) {
  const auto module = script("def forward(self, x):\n    return torch.erf(torch.neg(x))\n");
  const auto fused = fuse_with(module, R"(
rule badly_typed
  match n = aten::neg(x); y = aten::erf(n)
  emit  y2 = aten::conv2d(x, "weight", none, 1, 0, 1, 1)
)");
  EXPECT_THAT(fused.report, Says("FUS802", "badly_typed"));
  EXPECT_THAT(run(fused.module, {kImage}), ComputesLike(run(module, {kImage})));
  const auto sizes = fuse_with(module, "rule sizes\n  match n = aten::neg(x); y = aten::erf(n)\n  emit  y2 = aten::size(x)\n");
  EXPECT_THAT(sizes.report, Says("FUS802", "sizes"));
  EXPECT_THAT(run(sizes.module, {kImage}), ComputesLike(run(module, {kImage})));
}

const char* const kWrongRule = R"(
pattern wrong
graph(%a, %b):
  %r = aten::matmul(%a, %b)
  return (%r)
=>
graph(%a, %b):
  %r = aten::matmul(%b, %a)
  return (%r)
)";

TEST(Rules, ThatAreWrongAreFoundGuiltyByVerify) {
  const auto module = script(R"(
def forward(self, x):
    y = torch.relu(torch.linear(x, self.w, self.b))
    z = torch.matmul(torch.matmul(y, x), x)
    return torch.relu(torch.linear(z, self.w, self.b))
)", {{"w", seeded({4, 4}, 20)}, {"b", seeded({4}, 21)}});
  Options options;
  options.example_inputs = {{seeded({4, 4}, 22)}};
  const auto fused = fuse_with(module, kWrongRule, options);
  EXPECT_THAT(fused.report, Says("FUS005", "wrong"));
  EXPECT_EQ(fused.report.counts().fused, 2) << fused.report.to_string();
  EXPECT_THAT(run(fused.module, *options.example_inputs), ComputesLike(run(module, *options.example_inputs)));
  options.verify = false;
  EXPECT_THAT(fuse_with(module, kWrongRule, options).report, Fused("wrong"));
}

TEST(Rules, ObeySelectIgnoreAndStrict) {
  const auto module = script("def forward(self, x, y):\n    return torch.tanh(torch.matmul(x, y))\n");
  Options options;
  options.ignore = {"wrong"};
  auto report = fuse_with(module, kWrongRule, options).report;
  EXPECT_EQ(report.counts().suppressed, 1) << report.to_string();
  options.ignore.clear();
  options.select = {"conv"};
  EXPECT_EQ(fuse_with(module, kWrongRule, options).report.counts().suppressed, 1);
  options.select.clear();
  options.strict = true;
  EXPECT_THAT(fuse_with(module, kWrongRule, options).report, Says("FUS701", "wrong"));
}

// Of what is not fused, only what is asked for is told; an entry that can mean nothing is refused.
TEST(Rules, SelectByCodeWhatIsReported) {
  const auto module = script(R"(
def forward(self, x):
    y = torch.relu(torch.linear(x, self.w, self.b))
    z = torch.linear(y, self.w, self.b)
    return torch.relu(z), z
)", {{"w", seeded({4, 4}, 20)}, {"b", seeded({4}, 21)}});
  const auto with = [&](std::vector<std::string> select, std::vector<std::string> ignore = {}) {
    Options options;
    options.select = std::move(select);
    options.ignore = std::move(ignore);
    return fuse_with(module, kWrongRule, options).report;
  };
  const auto told = [](const Report& report) {
    std::vector<std::string> codes;
    for (const auto& diagnostic : report.diagnostics)
      if (!diagnostic.suppressed) codes.push_back(diagnostic.code);
    return codes;
  };
  EXPECT_THAT(told(with({})), ::testing::UnorderedElementsAre("FUS003", "FUS202"));
  for (const auto& select : {std::vector<std::string>{"FUS2"}, {"FUS202", "linear"}}) {
    EXPECT_THAT(told(with(select)), ::testing::ElementsAre("FUS202"));
    EXPECT_EQ(with(select).counts().fused, with({}).counts().fused);
  }
  EXPECT_THAT(told(with({"linear"}, {"FUS2"})), ::testing::ElementsAre("FUS003"));
  EXPECT_EQ(with({"linear+relu", "FUS2"}).counts().suppressed, 1);
  for (const char* entry : {"zzz", "", "FUS999", "linear+zzz", "zzz+relu", "linear++relu"}) {
    EXPECT_THROW(with({entry}), Error) << entry;
    EXPECT_THROW(with({}, {entry}), Error) << entry;
  }
  for (const char* entry : {"lin", "linear+re", "wron", "lstm", "conv+batch_norm+relu", "FUS", "FUS2", "FUS201"}) EXPECT_NO_THROW(with({}, {entry})) << entry;
}

// The two sides of this one give the same bits: tanh is odd, and negation is exact.
TEST(Rules, AreAppliedUnderStrictWhenTheySayThatTheyAreExact) {
  const std::string match = "rule odd\n  match n = aten::neg(x); y = aten::tanh(n)\n";
  const std::string emit = "  emit  e = aten::tanh(x)\n  emit  m = aten::neg(e)\n";
  const auto module = script("def forward(self, x, y):\n    return torch.tanh(torch.neg(torch.matmul(x, y)))\n");
  Options options;
  options.strict = true;
  const auto is_applied = [&](const std::string& numerics) {
    const auto text = text_of(*graph_of(fuse_with(module, match + numerics + emit, options).module));
    return text.find("aten::tanh") < text.find("aten::neg");
  };
  EXPECT_TRUE(is_applied("  numerics exact\n"));
  EXPECT_FALSE(is_applied("  numerics reassociates\n"));
  EXPECT_FALSE(is_applied(""));
  options.strict = false;
  EXPECT_TRUE(is_applied("  numerics reassociates\n"));
  EXPECT_TRUE(is_applied(""));
}

TEST(Rules, LoadedForTheProcessWorkWithoutOptions) {
  fuse(script("def forward(self, x):\n    return torch.asinh(torch.neg(x))\n"));  // by the vocabulary before
  load_patterns(R"(
rule asinh_of_negative
  match n = aten::neg(x); y = aten::asinh(n)
  emit  e = aten::asinh(x)
  emit  m = aten::neg(e)
)", "mine.fus");
  const auto module = script("def forward(self, x):\n    return torch.asinh(torch.neg(x))\n");
  const auto fused = fuse(module);
  const auto text = text_of(*graph_of(fused.module));
  EXPECT_LT(text.find("aten::asinh"), text.find("aten::neg")) << text;
  EXPECT_THAT(run(fused.module, {kImage}), ComputesLike(run(module, {kImage})));
  EXPECT_THROW(load_patterns("rule broken\n  match y = aten::no_such_operator(x)\n", "mine.fus"), Error);
}

}  // namespace
}  // namespace fusible::testing
