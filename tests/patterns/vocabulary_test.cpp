#include <map>

#include "fusible/fusible.h"
#include "fusible/pattern.h"

namespace fusible {
namespace {

// A match of made-up values: what is absent is not known.
class Values : public Matched {
 public:
  std::map<std::string, c10::IValue> constants;
  std::map<std::string, at::Tensor> tensors;

  const c10::IValue* constant(const std::string& variable) const override {
    auto found = constants.find(variable);
    return found == constants.end() ? nullptr : &found->second;
  }
  std::optional<at::ScalarType> dtype(const std::string& variable) const override {
    auto found = tensors.find(variable);
    return found == tensors.end() ? std::nullopt : std::optional(found->second.scalar_type());
  }
  std::optional<std::vector<std::int64_t>> sizes(const std::string& variable) const override {
    auto found = tensors.find(variable);
    return found == tensors.end() ? std::nullopt : std::optional(found->second.sizes().vec());
  }
};

std::string unmet(const char* condition, const Values& values, const std::vector<std::string>& arguments) {
  auto result = find_condition(condition)->check(values, arguments);
  return result ? result->variable + ": " + result->needed + ", " + result->found : "";
}

TEST(Vocabulary, Conditions) {
  Values values;
  values.constants["b"] = c10::IValue();
  values.tensors = {{"w", at::zeros({2, 3})}, {"v", at::zeros({2, 3})}, {"i", at::zeros({3}, at::kLong)}};
  values.constants["w"] = values.tensors["w"];
  EXPECT_EQ(unmet("constant", values, {"w", "b"}), "");
  EXPECT_EQ(unmet("constant", values, {"w", "x"}), "x: x known when the model is fused, a value computed at run time");
  EXPECT_EQ(unmet("float", values, {"w", "b"}), "");
  EXPECT_EQ(unmet("float", values, {"i"}), "i: a floating-point i, Long");
  EXPECT_EQ(unmet("float", values, {"x"}), "x: a floating-point x, an unknown dtype");
  EXPECT_EQ(unmet("rank", values, {"w", "2"}), "");
  EXPECT_EQ(unmet("rank", values, {"w", "3"}), "w: w with 3 dimensions, 2");
  EXPECT_EQ(unmet("shape_equal", values, {"w", "v"}), "");
  EXPECT_EQ(unmet("shape_equal", values, {"w", "i"}), "i: i with sizes [2, 3], [3]");
  EXPECT_EQ(unmet("shape_equal", values, {"w", "x"}), "x: x with sizes [2, 3], unknown sizes");
}

TEST(Vocabulary, FoldBnIsConvThenBatchNorm) {
  auto x = at::randn({2, 4, 7, 7}), weight = at::randn({6, 4, 3, 3}), bias = at::randn({6});
  auto gamma = at::randn({6}), beta = at::randn({6}), mean = at::randn({6}), var = at::rand({6}) + 0.3;
  auto fold = *find_builder("fold_bn");
  for (bool with_bias : {true, false}) {
    for (bool affine : {true, false}) {
      auto optional = [](bool there, const at::Tensor& t) { return there ? c10::IValue(t) : c10::IValue(); };
      auto folded = fold({weight, optional(with_bias, bias), optional(affine, gamma), optional(affine, beta), mean, var, 1e-3});
      auto y = at::conv2d(x, weight, with_bias ? bias : at::Tensor());
      y = at::batch_norm(y, affine ? gamma : at::Tensor(), affine ? beta : at::Tensor(), mean, var, false, 0.1, 1e-3, false);
      EXPECT_TRUE(at::allclose(at::conv2d(x, folded[0].toTensor(), folded[1].toTensor()), y, 1e-4, 1e-4));
      EXPECT_EQ(folded[0].toTensor().scalar_type(), weight.scalar_type());
    }
  }
  EXPECT_THROW(fold({weight, bias, gamma, beta, c10::IValue(), var, 1e-3}), Error);
  EXPECT_THROW(fold({weight}), Error);
}

TEST(Vocabulary, FoldAffineConcatRowsTranspose) {
  auto x = at::randn({3, 5}), weight = at::randn({4, 5}), bias = at::randn({4}), scale = at::randn({4}), shift = at::randn({4});
  auto folded = (*find_builder("fold_affine"))({weight, bias, scale, shift});
  auto y = at::linear(x, weight, bias) * scale + shift;
  EXPECT_TRUE(at::allclose(at::linear(x, folded[0].toTensor(), folded[1].toTensor()), y, 1e-4, 1e-5));
  auto plain = (*find_builder("fold_affine"))({weight, c10::IValue(), c10::IValue(), shift});
  EXPECT_TRUE(at::allclose(at::linear(x, plain[0].toTensor(), plain[1].toTensor()), at::linear(x, weight) + shift, 1e-4, 1e-5));
  auto rows = (*find_builder("concat_rows"))({weight, weight})[0].toTensor();
  EXPECT_TRUE(at::equal(at::linear(x, rows).slice(1, 4), at::linear(x, rows).slice(1, 0, 4)));
  auto turned = (*find_builder("transpose"))({weight})[0].toTensor();
  EXPECT_TRUE(at::equal(turned, weight.t()));
  EXPECT_TRUE(turned.is_contiguous());
}

// What a factor computes on the result of a contraction, and what the rows of its weight would then hold.
TEST(Vocabulary, PerChannelIsWhatFoldAffineTakes) {
  auto fold = *find_builder("fold_affine");
  struct One {
    at::Tensor weight;
    c10::IValue factor;
    const char* found;  // "" where it is taken
  };
  auto conv = at::randn({4, 3, 3, 3}), linear = at::randn({4, 5});
  for (auto& one : {One{conv, at::randn({4, 1, 1}), ""}, One{conv, at::randn({1, 1, 1}), ""}, One{conv, at::randn({1}), ""},
                    One{conv, at::scalar_tensor(2, at::kDouble), ""}, One{conv, 0.5, ""}, One{conv, at::ones({4, 1, 1}, at::kLong), ""},
                    One{conv, c10::IValue(), ""}, One{linear, at::randn({4}), ""}, One{linear, at::randn({1}), ""},
                    One{at::randn({4, 3, 3}), at::randn({4, 1}), ""},
                    One{conv, at::randn({4}), "[4]"}, One{conv, at::randn({1, 1, 4}), "[1, 1, 4]"}, One{conv, at::randn({4, 1}), "[4, 1]"},
                    One{conv, at::randn({1, 4, 1, 1}), "[1, 4, 1, 1]"}, One{conv, at::randn({1, 1, 1, 1}), "[1, 1, 1, 1]"},
                    One{conv, at::randn({5, 1, 1}), "[5, 1, 1]"}, One{conv, at::randn({4, 1, 4}), "[4, 1, 4]"},
                    One{conv, at::randn({4, 1, 1}, at::kDouble), "a result in Double"}, One{conv, c10::complex<double>(0, 1), "a result in ComplexFloat"},
                    One{linear, at::randn({1, 4}), "[1, 4]"}, One{linear, at::randn({4, 1}), "[4, 1]"}}) {
    Values values;
    values.constants = {{"w", one.weight}, {"s", one.factor}};
    const std::string found = one.found;
    const std::string form = one.weight.dim() == 4 ? "[4, 1, 1]" : "[4]";
    EXPECT_EQ(unmet("per_channel", values, {"w", "s"}), found.empty() ? "" : "s: s as one number or " + form + " that leaves Float as it is, " + found);
    for (bool scale : {true, false}) {
      const std::vector<c10::IValue> arguments{one.weight, c10::IValue(), scale ? one.factor : c10::IValue(), scale ? c10::IValue() : one.factor};
      if (found.empty()) EXPECT_NO_THROW(fold(arguments));
      else EXPECT_THROW(fold(arguments), Error) << found;
    }
  }
  Values values;
  values.constants = {{"w", conv}, {"i", at::ones({4, 3}, at::kLong)}};
  EXPECT_EQ(unmet("per_channel", values, {"w", "x"}), "x: x known when the model is fused, a value computed at run time");
  EXPECT_EQ(unmet("per_channel", values, {"i", "w"}), "i: a floating-point weight, output channel first, [4, 3] of Long");
  EXPECT_THROW(unmet("per_channel", values, {"w"}), Error);
  EXPECT_THROW(fold({conv, at::randn({4, 1}), c10::IValue(), c10::IValue()}), Error);
  EXPECT_THROW(fold({at::randn({4}), c10::IValue(), c10::IValue(), c10::IValue()}), Error);
}

TEST(Vocabulary, NamesAreTakenOnce) {
  register_condition("test_always", "FUS502",
                     [](const Matched&, const std::vector<std::string>&) -> std::optional<Unmet> { return std::nullopt; });
  EXPECT_EQ(find_condition("test_always")->code, "FUS502");
  EXPECT_THROW(register_condition("constant", "FUS303", {}), Error);
  EXPECT_THROW(register_builder("fold_bn", {}), Error);
  EXPECT_FALSE(find_condition("test_never"));
  EXPECT_FALSE(find_builder("test_never"));
  register_builder("test_twice", [](const std::vector<c10::IValue>& v) { return std::vector<c10::IValue>{v[0].toTensor() * 2}; });
  EXPECT_NO_THROW(load_patterns(
      "rule test_custom\n  match y = aten::frac(x)\n  need test_always(x)\n  emit t = test_twice(x)\n  emit z = aten::frac(t)\n"));
}

}  // namespace
}  // namespace fusible
