#pragma once

// Calls of the fused operators and the comparisons of law 1.

#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "ops/packed.h"
#include "ops/post_op.h"

namespace fusible::testing {

at::Tensor call(const ContractionSpec& spec, const at::Tensor& x, const std::string& post_ops, const std::vector<at::Tensor>& operands = {});
at::Tensor call(const c10::intrusive_ptr<PackedContraction>& packed, const at::Tensor& x, const std::string& post_ops,
                const std::vector<at::Tensor>& operands = {});
at::Tensor call_unpacked(const ContractionSpec& spec, const at::Tensor& x, const std::string& post_ops,
                         const std::vector<at::Tensor>& operands = {});

// The unfused model: the ATen contraction, written here once more and not taken from the library, then its steps.
at::Tensor expected(const ContractionSpec& spec, const at::Tensor& x, const std::string& post_ops, const std::vector<at::Tensor>& operands = {});

ContractionSpec conv_spec(std::int64_t in, std::int64_t out, std::vector<std::int64_t> kernel, std::int64_t groups = 1, std::int64_t stride = 1,
                          std::int64_t padding = 0, std::int64_t dilation = 1, at::ScalarType dtype = at::kFloat);
ContractionSpec conv_transpose_spec(std::int64_t in, std::int64_t out, std::vector<std::int64_t> kernel, std::int64_t groups = 1,
                                    std::int64_t stride = 1, std::int64_t padding = 0, std::int64_t output_padding = 0,
                                    at::ScalarType dtype = at::kFloat);
ContractionSpec linear_spec(std::int64_t in, std::int64_t out, at::ScalarType dtype = at::kFloat);

// Values within `tolerance` of the largest magnitude, and equal: dtype, shape, strides of dimensions larger than 1, contiguity, NaN and Inf masks.
::testing::AssertionResult same(const at::Tensor& actual, const at::Tensor& wanted, double tolerance = 1e-5);
// The same without values: for meta tensors.
::testing::AssertionResult same_layout(const at::Tensor& actual, const at::Tensor& wanted);

}  // namespace fusible::testing
