#include "passes/verify.h"

#include <ATen/CPUGeneratorImpl.h>
#include <typeinfo>

#include "passes/install.h"

namespace fusible {

namespace {

using c10::IValue;

struct Outcome {
  IValue output;
  std::vector<IValue> inputs;  // after the call
  std::string exception;       // type name, "" when it returned
  std::string what;            // its last line: the interpreter's traceback stands before it
};

Outcome run(torch::jit::Module module, const std::vector<IValue>& inputs, const at::Tensor& random_state) {
  Outcome outcome;
  outcome.inputs = cloned(inputs);
  auto generator = at::detail::getDefaultCPUGenerator();
  generator.set_state(random_state);
  try {
    outcome.output = module(outcome.inputs);
  } catch (const std::exception& error) {
    outcome.exception = typeid(error).name();
    const std::string text = error.what();
    const auto last = text.find_last_not_of('\n');
    const auto begin = text.rfind('\n', last) + 1;  // npos + 1 is 0
    outcome.what = text.substr(begin, last + 1 - begin);
  }
  return outcome;
}

std::string same_strides(const at::Tensor& a, const at::Tensor& b) {
  for (std::int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) > 1 && a.stride(d) != b.stride(d)) return "strides differ in dimension " + std::to_string(d);
  }
  return "";
}

double max_abs(const at::Tensor& t) { return t.numel() ? t.abs().max().item<double>() : 0; }

std::string tensors_differ(const at::Tensor& original, const at::Tensor& fused, const at::Tensor* reference) {
  if (original.defined() != fused.defined()) return "one tensor is undefined";
  if (!original.defined()) return "";
  if (original.scalar_type() != fused.scalar_type()) return std::string("dtype ") + c10::toString(fused.scalar_type()) + " instead of " + c10::toString(original.scalar_type());
  if (original.sizes() != fused.sizes()) return "shape differs";
  if (original.layout() != at::kStrided) return "";
  if (original.is_complex()) {
    const auto real = [](const at::Tensor& t) { return at::view_as_real(t.detach().resolve_conj()); };
    const bool wide = reference && reference->defined() && reference->is_complex();
    const at::Tensor r = wide ? real(*reference) : at::Tensor();
    return tensors_differ(real(original), real(fused), wide ? &r : nullptr);
  }
  if (auto why = same_strides(original, fused); !why.empty()) return why;
  if (!original.is_floating_point()) return original.equal(fused) ? "" : "values differ";
  const at::Tensor a = original.detach().to(at::kDouble), b = fused.detach().to(at::kDouble);
  if (!a.isnan().equal(b.isnan())) return "NaN masks differ";
  const at::Tensor finite = a.isfinite() & b.isfinite();
  if (!(a.isinf() & ~(a == b)).logical_and(~a.isnan()).any().item<bool>()) {
    const at::Tensor zero = at::zeros({}, a.options());
    const at::Tensor a0 = at::where(finite, a, zero), b0 = at::where(finite, b, zero);
    const double eps = original.scalar_type() == at::kDouble ? 2.3e-16 : original.scalar_type() == at::kFloat ? 1.2e-7 : 8e-3;
    const double scale = max_abs(a0);
    double error = max_abs(a0 - b0), allowed = 256 * eps * scale;
    if (reference && reference->defined() && reference->sizes() == a.sizes()) {
      const at::Tensor r = at::where(finite, reference->to(at::kDouble), zero);
      error = max_abs(b0 - r);
      allowed = 4 * max_abs(a0 - r) + 8 * eps * scale;
    }
    if (error <= allowed) return "";
    return "values differ by " + std::to_string(error) + " where " + std::to_string(allowed) + " is allowed";
  }
  return "infinities differ";
}

