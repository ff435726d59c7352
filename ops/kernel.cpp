#include "ops/kernel.h"

#include "ops/kernels/try_panels.h"
#include "ops/onednn.h"

namespace fusible {

bool try_kernel(const at::Tensor& x, const ContractionSpec& spec, const PackedContraction* packed, const PostOps& chain, at::TensorList operands,
                at::Tensor& y) {
  return try_panels(x, spec, packed, chain, operands, y) || try_onednn(x, spec, packed, chain, operands, y);
}

}  // namespace fusible
