#include "ops/weight_values.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

namespace fusible {

using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

WeightValues::WeightValues(at::Tensor dense)
    : dense_(std::move(dense)), read_(dense_.getIntrusivePtr()), sizes_(dense_.sizes().vec()), strides_(dense_.strides().vec()) {}

// A weight that is packed in inference mode may be read by an operator that records derivatives.
at::Tensor WeightValues::rebuilt() const {
  const c10::InferenceMode outside(false);
  const at::NoGradGuard no_grad;
  const at::Tensor contiguous = unpack_();
  if (contiguous.strides() == at::IntArrayRef(strides_)) return contiguous;
  return at::empty_strided(sizes_, strides_, contiguous.options()).copy_(contiguous);
}

at::Tensor WeightValues::dense() const {
  const std::lock_guard lock(mutex_);
  if (dense_.defined()) return dense_;
  if (auto alive = read_.lock()) return at::Tensor(std::move(alive));
  at::Tensor tensor = rebuilt();
  read_ = WeakTensor(tensor.getIntrusivePtr());
  return tensor;
}

at::Tensor WeightValues::kept_dense() const {
  at::Tensor tensor = dense();
  const std::lock_guard lock(mutex_);
  if (!dense_.defined()) dense_ = tensor;
  return dense_;
}

void WeightValues::give_up_dense(std::function<at::Tensor()> unpack, std::int64_t bytes) {
  at::Tensor given_up;  // freed behind the lock
  const std::lock_guard lock(mutex_);
  unpack_ = std::move(unpack);
  packed_bytes_ = bytes;
  given_up = std::move(dense_);
}

std::int64_t WeightValues::dense_bytes() const {
  const std::lock_guard lock(mutex_);
  return dense_.defined() ? static_cast<std::int64_t>(dense_.nbytes()) : 0;
}

c10::Dict<std::string, std::int64_t> bytes_held(const std::vector<std::shared_ptr<WeightValues>>& weights) {
  std::int64_t dense = 0, packed = 0;
  for (const auto& weight : weights) {
    dense += weight->dense_bytes();
    packed += weight->packed_bytes();
  }
  c10::Dict<std::string, std::int64_t> bytes;
  bytes.insert("dense", dense);
  bytes.insert("packed", packed);
  return bytes;
}

at::Tensor without_values(const at::Tensor& weight) {
  return at::empty_strided(weight.sizes(), weight.strides(), weight.options().device(at::kMeta));
}

}  // namespace fusible
