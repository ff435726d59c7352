// Operators whose weights and attributes come at run time: what no call may have raises as it does in ATen, on the CPU and on the meta device.

#include <limits>

#include "tests/ops/support.h"

namespace fusible::testing {
namespace {

using List = std::vector<std::int64_t>;

// Attributes of a 1-D convolution; several of the lists also stand for all dimensions of a 2-D one.
struct Attributes {
  List stride{1}, padding{0}, dilation{1};
  bool transposed = false;
  List output_padding{0};
  std::int64_t groups = 1;
};

std::vector<Attributes> attributes() {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max(), kLeast = std::numeric_limits<std::int64_t>::min();
  std::vector<Attributes> all;
  for (const bool transposed : {false, true}) {
    for (const List& list : {List{0}, {-1}, {kLeast}, {}, {1, 1}, {0, 0}, {1, 0}, {2, 2, 2, 2}}) {
      all.push_back({list, {0}, {1}, transposed});
      all.push_back({{1}, {0}, list, transposed});
      if (list != List{0}) all.push_back({{2}, list, {1}, transposed});
      if (list != List{0}) all.push_back({{2}, {0}, {1}, transposed, list});
    }
    for (const std::int64_t groups : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{3}, std::int64_t{32}, kLeast, kMost})
      all.push_back({{1}, {0}, {1}, transposed, {0}, groups});
    all.push_back({{}, {}, {}, transposed, {}});
  }
  return all;
}

at::Tensor by_aten(const at::Tensor& x, const ContractionSpec& s) {
  return at::convolution(x, s.weight, s.bias.defined() ? std::optional(s.bias) : std::nullopt, s.stride, s.padding, s.dilation,
                         s.kind == Contraction::conv_transpose, s.output_padding, s.groups);
}

void expect_as_aten(const at::Tensor& x, const ContractionSpec& spec) {
  std::ostringstream what;
  what << "stride " << spec.stride << " padding " << spec.padding << " dilation " << spec.dilation << " output padding " << spec.output_padding
       << " groups " << spec.groups << " weight " << spec.weight.sizes() << (spec.kind == Contraction::conv_transpose ? " transposed" : "");
  SCOPED_TRACE(what.str());
  try {
    const at::Tensor wanted = at::silu(by_aten(x, spec));
    EXPECT_TRUE(same(call_unpacked(spec, x, "silu"), wanted));
    EXPECT_TRUE(same_layout(call_unpacked(spec, x.to(at::kMeta), "silu"), wanted));
  } catch (const c10::Error&) {
    EXPECT_THROW(call_unpacked(spec, x, "silu"), c10::Error);
    EXPECT_THROW(call_unpacked(spec, x.to(at::kMeta), "silu"), c10::Error);
  } catch (const std::exception&) {  // oneDNN's own, which the meta device does not know
    EXPECT_THROW(call_unpacked(spec, x, "silu"), std::exception);
  }
}

TEST(Unpacked, AttributesThatNoCallMayHaveRaiseAsInAten) {
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  // As many multiply-adds as oneDNN takes.
  const at::Tensor line = at::randn({8, 64, 512}), image = at::randn({8, 16, 64, 64});
  for (const Attributes& a : attributes()) {
    ContractionSpec spec;
    spec.kind = a.transposed ? Contraction::conv_transpose : Contraction::conv;
    spec.stride = a.stride;
    spec.padding = a.padding;
    spec.dilation = a.dilation;
    spec.output_padding = a.output_padding;
    spec.groups = a.groups;
    spec.weight = at::randn({64, 64, 3});
    expect_as_aten(line, spec);
    spec.weight = at::randn({16, 16, 3, 3});
    expect_as_aten(image, spec);
  }
}

TEST(Unpacked, WeightsOfAnotherRankRaiseAsInAten) {
  const at::NoGradGuard no_grad;
  at::manual_seed(2);
  for (const List& sizes : {List{}, {16}, {16, 16}, {16, 16, 3, 3, 3}, {16, 16, 3, 3, 3, 3}, {16, 0, 3, 3}, {0, 16, 3, 3}, {16, 16, 0, 3}})
    for (const bool transposed : {false, true})
      for (const bool biased : {false, true}) {
        ContractionSpec spec = conv_spec(16, 16, {3, 3});
        if (transposed) spec.kind = Contraction::conv_transpose;
        if (!biased) spec.bias = at::Tensor();
        spec.weight = at::randn(sizes);
        SCOPED_TRACE(::testing::PrintToString(sizes));
        const at::Tensor x = at::randn({8, 16, 64, 64});
        // oneDNN's exception is another.
        EXPECT_THROW(by_aten(x, spec), std::exception);
        EXPECT_THROW(call_unpacked(spec, x, "silu"), std::exception);
        if (!(transposed && sizes == List{16, 0, 3, 3})) EXPECT_THROW(call_unpacked(spec, x.to(at::kMeta), "silu"), c10::Error);
      }
}

TEST(Unpacked, BiasesOfAnotherShapeRaiseAsInAten) {
  const at::NoGradGuard no_grad;
  at::manual_seed(3);
  for (const List& sizes : {List{}, {1}, {15}, {16, 1}, {0}})
    for (const bool transposed : {false, true}) {
      ContractionSpec spec = conv_spec(16, 16, {3, 3});
      if (transposed) spec.kind = Contraction::conv_transpose;
      spec.bias = at::randn(sizes);
      SCOPED_TRACE(::testing::PrintToString(sizes));
      const at::Tensor x = at::randn({8, 16, 64, 64});
      EXPECT_THROW(by_aten(x, spec), c10::Error);
      EXPECT_THROW(call_unpacked(spec, x, "silu"), c10::Error);
      EXPECT_THROW(call_unpacked(spec, x.to(at::kMeta), "silu"), c10::Error);
    }
}

TEST(Unpacked, LinearTakesTheWeightsThatAtenTakes) {
  const at::NoGradGuard no_grad;
  at::manual_seed(4);
  for (const List& weight : {List{}, {256}, {1}, {256, 256}, {256, 255}, {2, 256, 256}, {0, 256}, {256, 0}})
    for (const List& bias : {List{-1}, {}, {1}, {256}, {255}, {1, 256}, {512, 256}, {0}})
      for (const auto device : {at::kCPU, at::kMeta}) {
        const at::Tensor x = at::randn({512, 256}).to(device);
        ContractionSpec spec;
        spec.kind = Contraction::linear;
        spec.weight = (at::randn(weight) / 16).to(device);
        if (bias != List{-1}) spec.bias = at::randn(bias).to(device);
        SCOPED_TRACE(::testing::PrintToString(weight) + " bias " + ::testing::PrintToString(bias));
        std::optional<at::Tensor> wanted;
        try {
          wanted = expected(spec, x, "silu");
        } catch (const c10::Error&) {
        }
        if (!wanted)
          EXPECT_THROW(call_unpacked(spec, x, "silu"), c10::Error);
        else if (device == at::kCPU)
          EXPECT_TRUE(same(call_unpacked(spec, x, "silu"), *wanted));
        else
          EXPECT_TRUE(same_layout(call_unpacked(spec, x, "silu"), *wanted));
      }
}

// Attributes of an archive's weights have no bound but that of their type: sizes computed from them must not wrap.
TEST(Packed, AttributesOfAnySizeRaiseOrGiveWhatAtenGives) {
  const at::NoGradGuard no_grad;
  at::manual_seed(5);
  for (const std::int64_t large : {std::int64_t{1} << 20, std::int64_t{1} << 40, std::int64_t{1} << 61, std::numeric_limits<std::int64_t>::max()}) {
    for (const bool transposed : {false, true}) {
      ContractionSpec strided = transposed ? conv_transpose_spec(3, 8, {3, 3}) : conv_spec(3, 8, {3, 3});
      ContractionSpec padded = strided, dilated = strided;
      strided.stride = {large, large};
      padded.padding = {large, large};
      padded.stride = {large, large};
      dilated.dilation = {large, large};
      for (const ContractionSpec& spec : {strided, padded, dilated}) {
        SCOPED_TRACE(std::to_string(large) + (transposed ? " transposed" : ""));
        const at::Tensor x = at::randn({1, 3, 3, 3}).contiguous(at::MemoryFormat::ChannelsLast);
        const auto packed = make_packed(spec);
        try {
          call(packed, x, "relu");
        } catch (const c10::Error&) {
        } catch (const std::bad_alloc&) {
        }
      }
    }
  }
}

TEST(Packed, AWeightWithoutValuesIsRefused) {
  for (ContractionSpec spec : {linear_spec(16, 16), conv_spec(16, 16, {3, 3})}) {
    spec.weight = spec.weight.to(at::kMeta);
    EXPECT_THROW(make_packed(spec), c10::Error);
  }
}

}  // namespace
}  // namespace fusible::testing
