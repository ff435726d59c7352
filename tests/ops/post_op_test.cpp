#include <functional>
#include <limits>
#include <random>

#include "tests/ops/support.h"

namespace fusible::testing {
namespace {

struct Step {
  const char* text;
  std::function<std::vector<at::Tensor>(const at::Tensor& y)> operands;
};

std::vector<at::Tensor> none(const at::Tensor&) { return {}; }
std::vector<at::Tensor> like(const at::Tensor& y) { return {at::randn(y.sizes(), y.options()) + 0.1}; }
std::vector<at::Tensor> transposed_like(const at::Tensor& y) {
  return {at::randn(y.transpose(1, -1).sizes(), y.options()).transpose(1, -1)};
}
std::vector<at::Tensor> gate(const at::Tensor& y) {
  std::vector<std::int64_t> shape(y.dim(), 1);
  shape[0] = y.size(0), shape[1] = y.size(1);
  return {at::rand(shape, y.options()) + 0.5};
}
std::vector<at::Tensor> last(const at::Tensor& y) { return {at::randn({y.size(-1)}, y.options())}; }
std::vector<at::Tensor> zero_dim_double(const at::Tensor& y) { return {at::full({}, 1.7, y.options().dtype(at::kDouble))}; }
std::vector<at::Tensor> larger(const at::Tensor& y) {
  auto shape = y.sizes().vec();
  shape.insert(shape.begin(), 2);
  return {at::randn(shape, y.options())};
}
std::vector<at::Tensor> double_like(const at::Tensor& y) { return {at::randn(y.sizes(), y.options().dtype(at::kDouble))}; }
std::vector<at::Tensor> slopes(const at::Tensor& y) { return {at::rand({y.size(1)}, y.options())}; }
std::vector<at::Tensor> batch_statistics(const at::Tensor& y) {
  const auto c = y.size(1);
  return {at::rand({c}, y.options()) + 0.5, at::randn({c}, y.options()), at::randn({c}, y.options()), at::rand({c}, y.options()) + 0.3};
}
std::vector<at::Tensor> statistics_without_affine(const at::Tensor& y) {
  auto all = batch_statistics(y);
  all[0] = all[1] = at::Tensor();
  return all;
}

// A divisor is kept away from 0, where the last bit of a convolution, which differs between machines, decides the quotient.
const std::vector<Step>& steps() {
  static const std::vector<Step> all = {
      {"relu", none}, {"relu6", none}, {"hardtanh(-0.5, 0.7)", none}, {"hardtanh(0, 6)", none}, {"clamp(none, 0.3)", none},
      {"clamp(-0.2, none)", none}, {"clamp(0, 1)", none}, {"leaky_relu(0.2)", none}, {"sigmoid", none}, {"tanh", none}, {"silu", none},
      {"hardswish", none}, {"hardsigmoid", none}, {"gelu(none)", none}, {"gelu(tanh)", none}, {"gelu(erf)", none}, {"gelu_(tanh)", none}, {"clamp_(0, 1)", none}, {"elu(1.2, 0.9, 0.8)", none}, {"mish", none},
      {"softplus(1.5, 2)", none}, {"prelu", slopes}, {"batch_norm(0.001)", batch_statistics}, {"batch_norm(1e-05)", statistics_without_affine},
      {"add", like}, {"sub", like}, {"mul", like}, {"div", like}, {"radd", like}, {"rsub", like}, {"rmul", like}, {"sigmoid|rdiv", like},
      {"add_", like}, {"sub_", gate}, {"mul_", gate}, {"div_", gate}, {"add_", double_like}, {"add", double_like}, {"rmul", gate},
      {"add", transposed_like}, {"radd", transposed_like}, {"mul", gate}, {"add", last}, {"radd", last}, {"mul", zero_dim_double},
      {"add", larger}, {"add(1)", none}, {"sub(0.5)", none}, {"mul(2)", none}, {"div(3)", none}, {"radd(1.5)", none}, {"rsub(1)", none},
      {"rmul(0.5)", none}, {"sigmoid|rdiv(2)", none}, {"mul_(0.5)", none},
  };
  return all;
}

void check(const ContractionSpec& spec, const at::Tensor& x, const std::string& chain, const std::vector<at::Tensor>& operands, double tolerance) {
  EXPECT_TRUE(same(call(spec, x, chain, operands), expected(spec, x, chain, operands), tolerance)) << chain << " x " << x.sizes();
}

TEST(PostOp, EachMatchesAtenOnEveryContraction) {
  const at::NoGradGuard no_grad;
  at::manual_seed(2);
  struct Place { ContractionSpec spec; at::Tensor x; };
  const std::vector<Place> places = {
      {conv_spec(16, 24, {3, 3}, 1, 1, 1), at::randn({2, 16, 24, 20})},
      {conv_spec(16, 24, {3, 3}, 1, 1, 1), at::randn({2, 16, 24, 20}).contiguous(at::MemoryFormat::ChannelsLast)},
      {conv_transpose_spec(16, 24, {3, 3}, 1, 2, 1, 1), at::randn({2, 16, 12, 14})},
      {linear_spec(32, 40), at::randn({64, 32})},
      {linear_spec(32, 40, at::kDouble), at::randn({3, 5, 32}, at::kDouble)},
      {conv_spec(4, 5, {3}, 1, 1, 0, 1, at::kDouble), at::randn({2, 4, 9}, at::kDouble)},
  };
  for (const Place& place : places)
    for (const Step& step : steps()) {
      const auto y = expected(place.spec, place.x, "");
      check(place.spec, place.x, step.text, step.operands(y), place.x.scalar_type() == at::kDouble ? 1e-12 : 1e-5);
    }
}

TEST(PostOp, KeepsNaNAndInf) {
  const at::NoGradGuard no_grad;
  at::manual_seed(3);
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  const auto conv = conv_spec(16, 32, {1, 1});
  const auto linear = linear_spec(256, 128);
  auto image = at::randn({32, 16, 40, 40}), rows = at::randn({512, 256});  // 2^24 multiply-adds: oneDNN's share
  int place = 0;
  for (const double special : {nan, inf, -inf}) {
    image[0][3][5 + place] = special;
    rows[7 * ++place] = special;
  }
  for (const Step& step : steps()) {
    for (const auto& [spec, x] : {std::pair(conv, image), std::pair(linear, rows)}) {
      const auto operands = step.operands(expected(spec, at::zeros_like(x), ""));
      // What divides by sigmoid(y) makes the absolute error of y = -6, some 5e-6, a relative one; the masks are this test's matter.
      EXPECT_TRUE(same(call(spec, x, step.text, operands), expected(spec, x, step.text, operands), 1e-4)) << step.text;
    }
  }
}

TEST(PostOp, RandomChainsMatchAten) {
  const at::NoGradGuard no_grad;
  std::mt19937 random(4);
  at::manual_seed(4);
  for (int round = 0; round < 200; ++round) {
    const bool image = random() % 2;
    const auto spec = image ? conv_spec(8, 16, {3, 3}, 1, 1, 1) : linear_spec(24, 32);
    auto x = image ? at::randn({16, 8, 32, 30}) : at::randn({40, 24});
    if (image && random() % 2) x = x.contiguous(at::MemoryFormat::ChannelsLast);
    std::string chain;
    std::vector<at::Tensor> operands;
    auto y = expected(spec, x, "");
    for (int i = 0, length = 1 + random() % 5; i < length; ++i) {
      const Step& step = steps()[random() % steps().size()];
      if (step.text == std::string_view("div")) continue;  // by what is near 0: the largest value hides the errors of all others
      const auto more = step.operands(y);
      at::Tensor next;
      try {
        next = apply_post_ops(y, parse_post_ops(step.text), more);
      } catch (const c10::Error&) {
        continue;
      }
      y = next;
      chain += (chain.empty() ? "" : "|") + std::string(step.text);
      operands.insert(operands.end(), more.begin(), more.end());
    }
    check(spec, x, chain, operands, 2e-5);
  }
}

TEST(PostOp, NeverWritesToItsInputs) {
  const at::NoGradGuard no_grad;
  for (const Step& step : steps()) {
    const auto spec = conv_spec(16, 16, {1, 1});
    const auto x = at::randn({2, 16, 40, 40});
    const auto operands = step.operands(expected(spec, x, ""));
    std::vector<at::Tensor> before;
    for (const auto& operand : operands) before.push_back(operand.defined() ? operand.clone() : operand);
    const auto x_before = x.clone(), weight_before = spec.weight.clone();
    call(spec, x, step.text, operands);
    EXPECT_TRUE(at::equal(x, x_before) && at::equal(spec.weight, weight_before)) << step.text;
    for (size_t i = 0; i < operands.size(); ++i)
      if (operands[i].defined()) EXPECT_TRUE(at::equal(operands[i], before[i])) << step.text;
  }
}

// Central differences in float64 along a random direction, for x and for each operand that is differentiable.
TEST(PostOp, GradientsAreThoseOfDifferences) {
  at::manual_seed(5);
  for (const Step& step : steps()) {
    const auto spec = conv_spec(3, 4, {3, 3}, 1, 1, 1, 1, at::kDouble);
    const auto x = at::randn({2, 3, 5, 6}, at::kDouble).requires_grad_();
    auto operands = step.operands(expected(spec, x.detach(), "").detach());
    const bool statistics = std::string_view(step.text).starts_with("batch_norm");
    for (auto& operand : operands)
      if (operand.defined() && !statistics) operand = operand.detach().contiguous().requires_grad_();
    const auto packed = make_packed(spec);
    const auto y = call(packed, x, step.text, operands);
    ASSERT_TRUE(y.requires_grad()) << step.text;
    const auto direction = at::randn(y.sizes(), y.options().requires_grad(false));
    (y * direction).sum().backward();
    const at::NoGradGuard no_grad;
    const auto probe = [&](const at::Tensor& variable) {
      const auto along = at::randn(variable.sizes(), variable.options().requires_grad(false));
      constexpr double h = 1e-7;
      const auto value = [&](double sign) {
        variable.add_(along, sign * h);
        const auto result = (call(packed, x, step.text, operands) * direction).sum().item<double>();
        variable.sub_(along, sign * h);
        return result;
      };
      const double difference = (value(1) - value(-1)) / (2 * h);
      const double analytic = (variable.grad() * along).sum().item<double>();
      EXPECT_NEAR(analytic, difference, 1e-4 * (1 + std::abs(difference))) << step.text;
    };
    probe(x);
    for (const auto& operand : operands)
      if (operand.defined() && operand.requires_grad()) probe(operand);
  }
}

TEST(PostOp, MetaGivesShapeDtypeAndStrides) {
  for (const Step& step : steps()) {
    const auto spec = conv_spec(16, 24, {3, 3}, 1, 1, 1);
    for (const auto& x : {at::randn({2, 16, 8, 9}), at::randn({2, 16, 8, 9}).contiguous(at::MemoryFormat::ChannelsLast)}) {
      const auto operands = step.operands(expected(spec, x, ""));
      EXPECT_TRUE(same_layout(call(spec, x.to(at::kMeta), step.text, operands), expected(spec, x, step.text, operands))) << step.text;
    }
  }
}

TEST(PostOp, PrintsWhatItParses) {
  for (const Step& step : steps()) {
    std::string printed;
    for (const auto& post_op : parse_post_ops(step.text)) printed += (printed.empty() ? "" : "|") + print_post_op(post_op);
    EXPECT_EQ(printed, step.text);
  }
  EXPECT_EQ(print_post_op(parse_post_ops("hardtanh(0.0, 6)").at(0)), "hardtanh(0.0, 6)");
  EXPECT_EQ(print_post_op(parse_post_ops("clamp(-inf, inf)").at(0)), "clamp(-inf, inf)");
  EXPECT_TRUE(parse_post_ops("").empty());
  EXPECT_EQ(parse_post_ops("add|relu").size(), 2u);
}

TEST(PostOp, NamesTheStepThatIsWrong) {
  for (const char* text : {"swishy", "relu|", "|", "hardtanh(1)", "clamp(1, 2, 3)", "add(none)", "add(x)", "gelu(sin)", "gelu_(erf)", "relu(1", "radd_", "_", "r", "leaky_relu(none)"})
    EXPECT_THROW(parse_post_ops(text), c10::ValueError) << text;
  try {
    parse_post_ops("relu|swishy");
  } catch (const c10::ValueError& error) {
    EXPECT_THAT(error.what_without_backtrace(), ::testing::HasSubstr("swishy"));
  }
}

}  // namespace
}  // namespace fusible::testing
