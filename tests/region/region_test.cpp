// Regions against their own instructions run one by one: values within rounding, strides, errors, the same bits on every call, saved form.

#include <thread>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <sstream>

#include <ATen/Parallel.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/irparser.h>
#include <torch/csrc/jit/serialization/import.h>

#include "ops/region/region.h"
#include "ops/region/shapes.h"

namespace fusible {
namespace {

using Arg = Argument;

c10::intrusive_ptr<PackedContraction> conv(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride = 1,
                                           std::int64_t groups = 1) {
  ContractionSpec spec;
  spec.weight = at::randn({out, in / groups, kernel, kernel}) / std::sqrt(static_cast<double>(in / groups * kernel * kernel));
  spec.bias = at::randn({out});
  spec.stride = {stride, stride};
  spec.padding = {kernel / 2, kernel / 2};
  spec.dilation = {1, 1};
  spec.groups = groups;
  return make_packed(spec);
}

c10::intrusive_ptr<PackedContraction> linear(std::int64_t in, std::int64_t out) {
  ContractionSpec spec;
  spec.kind = Contraction::linear;
  spec.weight = at::randn({out, in}) / std::sqrt(static_cast<double>(in));
  spec.bias = at::randn({out});
  return make_packed(spec);
}

std::int64_t fused(Region::Builder& b, const char* op, std::int64_t x, const c10::intrusive_ptr<PackedContraction>& w, const char* chain,
                   std::vector<std::int64_t> operands = {}) {
  return b.call({op, ""}, {Arg::reg(x), Arg::constant(w), Arg::constant(std::string(chain)), Arg::regs(std::move(operands))});
}

std::vector<std::int64_t> two(std::int64_t n) { return {n, n}; }

// Stem, pool, residual block, depthwise with a gate, concat, head: escapes in the middle too.
c10::intrusive_ptr<Region> small_network() {
  at::manual_seed(3);
  Region::Builder b;
  const auto x = b.input();
  const auto stem = fused(b, "fusible::conv", x, conv(3, 32, 7, 2), "relu");
  const auto pool = b.call({"aten::max_pool2d", ""}, {Arg::reg(stem), Arg::constant(two(3)), Arg::constant(two(2)), Arg::constant(two(1)),
                                                      Arg::constant(two(1)), Arg::constant(false)});
  const auto inner = fused(b, "fusible::conv", pool, conv(32, 40, 3), "relu");
  const auto block = fused(b, "fusible::conv", inner, conv(40, 32, 1), "add|relu", {pool});
  const auto depthwise = fused(b, "fusible::conv", block, conv(32, 32, 3, 1, 32), "hardswish");
  const auto mean = b.call({"aten::adaptive_avg_pool2d", ""}, {Arg::reg(depthwise), Arg::constant(two(1))});
  const auto gate = fused(b, "fusible::conv", mean, conv(32, 32, 1), "hardsigmoid");
  const auto gated = b.call({"aten::mul", "Tensor"}, {Arg::reg(depthwise), Arg::reg(gate)});
  const auto cat = b.call({"aten::cat", ""}, {Arg::regs({gated, block, pool}), Arg::constant(1)});
  const auto last = fused(b, "fusible::conv", cat, conv(96, 70, 1), "silu");
  const auto average = b.call({"aten::mean", "dim"},
                              {Arg::reg(last), Arg::constant(std::vector<std::int64_t>{2, 3}), Arg::constant(true), Arg::constant({})});
  const auto flat = b.call({"aten::flatten", "using_ints"}, {Arg::reg(average), Arg::constant(1), Arg::constant(-1)});
  const auto head = fused(b, "fusible::linear", flat, linear(70, 10), "");
  b.output(head);
  b.output(block);
  return b.finish();
}

c10::intrusive_ptr<Region> encoder() {
  at::manual_seed(4);
  Region::Builder b;
  const auto x = b.input();
  const auto heads = [&](const c10::intrusive_ptr<PackedContraction>& w) {
    const auto y = fused(b, "fusible::linear", x, w, "");
    const auto split = b.call({"aten::view", ""}, {Arg::reg(y), Arg::constant(std::vector<std::int64_t>{2, 20, 4, 16})});
    return b.call({"aten::transpose", "int"}, {Arg::reg(split), Arg::constant(1), Arg::constant(2)});
  };
  const auto q = heads(linear(64, 64)), k = heads(linear(64, 64)), v = heads(linear(64, 64));
  const auto attention =
      b.call({"aten::scaled_dot_product_attention", ""}, {Arg::reg(q), Arg::reg(k), Arg::reg(v), Arg::constant({}), Arg::constant(0.0),
                                                          Arg::constant(false), Arg::constant({}), Arg::constant(false)});
  const auto back = b.call({"aten::transpose", "int"}, {Arg::reg(attention), Arg::constant(1), Arg::constant(2)});
  const auto merged = b.call({"aten::reshape", ""}, {Arg::reg(back), Arg::constant(std::vector<std::int64_t>{2, 20, 64})});
  const auto projected = fused(b, "fusible::linear", merged, linear(64, 64), "add", {x});
  const auto norm =
      b.call({"aten::layer_norm", ""}, {Arg::reg(projected), Arg::constant(std::vector<std::int64_t>{64}), Arg::constant(at::randn({64})),
                                        Arg::constant(at::randn({64})), Arg::constant(1e-5), Arg::constant(true)});
  const auto hidden = fused(b, "fusible::linear", norm, linear(64, 200), "gelu(none)");
  b.output(fused(b, "fusible::linear", hidden, linear(200, 64), "add", {norm}));
  return b.finish();
}

void expect_same(const std::vector<at::Tensor>& y, const std::vector<at::Tensor>& reference) {
  ASSERT_EQ(y.size(), reference.size());
  for (size_t i = 0; i < y.size(); ++i) {
    ASSERT_EQ(y[i].sizes(), reference[i].sizes());
    EXPECT_EQ(y[i].strides(), reference[i].strides()) << "output " << i;
    EXPECT_TRUE(at::equal(y[i].isnan(), reference[i].isnan())) << "output " << i;
    EXPECT_TRUE(at::allclose(y[i], reference[i], 1e-4, 1e-5, true)) << "output " << i << " " << (y[i] - reference[i]).abs().max();
  }
}

TEST(Region, GivesWhatTheInstructionsGive) {
  const auto region = small_network();
  for (const bool last : {false, true})
    for (const std::int64_t batch : {1, 3}) {
      at::Tensor x = at::randn({batch, 3, 61, 53});
      if (last) x = x.contiguous(at::MemoryFormat::ChannelsLast);
      expect_same(region->run({x}), region->interpret({x}));
      const auto steps = region->explain({x});
      EXPECT_EQ(std::count(steps.begin(), steps.end(), "loop nest"), 12) << ::testing::PrintToString(steps);
      EXPECT_EQ(std::count(steps.begin(), steps.end(), "same memory"), 1);
    }
}

TEST(Region, EncoderGivesWhatTheInstructionsGive) {
  const auto region = encoder();
  const at::Tensor x = at::randn({2, 20, 64});
  expect_same(region->run({x}), region->interpret({x}));
  const auto steps = region->explain({x});
  EXPECT_EQ(std::count(steps.begin(), steps.end(), "loop nest"), 8) << ::testing::PrintToString(steps);
}

// Only a classifier's rows leave: shapes are inferred, nothing is run twice.
TEST(Region, ShapesOfAClassifierAreInferred) {
  at::manual_seed(5);
  Region::Builder b;
  const auto x = b.input();
  const auto stem = fused(b, "fusible::conv", x, conv(3, 16, 3, 2), "relu");
  const auto norm = b.call({"aten::batch_norm", ""}, {Arg::reg(stem), Arg::constant(at::randn({16})), Arg::constant(at::randn({16})),
                                                      Arg::constant(at::randn({16})), Arg::constant(at::rand({16}) + 0.5), Arg::constant(false),
                                                      Arg::constant(0.1), Arg::constant(1e-5), Arg::constant(false)});
  const auto pool = b.call({"aten::avg_pool2d", ""}, {Arg::reg(norm), Arg::constant(two(2)), Arg::constant(two(2)), Arg::constant(two(0)),
                                                      Arg::constant(false), Arg::constant(true), Arg::constant({})});
  const auto cat = b.call({"aten::cat", ""}, {Arg::regs({pool, pool}), Arg::constant(1)});
  const auto wide = fused(b, "fusible::conv", cat, conv(32, 24, 1), "silu");
  const auto mean = b.call({"aten::adaptive_avg_pool2d", ""}, {Arg::reg(wide), Arg::constant(two(1))});
  const auto gated = b.call({"aten::mul", "Tensor"}, {Arg::reg(wide), Arg::reg(mean)});
  const auto rows = b.call({"aten::mean", "dim"}, {Arg::reg(gated), Arg::constant(std::vector<std::int64_t>{2, 3}), Arg::constant(false), Arg::constant({})});
  b.output(fused(b, "fusible::linear", rows, linear(24, 7), "tanh"));
  const auto region = b.finish();
  for (const std::int64_t size : {9, 16, 31}) {
    const at::Tensor image = at::randn({2, 3, size, size + 1});
    std::vector<at::Tensor> inferred, seen;
    ASSERT_TRUE(infer_shapes(*region, {image}, inferred));
    region->interpret({image}, &seen);
    for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(inferred[i].sizes(), seen[i].sizes()) << "register " << i;
    expect_same(region->run({image}), region->interpret({image}));
  }
  std::vector<at::Tensor> inferred;
  EXPECT_FALSE(infer_shapes(*region, {at::randn({2, 4, 9, 9})}, inferred));
  EXPECT_FALSE(infer_shapes(*region, {at::randn({2, 3, 1, 1})}, inferred));
  EXPECT_THROW(region->run({at::randn({2, 4, 9, 9})}), c10::Error);
}

TEST(Region, SameBitsOnEveryCallAndForAnyNumberOfThreads) {
  const auto region = small_network();
  const at::Tensor x = at::randn({2, 3, 64, 64});
  const auto first = region->run({x});
  const int threads = at::get_num_threads();
  for (int count : {1, 2, 3, threads}) {
    at::set_num_threads(count);
    const auto again = region->run({x});
    for (size_t i = 0; i < first.size(); ++i)
      EXPECT_TRUE(at::equal(first[i], again[i])) << count << " threads, output " << i << ", " << (first[i] - again[i]).abs().max();
  }
  at::set_num_threads(threads);
}

TEST(Region, NanAndWhatNoPlanTakes) {
  const auto region = small_network();
  at::Tensor x = at::randn({1, 3, 40, 40});
  x[0][1][7][9] = std::numeric_limits<float>::quiet_NaN();
  expect_same(region->run({x}), region->interpret({x}));
  expect_same(region->run({at::empty({0, 3, 40, 40})}), region->interpret({at::empty({0, 3, 40, 40})}));
  EXPECT_THROW(region->run({at::randn({1, 4, 40, 40})}), c10::Error);
  EXPECT_THROW(region->run({at::randn({1, 3, 40, 40}, at::kDouble)}), c10::Error);
  at::Tensor leaf = at::randn({1, 3, 40, 40}).requires_grad_();
  region->run({leaf})[0].sum().backward();
  EXPECT_TRUE(leaf.grad().defined());
}

TEST(Region, OutputsThatAreViewsStayViews) {
  Region::Builder b;
  const auto x = b.input();
  const auto y = b.call({"aten::relu", ""}, {Arg::reg(x)});
  b.output(b.call({"aten::transpose", "int"}, {Arg::reg(y), Arg::constant(0), Arg::constant(1)}));
  b.output(y);
  const auto region = b.finish();
  const auto results = region->run({at::randn({4, 5})});
  EXPECT_TRUE(results[0].storage().is_alias_of(results[1].storage()));
}

TEST(Region, WritesInPlaceOnlyToItsOwn) {
  Region::Builder b;
  const auto x = b.input();
  const auto y = b.call({"aten::neg", ""}, {Arg::reg(x)});
  b.output(b.call({"aten::sigmoid_", ""}, {Arg::reg(y)}));
  const auto region = b.finish();
  const at::Tensor image = at::randn({2, 3, 4, 5}), before = image.clone();
  expect_same(region->run({image}), {(-image).sigmoid()});
  EXPECT_TRUE(at::equal(image, before));
  EXPECT_THROW(region->run({at::ones({2, 3}, at::kLong)}), c10::Error);  // as torch refuses sigmoid_ of integers

  Region::Builder of_input, of_output, read_later;
  of_input.call({"aten::relu_", ""}, {Arg::reg(of_input.input())});
  EXPECT_THROW(of_input.finish(), c10::Error);
  const auto shown = of_output.call({"aten::neg", ""}, {Arg::reg(of_output.input())});
  of_output.output(shown);
  of_output.output(of_output.call({"aten::relu_", ""}, {Arg::reg(shown)}));
  EXPECT_THROW(of_output.finish(), c10::Error);
  const auto twice = read_later.call({"aten::neg", ""}, {Arg::reg(read_later.input())});
  read_later.call({"aten::relu_", ""}, {Arg::reg(twice)});
  read_later.output(read_later.call({"aten::neg", ""}, {Arg::reg(twice)}));
  EXPECT_THROW(read_later.finish(), c10::Error);
}

TEST(Region, EscapingValuesSurviveLaterCalls) {
  const auto region = small_network();
  const auto first = region->run({at::randn({1, 3, 48, 48})});
  std::vector<at::Tensor> copies;
  for (const auto& t : first) copies.push_back(t.clone());
  for (int i = 0; i < 3; ++i) region->run({at::randn({1, 3, 48, 48})});
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], copies[i]));
}

