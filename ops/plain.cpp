#include "ops/plain.h"

#include <ATen/ATen.h>

namespace fusible {

bool is_plain(const at::Tensor& x) {
  static const c10::DispatchKeySet kPlain = at::empty({0}, at::kFloat).key_set() - c10::autograd_dispatch_keyset_with_ADInplaceOrView;
  return x.defined() && x.device().is_cpu() && x.layout() == at::kStrided && !x.is_neg() && !x.is_conj() &&
         x.key_set() - c10::autograd_dispatch_keyset_with_ADInplaceOrView == kPlain;
}

}  // namespace fusible
