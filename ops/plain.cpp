#include "ops/plain.h"

#include <ATen/ATen.h>

namespace fusible {

bool is_plain(const at::Tensor& x) {
  // Written out: a tensor made to read them from would have those of the mode in which the first call comes.
  static const c10::DispatchKeySet kPlain =
      c10::DispatchKeySet(c10::DispatchKey::CPU) | c10::getAutocastRelatedKeySetFromBackend(c10::BackendComponent::CPUBit);
  return x.defined() && x.device().is_cpu() && x.layout() == at::kStrided && !x.is_neg() && !x.is_conj() &&
         x.key_set() - c10::autograd_dispatch_keyset_with_ADInplaceOrView == kPlain;
}

}  // namespace fusible
