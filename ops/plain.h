#pragma once

#include <ATen/core/Tensor.h>

namespace fusible {

// Dense, of this process's CPU, without lazy conjugation or negation, subclass or transform: kernels may read its memory.
bool is_plain(const at::Tensor& x);

}  // namespace fusible
