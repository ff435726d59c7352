// Copies are to one another what the originals are.

#include "passes/copies.h"
#include "tests/passes/stages.h"

namespace fusible::testing {
namespace {

using c10::IValue;

IValue listed(std::vector<at::Tensor> tensors) { return IValue(std::move(tensors)); }

TEST(Copies, ViewsAreViewsOfOneCopy) {
  const auto whole = seeded({4, 6}, 1);
  const auto part = whole.select(1, 2), turned = whole.t();
  const auto copy = Copier().copy(listed({whole, part, turned})).toTensorVector();
  EXPECT_FALSE(copy[0].is_alias_of(whole));
  for (const auto& [made, from] : {std::pair{copy[0], whole}, {copy[1], part}, {copy[2], turned}}) {
    EXPECT_TRUE(made.equal(from));
    EXPECT_EQ(made.strides(), from.strides());
    EXPECT_EQ(made.storage_offset(), from.storage_offset());
  }
  copy[0].add_(1);
  EXPECT_TRUE(copy[1].equal(part + 1));
  EXPECT_TRUE(copy[2].equal(turned + 1));
}

TEST(Copies, OneTensorStaysOne) {
  const auto x = seeded({3}, 2);
  Copier copier;
  EXPECT_TRUE(copier.copy(x).toTensor().is_same(copier.copy(x).toTensor()));
  const IValue list = listed({x});
  EXPECT_TRUE(copier.copy(list).is(copier.copy(list)));
  EXPECT_TRUE(copier.copy(list).toTensorVector()[0].is_same(copier.copy(x).toTensor()));
  EXPECT_FALSE(Copier().copy(x).toTensor().is_same(Copier().copy(x).toTensor()));
}

TEST(Copies, InFloat64ViewsAreViewsOfOneCopyToo) {
  const auto whole = seeded({4, 6}, 1), complex = at::view_as_complex(seeded({3, 2}, 4)).conj();
  const auto counts = at::arange(3);
  const auto copy = Copier(nullptr, Copier::Numbers::in_float64).copy(listed({whole, whole.select(0, 3), complex, counts})).toTensorVector();
  EXPECT_EQ(copy[0].scalar_type(), at::kDouble);
  EXPECT_TRUE(copy[1].equal(whole.select(0, 3).to(at::kDouble)));
  EXPECT_TRUE(copy[1].is_alias_of(copy[0]));
  EXPECT_TRUE(copy[2].equal(complex.to(at::kComplexDouble)));
  EXPECT_TRUE(copy[3].equal(counts));
}

TEST(Copies, WhatIsSharedIsTheSameButForItsGradient) {
  const auto kept = seeded({2}, 1).requires_grad_(), other = seeded({2}, 2).requires_grad_();
  Copier copier([&](const at::Tensor& tensor) { return tensor.is_same(kept); });
  EXPECT_TRUE(copier.copy(kept).toTensor().is_alias_of(kept));
  EXPECT_FALSE(copier.copy(kept).toTensor().requires_grad());
  EXPECT_FALSE(copier.copy(other).toTensor().is_alias_of(other));
  EXPECT_TRUE(copier.copy(other).toTensor().requires_grad());
}

TEST(Copies, EveryKindOfTensor) {
  const auto dense = seeded({4, 4}, 3).relu();
  for (const at::Tensor& x : {dense.to_sparse(), at::quantize_per_tensor(dense, 0.1, 0, at::kQUInt8), dense.to(at::kMeta), dense._neg_view(),
                              dense.expand({3, 4, 4}), at::empty({0, 3}), dense > 0}) {
    const auto copy = Copier().copy(x).toTensor();
    EXPECT_EQ(copy.sizes(), x.sizes());
    EXPECT_EQ(copy.options().dtype(), x.options().dtype());
    EXPECT_EQ(copy.layout(), x.layout());
    if (x.is_meta() || x.is_sparse()) continue;
    EXPECT_EQ(copy.strides(), x.strides());
    EXPECT_TRUE(copy.equal(x));
  }
}

TEST(Copies, ContainersKeepTheirTypes) {
  c10::Dict<std::string, at::Tensor> dict;
  dict.insert("a", seeded({2}, 1));
  const IValue tuple = c10::ivalue::Tuple::create({IValue(dict), IValue(3), IValue(), IValue("text")});
  const IValue copy = Copier().copy(tuple);
  EXPECT_EQ(*copy.type(), *tuple.type());
  copy.toTupleRef().elements()[0].toGenericDict().at("a").toTensor().add_(1);
  EXPECT_FALSE(dict.at("a").equal(copy.toTupleRef().elements()[0].toGenericDict().at("a").toTensor()));
}

}  // namespace
}  // namespace fusible::testing
