#pragma once

#include <ATen/ATen.h>

#include "ops/packed.h"

namespace fusible {

// A 1x1 convolution with random weights.
inline c10::intrusive_ptr<PackedContraction> pointwise(std::int64_t in, std::int64_t out) {
  ContractionSpec spec;
  spec.weight = at::randn({out, in, 1, 1});
  spec.stride = {1, 1};
  spec.padding = {0, 0};
  spec.dilation = {1, 1};
  return make_packed(spec);
}

}  // namespace fusible
