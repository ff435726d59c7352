// Which sequences share one packed weight: those that compute the same from the same memory.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "passes/rewrite.h"

namespace fusible {
namespace {

ContractionSpec conv() {
  ContractionSpec spec;
  spec.weight = at::randn({8, 8, 3, 3});
  spec.bias = at::randn({8});
  spec.stride = spec.dilation = {1, 1};
  spec.padding = {0, 0};
  return spec;
}

Affine affine(const char* text, std::vector<at::Tensor> operands) {
  return {at::full({8}, 2.0, at::kDouble), at::zeros({8}, at::kDouble), text, std::move(operands)};
}

TEST(PackedStore, EqualSequencesShareOneWeight) {
  PackedStore store;
  const ContractionSpec spec = conv();
  const at::Tensor factor = at::full({8, 1, 1}, 2.0);
  EXPECT_EQ(store.add(spec, {}), store.add(spec, {}));
  EXPECT_EQ(store.add(spec, {affine("mul", {factor})}), store.add(spec, {affine("mul", {factor})}));
  EXPECT_EQ(store.objects().size(), 2);
}

TEST(PackedStore, EveryAttributeIsPartOfTheIdentity) {
  const ContractionSpec spec = conv();
  const auto differs = [&](auto edit) {
    PackedStore store;
    ContractionSpec other = spec;
    edit(other);
    return store.add(spec, {}) != store.add(other, {});
  };
  EXPECT_TRUE(differs([](ContractionSpec& s) { s.stride = {2, 1}; }));
  EXPECT_TRUE(differs([](ContractionSpec& s) { s.padding = {1, 0}; }));
  EXPECT_TRUE(differs([](ContractionSpec& s) { s.dilation = {1, 2}; }));
  EXPECT_TRUE(differs([](ContractionSpec& s) { s.padding_mode = "same"; }));
  EXPECT_TRUE(differs([](ContractionSpec& s) { s.groups = 2, s.weight = s.weight.narrow(1, 0, 4); }));
  EXPECT_TRUE(differs([](ContractionSpec& s) { s.expected_rank = 4; }));
  EXPECT_TRUE(differs([](ContractionSpec& s) { s.bias = at::Tensor(); }));
  EXPECT_TRUE(differs([](ContractionSpec& s) { s.bias = s.bias.clone(); }));
  EXPECT_TRUE(differs([](ContractionSpec& s) { s.weight = s.weight.clone(); }));
}

// Same memory, other elements.
TEST(PackedStore, ViewsOfOneWeightDiffer) {
  PackedStore store;
  ContractionSpec spec = conv(), fewer = spec, turned = spec;
  fewer.weight = spec.weight.narrow(0, 0, 4);
  fewer.bias = spec.bias.narrow(0, 0, 4);
  turned.weight = spec.weight.transpose(2, 3);
  const auto whole = store.add(spec, {});
  EXPECT_NE(store.add(fewer, {}), whole);
  EXPECT_NE(store.add(turned, {}), whole);
  spec.bias = fewer.bias = at::Tensor();
  EXPECT_NE(store.add(fewer, {}), store.add(spec, {}));
}

TEST(PackedStore, FoldsArePartOfTheIdentity) {
  PackedStore store;
  const ContractionSpec spec = conv();
  const auto plain = store.add(spec, {}), once = store.add(spec, {affine("mul", {at::full({8, 1, 1}, 2.0)})});
  EXPECT_NE(plain, once);
  EXPECT_NE(store.add(spec, {affine("div", {at::full({8, 1, 1}, 2.0)})}), once);
  EXPECT_NE(store.add(spec, {affine("mul", {at::full({8, 1, 1}, 2.0)})}), once) << "another tensor, which another method may write";
}

}  // namespace
}  // namespace fusible