std::string differ(const IValue& original, const IValue& fused, const IValue* reference) {
  if (original.tagKind() != fused.tagKind()) return "a " + fused.tagKind() + " instead of a " + original.tagKind();
  if (original.isTensor()) {
    const at::Tensor* wide = reference && reference->isTensor() ? &reference->toTensor() : nullptr;
    return tensors_differ(original.toTensor(), fused.toTensor(), wide);
  }
  const auto each = [&](c10::ArrayRef<IValue> a, c10::ArrayRef<IValue> b, const std::optional<c10::ArrayRef<IValue>>& r) -> std::string {
    if (a.size() != b.size()) return "different lengths";
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (auto why = differ(a[i], b[i], r && r->size() == a.size() ? &(*r)[i] : nullptr); !why.empty()) return "element " + std::to_string(i) + ": " + why;
    }
    return "";
  };
  if (original.isTuple()) {
    std::vector<IValue> a = original.toTupleRef().elements().vec(), b = fused.toTupleRef().elements().vec(), r;
    if (reference && reference->isTuple()) r = reference->toTupleRef().elements().vec();
    return each(a, b, r);
  }
  if (original.isList()) {
    const auto a = original.toListRef().vec(), b = fused.toListRef().vec();
    std::vector<IValue> r;
    if (reference && reference->isList()) r = reference->toListRef().vec();
    return each(a, b, r);
  }
  if (original.isGenericDict()) {
    const auto a = original.toGenericDict(), b = fused.toGenericDict();
    if (a.size() != b.size()) return "different keys";
    for (const auto& item : a) {
      auto found = b.find(item.key());
      if (found == b.end()) return "a key is missing";
      if (auto why = differ(item.value(), found->value(), nullptr); !why.empty()) return why;
    }
    return "";
  }
  if (original.isScalar() || original.isString() || original.isNone() || original.isBool()) return original == fused ? "" : "values differ";
  return "";
}

std::string outcomes_differ(const Outcome& original, const Outcome& fused, const Outcome* reference) {
  if (original.exception != fused.exception) return original.exception.empty() ? "an exception instead of a result" : fused.exception.empty() ? "a result instead of an exception" : "another exception type";
  if (!original.exception.empty()) return "";
  const bool wide = reference && reference->exception.empty();
  if (auto why = differ(original.output, fused.output, wide ? &reference->output : nullptr); !why.empty()) return "the result: " + why;
  for (std::size_t i = 0; i < original.inputs.size(); ++i) {
    if (auto why = differ(original.inputs[i], fused.inputs[i], nullptr); !why.empty()) return "input " + std::to_string(i) + " after the call: " + why;
  }
  return "";
}

Comparison compared(const torch::jit::Module& original, const torch::jit::Module& fused, const std::vector<IValue>& inputs, const at::Tensor& random_state) {
  const Outcome first = run(copy_whole(original), inputs, random_state);
  const Outcome again = run(copy_whole(original), inputs, random_state);
  if (auto why = outcomes_differ(first, again, nullptr); !why.empty()) return {Comparison::Outcome::unverifiable, "the original differs from itself: " + why};
  const Outcome ours = run(copy_whole(fused), inputs, random_state);
  constexpr auto kWide = Copier::Numbers::in_float64;
  const Outcome wide = run(copy_whole(original, Copier(nullptr, kWide)), cloned(inputs, kWide), random_state);
  if (auto why = outcomes_differ(first, ours, &wide); !why.empty()) return {Comparison::Outcome::different, why};
  if (!first.exception.empty()) return {Comparison::Outcome::equal, "the original raises on these inputs: " + first.what};
  return {};
}

}  // namespace

std::vector<IValue> cloned(const std::vector<IValue>& inputs, Copier::Numbers numbers) {
  Copier copier(nullptr, numbers);
  std::vector<IValue> copies;
  for (const auto& input : inputs) copies.push_back(copier.copy(input));
  return copies;
}

Comparison compare(const torch::jit::Module& original, const torch::jit::Module& fused, const std::vector<IValue>& inputs) {
  at::NoGradGuard no_grad;
  auto generator = at::detail::getDefaultCPUGenerator();
  const at::Tensor random_state = generator.get_state();
  struct Restore {
    at::Generator generator;
    at::Tensor state;
    ~Restore() { generator.set_state(state); }
  } restore{generator, random_state};
  try {
    return compared(original, fused, inputs, random_state);
  } catch (const std::exception& error) {
    const std::string what = error.what();
    return {Comparison::Outcome::unverifiable, "the results cannot be compared: " + what.substr(0, what.find('\n'))};
  }
}

}  // namespace fusible
