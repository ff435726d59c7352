#pragma once

// gMock matchers on results: what one module computes, compared with another.

#include <optional>
#include <string>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <torch/csrc/jit/api/module.h>

namespace fusible::testing {

// Same dtype, sizes, strides of dimensions larger than 1, NaN mask; values within `tolerance` times the largest magnitude.
MATCHER_P2(ComputesLike, expected, tolerance, "computes like the original") {
  const at::Tensor& actual = arg;
  if (actual.scalar_type() != expected.scalar_type()) {
    *result_listener << "dtype " << actual.scalar_type() << " instead of " << expected.scalar_type();
    return false;
  }
  if (actual.sizes() != expected.sizes()) {
    *result_listener << "sizes " << actual.sizes() << " instead of " << expected.sizes();
    return false;
  }
  for (std::int64_t d = 0; d < actual.dim(); ++d) {
    if (actual.size(d) <= 1 || actual.numel() == 0 || actual.stride(d) == expected.stride(d)) continue;
    *result_listener << "strides " << actual.strides() << " instead of " << expected.strides();
    return false;
  }
  if (actual.numel() == 0) return true;
  const at::Tensor a = actual.detach().to(at::kDouble), e = expected.detach().to(at::kDouble);
  if (!a.isnan().equal(e.isnan())) {
    *result_listener << "another NaN mask";
    return false;
  }
  const at::Tensor finite = e.isfinite() & a.isfinite();
  if (!at::where(finite, at::zeros({}, a.options()), a).nan_to_num(0).equal(at::where(finite, at::zeros({}, a.options()), e).nan_to_num(0))) {
    *result_listener << "other infinities";
    return false;
  }
  const double scale = at::where(finite, e, at::zeros({}, e.options())).abs().max().item<double>();
  const double error = at::where(finite, a - e, at::zeros({}, e.options())).abs().max().item<double>();
  *result_listener << "which differs by " << error << " where the largest magnitude is " << scale;
  return error <= tolerance * scale;
}

inline auto ComputesLike(const at::Tensor& expected) { return ComputesLike(expected, 1e-5); }

// What forward gives.
inline at::Tensor run(torch::jit::Module module, const std::vector<c10::IValue>& inputs) {
  at::NoGradGuard no_grad;
  return module.forward(inputs).toTensor();
}

// The same, or nothing when it raises.
inline std::optional<at::Tensor> result_of(const torch::jit::Module& module, const std::vector<c10::IValue>& inputs) {
  try {
    return run(module, inputs);
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace fusible::testing
