#include "tests/ops/support.h"

namespace fusible::testing {
namespace {

struct Case {
  const char* name;
  ContractionSpec spec;
  at::Tensor x;
};

std::vector<Case> conv_cases() {
  at::manual_seed(1);
  std::vector<Case> cases;
  const auto add = [&](const char* name, ContractionSpec spec, const at::Tensor& x) { cases.push_back({name, std::move(spec), x}); };
  add("conv1d", conv_spec(16, 32, {5}, 1, 1, 2), at::randn({3, 16, 400}));
  add("conv1d strided grouped", conv_spec(16, 32, {5}, 4, 2, 2), at::randn({3, 16, 2000}));
  add("conv2d", conv_spec(16, 32, {3, 3}, 1, 1, 1), at::randn({2, 16, 24, 20}));
  add("conv2d small", conv_spec(3, 4, {3, 3}, 1, 1, 1), at::randn({1, 3, 5, 6}));
  add("conv2d 1x1", conv_spec(32, 48, {1, 1}), at::randn({1, 32, 28, 28}));
  add("conv2d strided dilated", conv_spec(16, 32, {3, 3}, 1, 2, 2, 2), at::randn({2, 16, 40, 40}));
  add("conv2d depthwise", conv_spec(64, 64, {3, 3}, 64, 1, 1), at::randn({1, 64, 46, 46}));
  add("conv2d grouped", conv_spec(32, 64, {3, 3}, 4, 1, 1), at::randn({1, 32, 28, 28}));
  add("conv2d one channel", conv_spec(1, 1, {7, 7}, 1, 1, 3), at::randn({2, 1, 120, 100}));
  add("conv2d to one channel", conv_spec(64, 1, {3, 3}, 1, 1, 1), at::randn({2, 64, 40, 40}));
  add("conv2d to 1x1 image", conv_spec(64, 64, {7, 7}), at::randn({6, 64, 7, 7}));
  add("conv3d", conv_spec(8, 16, {3, 3, 3}, 1, 1, 1), at::randn({1, 8, 8, 12, 10}));
  add("conv3d strided", conv_spec(8, 16, {3, 3, 3}, 2, 2, 1), at::randn({1, 8, 10, 18, 20}));
  add("transposed 1d", conv_transpose_spec(16, 32, {5}, 1, 2, 1, 1), at::randn({2, 16, 300}));
  add("transposed 2d", conv_transpose_spec(16, 24, {4, 4}, 1, 2, 1), at::randn({2, 16, 20, 20}));
  add("transposed 2d grouped", conv_transpose_spec(16, 24, {3, 3}, 4, 2, 1, 1), at::randn({2, 16, 40, 40}));
  add("transposed 3d", conv_transpose_spec(8, 8, {3, 3, 3}, 1, 2, 1, 1), at::randn({1, 8, 8, 9, 10}));
  for (const char* mode : {"same", "valid"}) {
    ContractionSpec spec = conv_spec(16, 32, {3, 5}, 1, 1, 0, 2);
    spec.padding_mode = mode;
    add(mode, spec, at::randn({2, 16, 30, 30}));
  }
  ContractionSpec uneven = conv_spec(16, 32, {4, 2});
  uneven.padding_mode = "same";
  add("same, uneven", uneven, at::randn({2, 16, 30, 30}));
  ContractionSpec plain = conv_spec(16, 32, {3, 3});
  plain.bias = at::Tensor();
  add("no bias", plain, at::randn({2, 16, 30, 30}));
  return cases;
}

at::Tensor channels_last(const at::Tensor& t) {
  if (t.dim() == 3) return t.permute({0, 2, 1}).contiguous().permute({0, 2, 1});
  return t.contiguous(t.dim() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::ChannelsLast3d);
}

constexpr const char* kChains[] = {"relu", "silu", "gelu(tanh)|clamp(none, 1)", "leaky_relu(0.1)|rsub(1)"};

// A batch so large that the oneDNN path takes it (2^24 multiply-adds); the cases themselves stay with ATen.
at::Tensor many(const at::Tensor& x) {
  std::vector<std::int64_t> times(x.dim(), 1);
  times[0] = 16;
  return x.repeat(times);
}

TEST(Conv, MatchesAtenInValuesAndStrides) {
  const at::NoGradGuard no_grad;
  auto cases = conv_cases();
  for (const Case& c : conv_cases()) cases.push_back({c.name, c.spec, many(c.x)});
  for (const Case& c : cases)
    for (const bool weight_last : {false, true})
      for (const bool x_last : {false, true}) {
        ContractionSpec spec = c.spec;
        if (weight_last) spec.weight = channels_last(spec.weight);
        const auto x = x_last ? channels_last(c.x) : c.x;
        for (const char* ops : kChains) {
          SCOPED_TRACE(std::string(c.name) + " | " + ops + (weight_last ? " weight channels_last" : "") + (x_last ? " x channels_last" : ""));
          EXPECT_TRUE(same(call(spec, x, ops), expected(spec, x, ops)));
          if (spec.padding_mode.empty()) EXPECT_TRUE(same(call_unpacked(spec, x, ops), expected(spec, x, ops)));
        }
      }
}

TEST(Conv, MetaGivesShapesAndStrides) {
  for (const Case& c : conv_cases())
    for (const auto dtype : {at::kFloat, at::kDouble})
      for (const bool weight_last : {false, true})
        for (const bool x_last : {false, true})
          for (const bool batched : {true, false}) {
            ContractionSpec spec = c.spec;
            spec.weight = spec.weight.to(dtype);
            if (spec.bias.defined()) spec.bias = spec.bias.to(dtype);
            if (weight_last) spec.weight = channels_last(spec.weight);
            auto x = (x_last ? channels_last(c.x) : c.x).to(dtype);
            if (!batched) x = x[0];
            SCOPED_TRACE(std::string(c.name) + (weight_last ? " weight channels_last" : "") + (x_last ? " x channels_last" : "") +
                         (batched ? "" : " unbatched") + (dtype == at::kDouble ? " float64" : ""));
            EXPECT_TRUE(same_layout(call(spec, x.to(at::kMeta), "relu|mul(2)"), expected(spec, x, "relu|mul(2)")));
          }
}

TEST(Conv, AcceptsWhateverAtenAccepts) {
  const at::NoGradGuard no_grad;
  for (const Case& c : conv_cases())
    for (const char* ops : {"", "silu", "relu|add(1)"}) {
      SCOPED_TRACE(std::string(c.name) + " | " + ops);
      EXPECT_TRUE(same(call(c.spec, c.x[0], ops), expected(c.spec, c.x[0], ops))) << "unbatched";
      const auto none = c.x.slice(0, 0, 0);
      EXPECT_TRUE(same(call(c.spec, none, ops), expected(c.spec, none, ops))) << "empty batch";
      const auto strided = at::cat({c.x, c.x}, -1).slice(-1, 0, at::nullopt, 2);
      EXPECT_TRUE(same(call(c.spec, strided, ops), expected(c.spec, strided, ops))) << "every second column";
      const auto expanded = c.x.slice(0, 0, 1).expand(c.x.sizes());
      EXPECT_TRUE(same(call(c.spec, expanded, ops), expected(c.spec, expanded, ops))) << "expanded";
      ContractionSpec spec = c.spec;
      spec.weight = spec.weight.to(at::kDouble);
      if (spec.bias.defined()) spec.bias = spec.bias.to(at::kDouble);
      EXPECT_TRUE(same(call(spec, c.x.to(at::kDouble), ops), expected(spec, c.x.to(at::kDouble), ops), 1e-13)) << "float64";
      spec.weight = spec.weight.to(at::kBFloat16);
      if (spec.bias.defined()) spec.bias = spec.bias.to(at::kBFloat16);
      EXPECT_TRUE(same(call(spec, c.x.to(at::kBFloat16), ops), expected(spec, c.x.to(at::kBFloat16), ops), 2e-2)) << "bfloat16";
    }
}

TEST(Conv, RaisesWhereAtenRaises) {
  const ContractionSpec spec = conv_spec(16, 32, {3, 3});
  for (const auto& x : {at::randn({2, 8, 30, 30}), at::randn({2, 16, 2, 30}), at::randn({16, 30}), at::randn({1, 2, 16, 30, 30}),
                        at::randn({2, 16, 30, 30}, at::kDouble), at::ones({2, 16, 30, 30}, at::kLong)})
    for (const char* ops : {"", "silu"}) {
      EXPECT_THROW(expected(spec, x, ops), c10::Error) << x.sizes();
      EXPECT_THROW(call(spec, x, ops), c10::Error) << x.sizes();
      EXPECT_THROW(call_unpacked(spec, x, ops), c10::Error) << x.sizes();
      EXPECT_THROW(call(spec, x.to(at::kMeta), ops), c10::Error) << x.sizes();
    }
  EXPECT_THROW(call(spec, at::randn({2, 16, 30, 30}), "add"), c10::Error) << "operand missing";
  EXPECT_THROW(call(spec, at::randn({2, 16, 30, 30}), "relu", {at::randn({1})}), c10::Error) << "operand too many";
}

}  // namespace
}  // namespace fusible::testing
