#pragma once

// The values of a constant weight, held in one form: the dense tensor, until a kernel has packed all of them and gives the dense one up.
// What packs and what reads may run at the same time; who has a dense tensor in hands keeps it.

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/core/Dict.h>
#include <ATen/core/Tensor.h>

#include "fusible/export.h"

namespace fusible {

class FUSIBLE_API WeightValues {
 public:
  explicit WeightValues(at::Tensor dense);

  // For who reads it once (save, a copy). Rebuilt where it was given up, bit for bit and with its strides; readers at the same time share one,
  // so that an archive that meets a weight twice holds it once.
  at::Tensor dense() const;
  // For operators that read it at every call: once rebuilt it stays.
  at::Tensor kept_dense() const;
  // `unpack` gives the dense tensor back, contiguous. `bytes`: of the packed form.
  void give_up_dense(std::function<at::Tensor()> unpack, std::int64_t bytes);
  // What a kernel derives besides, from which the dense tensor cannot be given back.
  void add_derived(std::int64_t bytes) { packed_bytes_ += bytes; }

  std::int64_t dense_bytes() const;  // held now
  std::int64_t packed_bytes() const { return packed_bytes_; }

 private:
  at::Tensor rebuilt() const;

  mutable std::mutex mutex_;
  mutable at::Tensor dense_;
  mutable c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl> read_;  // the last tensor rebuilt for a reader
  const std::vector<std::int64_t> sizes_, strides_;
  std::function<at::Tensor()> unpack_;
  std::atomic<std::int64_t> packed_bytes_{0};
};

// {"dense": bytes, "packed": bytes} that are held now.
c10::Dict<std::string, std::int64_t> bytes_held(const std::vector<std::shared_ptr<WeightValues>>& weights);

// Sizes, strides and dtype of a weight whose values are elsewhere: a tensor on the meta device.
at::Tensor without_values(const at::Tensor& weight);

}  // namespace fusible
