#include "passes/copies.h"

#include <ATen/ATen.h>

namespace fusible {

namespace {

using c10::IValue;
using c10::ivalue::Object;

// What these hold is made once and then only read; their __getstate__ would write all weights out.
bool holds_packed_weights(const c10::ClassType& type) {
  static const std::array<std::string, 4> libraries{"fusible", "quantized", "mkldnn", "xnnpack"};
  const std::string name = type.name()->qualifiedName();
  return std::any_of(libraries.begin(), libraries.end(), [&](const std::string& library) { return name.find(".torch.classes." + library + ".") != std::string::npos; });
}

}  // namespace

IValue Copier::copy(const IValue& value) {
  const bool has_identity = value.isTensor() || value.isList() || value.isGenericDict() || value.isObject();
  if (!has_identity || (value.isTensor() && !value.toTensor().defined())) return copied(value);
  if (const auto known = known_.find(value); known != known_.end()) return known->second;
  return known_[value] = copied(value);
}

IValue Copier::copied(const IValue& value) {
  if (value.isTensor()) return value.toTensor().defined() ? copied(value.toTensor()) : value;
  if (value.isTuple()) {
    std::vector<IValue> elements;
    for (const auto& element : value.toTupleRef().elements()) elements.push_back(copy(element));
    return c10::ivalue::Tuple::createNamed(std::move(elements), value.toTupleRef().type());
  }
  if (value.isList()) {
    c10::impl::GenericList list(value.toList().elementType());
    for (const IValue& element : value.toListRef()) list.push_back(copy(element));
    return list;
  }
  if (value.isGenericDict()) {
    const auto dict = value.toGenericDict();
    c10::impl::GenericDict made(dict.keyType(), dict.valueType());
    for (const auto& item : dict) made.insert(item.key(), copy(item.value()));
    return made;
  }
  return value.isObject() ? copied_object(value) : value;
}

IValue Copier::copied_object(const IValue& value) {
  const Object& object = value.toObjectRef();
  if (object.type()->is_module()) return value;
  if (value.isCustomClass()) {
    if (holds_packed_weights(*object.type())) return value;
    try {
      return value.deepcopy();
    } catch (const std::exception&) {
      return value;
    }
  }
  auto made = Object::create(object.type(), object.type()->numAttributes());
  known_[value] = made;  // it may hold itself
  for (std::size_t i = 0; i < object.type()->numAttributes(); ++i) made->setSlot(i, copy(object.getSlot(i)));
  return made;
}

at::Tensor Copier::copied(const at::Tensor& tensor) {
  if (shared_ && shared_(tensor)) return tensor.requires_grad() ? tensor.detach() : tensor;
  const bool widens = numbers_ == Numbers::in_float64 && (tensor.is_floating_point() || tensor.is_complex());
  const at::ScalarType own = tensor.scalar_type(), wide = tensor.is_complex() ? at::kComplexDouble : at::kDouble;
  if (!tensor.has_storage() || tensor.layout() != at::kStrided || tensor.is_quantized()) {
    const at::Tensor made = tensor.detach().clone();
    return widens && !tensor.is_quantized() ? made.to(wide) : made;
  }
  const at::ScalarType unit = widens ? own : at::kByte;
  auto& row = storages_[{tensor.storage().unsafeGetStorageImpl(), unit}];
  if (!row.defined()) {
    const at::Tensor all = at::empty({0}, tensor.options().dtype(unit)).set_(tensor.storage());
    row = widens ? all.to(wide, /*non_blocking=*/false, /*copy=*/true) : all.clone();
  }
  auto made = at::empty({0}, row.options().dtype(widens ? wide : own))
                  .set_(row.storage(), tensor.storage_offset(), tensor.sizes(), tensor.strides());
  made._set_conj(tensor.is_conj());
  made._set_neg(tensor.is_neg());
  return made.requires_grad_(tensor.requires_grad() && tensor.is_leaf());
}

}  // namespace fusible
