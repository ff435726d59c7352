#pragma once

#include <ATen/core/Tensor.h>

#include "ops/packed.h"
#include "ops/post_op.h"

namespace fusible {

// Stock oneDNN operators (mkldnn::_convolution_pointwise and its like) with the chain's first step on the hot tile; the rest in place.
// Contract of try_kernel. Not below `least_work` multiply-adds.
bool try_onednn(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const PostOps& chain,
                at::TensorList operands, at::Tensor& y, std::int64_t least_work = 1);

}  // namespace fusible
