// Numbers in a chain at the ends of what float holds: each operator of ATen has its own way with them, and a chain gives what they give.

#include "tests/ops/support.h"

namespace fusible::testing {
namespace {

struct Place {
  ContractionSpec spec;
  at::Tensor x;
};

// What the kernels take, and what they leave to ATen. Sums of both signs, and of a magnitude that beta * y > 88 and its like are met.
std::vector<Place> places(at::ScalarType dtype) {
  std::vector<Place> all = {{linear_spec(16, 24, dtype), at::randn({5, 16}).to(dtype)},
                            {conv_spec(16, 24, {3, 3}, 1, 1, 1, 1, dtype), at::randn({1, 16, 9, 9}).to(dtype).contiguous(at::MemoryFormat::ChannelsLast)},
                            {conv_spec(16, 24, {5}, 1, 1, 2, 1, dtype), at::randn({2, 16, 42}).to(dtype)}};
  for (Place& place : all) place.x.mul_(100);
  return all;
}

void expect_as_aten(const std::string& ops) {
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const Place& place : places(dtype)) {
      std::ostringstream what;
      what << ops << " of " << dtype << ' ' << place.x.sizes();
      SCOPED_TRACE(what.str());
      std::optional<at::Tensor> wanted;
      try {
        wanted = expected(place.spec, place.x, ops);
      } catch (const std::exception&) {
      }
      if (wanted)
        EXPECT_TRUE(same(call(place.spec, place.x, ops), *wanted, dtype == at::kFloat ? 1e-5 : 2e-2));
      else
        EXPECT_THROW(call(place.spec, place.x, ops), std::exception);
    }
}

// ATen turns the other operand of a binary step into a float by rounding, beyond its range to an infinity; an activation's argument it refuses there.
TEST(Numbers, BeyondFloatAreWhatAtenMakesOfThem) {
  for (const char* number : {"-1e39", "1e39", "1e300", "-1e300", "3.4e38", "1e-50", "inf", "-inf", "nan"}) {
    const std::string n(number);
    for (const std::string& name : {"add", "sub", "rsub", "mul", "div", "leaky_relu"}) {
      expect_as_aten(name + "(" + n + ")");
      expect_as_aten("relu|" + name + "(" + n + ")");
    }
    expect_as_aten("relu|mul_(" + n + ")");
    expect_as_aten("clamp(none, " + n + ")");
    expect_as_aten("clamp(" + n + ", none)");
    expect_as_aten("hardtanh(-1, " + n + ")");
  }
}

TEST(Numbers, OfEluAreTakenInAnySign) {
  for (const char* scale : {"1", "0.5", "0", "-1", "1e38", "-1e38", "1e39", "inf", "nan"})
    for (const char* other : {"1", "-1", "0", "1e38", "1e39", "inf", "nan"}) {
      expect_as_aten("relu|elu(1, " + std::string(other) + ", " + scale + ")");
      expect_as_aten("elu(" + std::string(other) + ", 1, " + scale + ")");
      expect_as_aten("relu|elu(" + std::string(other) + ", " + other + ", " + scale + ")");
    }
}

// ATen's log1p(exp(beta y)) is infinite from exp's overflow on, where the threshold lets it be computed.
TEST(Numbers, OfSoftplusAreTakenInAnySize) {
  for (const char* threshold : {"20", "87", "88", "89", "1000", "1e39", "-1", "inf", "-inf", "nan"})
    for (const char* beta : {"1", "0.5", "-1", "0", "-0.0", "1e38", "inf", "nan"})
      expect_as_aten("softplus(" + std::string(beta) + ", " + threshold + ")");
}

TEST(Numbers, OfBatchNormMayBeBeyondFloat) {
  const at::NoGradGuard no_grad;
  at::manual_seed(2);
  const ContractionSpec spec = conv_spec(16, 24, {3, 3}, 1, 1, 1);
  const at::Tensor x = at::randn({1, 16, 9, 9}).contiguous(at::MemoryFormat::ChannelsLast);
  const std::vector<at::Tensor> statistics = {at::randn({24}), at::randn({24}), at::randn({24}), at::rand({24}) + 0.5};
  for (const char* ops : {"add(inf)|batch_norm(1e39)", "add(inf)|batch_norm(1e-50)", "batch_norm(1e39)", "batch_norm(-1)"})
    EXPECT_TRUE(same(call(spec, x, ops, statistics), expected(spec, x, ops, statistics))) << ops;
}

}  // namespace
}  // namespace fusible::testing
