#pragma once

#include <functional>
#include <map>

#include <ATen/core/ivalue.h>

namespace fusible {

// Copies that are to one another what the originals are: views of one storage become views of one copy of it, with their strides and offsets; a
// list, dict or object that two hold stays one. TorchScript objects keep their type, but for modules, which are left as they are. Custom classes
// are copied by their __getstate__ and __setstate__; those without, and weights that torch's backends or fusible packed, stay shared.
class Copier {
 public:
  enum class Numbers { kept, in_float64 };  // of floating point

  // `shared`: tensors that are not copied, but detached where they require grad.
  explicit Copier(std::function<bool(const at::Tensor&)> shared = nullptr, Numbers numbers = Numbers::kept)
      : shared_(std::move(shared)), numbers_(numbers) {}

  c10::IValue copy(const c10::IValue& value);

 private:
  c10::IValue copied(const c10::IValue& value);
  c10::IValue copied_object(const c10::IValue& value);
  at::Tensor copied(const at::Tensor& tensor);

  std::function<bool(const at::Tensor&)> shared_;
  Numbers numbers_;
  c10::IValue::HashIdentityIValueMap known_;
  std::map<std::pair<const void*, at::ScalarType>, at::Tensor> storages_;  // one row each
};

}  // namespace fusible
