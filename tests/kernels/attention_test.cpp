// Causal attention reads what ATen reads: values of key blocks that a block of queries does not see are left out, and NaN in them with it.

#include <limits>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "ops/kernels/attention.h"

namespace fusible {
namespace {

using kernels::Attention;

Attention::Rows strides_of(const at::Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2)}; }

at::Tensor causal(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor y = at::empty({q.size(0), q.size(1), q.size(2), v.size(3)});
  Attention a{};
  a.q = q.const_data_ptr<float>();
  a.k = k.const_data_ptr<float>();
  a.v = v.const_data_ptr<float>();
  a.y = y.mutable_data_ptr<float>();
  a.batches = q.size(0);
  a.heads = q.size(1);
  a.queries = q.size(2);
  a.keys = k.size(2);
  a.width = q.size(3);
  a.value_width = v.size(3);
  a.q_at = strides_of(q);
  a.k_at = strides_of(k);
  a.v_at = strides_of(v);
  a.y_at = strides_of(y);
  a.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(q.size(3))));
  a.causal = true;
  kernels::attention(a);
  return y;
}

void expect_as_aten(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::string& what) {
  const at::Tensor y = causal(q, k, v), wanted = at::scaled_dot_product_attention(q, k, v, {}, 0, true);
  EXPECT_TRUE(y.isnan().equal(wanted.isnan())) << what << ": " << y.isnan().sum().item<std::int64_t>() << " NaN, in ATen's result "
                                               << wanted.isnan().sum().item<std::int64_t>();
  EXPECT_LE((y - wanted).nan_to_num().abs().max().item<double>(), 1e-5 * wanted.nan_to_num().abs().max().item<double>()) << what;
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor again = causal(q, k, v);
  at::set_num_threads(threads);
  EXPECT_TRUE(y.nan_to_num().equal(again.nan_to_num())) << what;
}

TEST(CausalAttention, WhatAQueryDoesNotSeeReachesTheRowsThatItReachesInAten) {
  at::manual_seed(1);
  const std::int64_t shapes[][4] = {{100, 100, 16, 16}, {600, 600, 16, 16}, {1200, 1200, 24, 24}, {700, 1500, 16, 16},
                                    {1500, 700, 16, 16}, {20, 1100, 8, 8},   {600, 600, 16, 24}};
  for (const auto& s : shapes)
    for (const std::int64_t key : {std::int64_t{40}, std::int64_t{511}, std::int64_t{512}, std::int64_t{1030}, s[1] - 1}) {
      if (key >= s[1]) continue;
      for (const float number : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        const at::Tensor q = at::randn({1, 2, s[0], s[2]}), k = at::randn({1, 2, s[1], s[2]}), v = at::randn({1, 2, s[1], s[3]});
        v.select(2, key).fill_(number);
        const std::string what = std::to_string(s[0]) + " queries, " + std::to_string(s[1]) + " keys, " + std::to_string(number) + " in the value of key " + std::to_string(key);
        expect_as_aten(q, k, v, what);
        k.select(2, key).fill_(std::numeric_limits<float>::quiet_NaN());
        expect_as_aten(q, k, v, what + " and NaN in the key");
      }
    }
}

}  // namespace
}  // namespace fusible
