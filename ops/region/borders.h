#pragma once

#include <ATen/core/Tensor.h>

#include "fusible/export.h"

namespace fusible {

// to.copy_(from). Between channels outermost and channels innermost, as at the borders of a plan, it is a transposition of each image.
FUSIBLE_API void copy_across(const at::Tensor& to, const at::Tensor& from);

}  // namespace fusible
