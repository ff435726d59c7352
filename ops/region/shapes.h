#pragma once

#include <vector>

#include "fusible/export.h"
#include "ops/region/region.h"

namespace fusible {

// What every register would hold, as Region::interpret tells it, without computing it: only sizes and dtypes are right inside, which is all
// that a plan reads. False where the strides of an output are not known beforehand, or where an operator would raise.
FUSIBLE_API bool infer_shapes(const Region& region, at::TensorList inputs, std::vector<at::Tensor>& seen);

}  // namespace fusible