TEST(Region, ThreadsAndMoreShapesThanPlans) {
  const auto region = small_network();
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (std::int64_t i = 0; i < 12; ++i) {
        const at::Tensor x = at::randn({1, 3, 32 + (i + t) % 11, 40});
        const auto y = region->run({x}), reference = region->interpret({x});
        if (!at::allclose(y[0], reference[0], 1e-4, 1e-5)) ++wrong;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Region, SavedFormRoundTrips) {
  for (const auto& region : {small_network(), encoder()}) {
    const auto again = Region::load(region->save());
    EXPECT_EQ(again->print(), region->print());
    const at::Tensor x = region->print().find("conv") != std::string::npos ? at::randn({1, 3, 40, 40}) : at::randn({2, 20, 64});
    EXPECT_TRUE(at::equal(again->run({x})[0], region->run({x})[0]));
  }
  auto state = small_network()->save();
  std::get<0>(state) = 99;
  EXPECT_THROW(Region::load(state), c10::Error);
  for (const char* damaged : {"", "%1", "%1 = aten::relu", "%1 = aten::relu %7", "%1 = aten::relu [%0", "%1 = aten::system %0",
                              "%1 = aten::relu #0", "%1 = aten::relu_ %0", "%9 = aten::relu %0", "%1 = aten::relu %-1", "x = y z"})
    EXPECT_THROW(Region::load({Region::kVersion, 1, {damaged}, {1}, {}, {}}), c10::Error) << damaged;
}

TEST(Region, NumbersInListsRoundTrip) {
  for (const std::vector<double>& list : {std::vector<double>{2, 2}, {0.1, 1.0 / 3}, {-0.0, 1e300}, {5e-324}, {INFINITY, -INFINITY, NAN}}) {
    Region::Builder b;
    b.output(b.call({"aten::upsample_nearest2d", "vec"}, {Argument::reg(b.input()), Argument::constant({}), Argument::constant(list)}));
    const auto region = b.finish(), again = Region::load(region->save());
    const auto found = again->instructions()[0].arguments[2].value.toDoubleVector();
    EXPECT_EQ(again->print(), region->print());
    ASSERT_EQ(found.size(), list.size());
    EXPECT_EQ(std::memcmp(found.data(), list.data(), list.size() * sizeof(double)), 0) << region->print();
  }
}

// What is taken can be written: a constant that has no text makes no region, instead of one that cannot be saved.
TEST(Region, ConstantsWithoutATextAreNotTaken) {
  for (const c10::IValue& value : {c10::IValue(c10::complex<double>(0, 1)), c10::IValue(std::vector<double>{}), c10::IValue(std::vector<bool>{true}),
                                   c10::IValue(std::vector<at::Tensor>{at::ones({2})}), c10::IValue("a 'quoted' word"), c10::IValue(at::Device("cpu"))}) {
    const c10::IValue none;
    EXPECT_FALSE(Region::takes({"aten::upsample_nearest2d", "vec"}, {nullptr, &none, &value})) << value;
    Region::Builder b;
    b.output(b.call({"aten::upsample_nearest2d", "vec"}, {Argument::reg(b.input()), Argument::constant({}), Argument::constant(value)}));
    EXPECT_THROW(b.finish(), c10::Error) << value;
  }
}

TEST(Region, OperatorRunsInTorchScript) {
  const auto region = small_network();
  const auto graph = std::make_shared<torch::jit::Graph>();
  torch::jit::parseIR(R"(
graph(%x : Tensor, %plan : __torch__.torch.classes.fusible.Region):
  %list : Tensor[] = prim::ListConstruct(%x)
  %y : Tensor[] = fusible::region(%list, %plan)
  return (%y))",
                      graph.get());
  torch::jit::GraphFunction function("region", graph, nullptr);
  const at::Tensor x = at::randn({1, 3, 40, 40});
  EXPECT_TRUE(at::equal(function({x, region}).toTensorVector()[0], region->run({x})[0]));
}

TEST(Region, IsAnAttributeThatAnArchiveKeeps) {
  const auto region = small_network();
  torch::jit::Module module("m");
  module.register_attribute("plan", c10::getCustomClassType<c10::intrusive_ptr<Region>>(), c10::IValue(region));
  module.define("def forward(self, x):\n  return x\n");
  std::stringstream archive;
  module.save(archive);
  const auto loaded = torch::jit::load(archive).attr("plan").toCustomClass<Region>();
  const at::Tensor x = at::randn({1, 3, 40, 40});
  EXPECT_TRUE(at::equal(loaded->run({x})[0], region->run({x})[0]));
}

}  // namespace
}  // namespace fusible
