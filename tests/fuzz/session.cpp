#include "tests/fuzz/session.h"

#include <cxxabi.h>

#include <torch/csrc/jit/runtime/jit_exception.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <typeinfo>

namespace fuzz {

namespace {

using c10::IValue;

std::string type_of(const std::exception& error) {
  int status = 0;
  char* name = abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status);
  std::string text = status == 0 ? name : typeid(error).name();
  std::free(name);
  if (const auto* jit = dynamic_cast<const torch::jit::JITException*>(&error)) text += " " + jit->getPythonClassName().value_or("");
  return text;
}

// One tensor under two names stays one tensor.
class Widener {
 public:
  at::Tensor operator()(const at::Tensor& t) {
    if (!t.defined() || !t.is_floating_point()) return t;
    auto& wide = done_[t.unsafeGetTensorImpl()];
    if (!wide.defined()) wide = t.detach().to(at::kDouble);
    return wide;
  }

 private:
  std::map<const void*, at::Tensor> done_;
};

void widen(const torch::jit::Module& module) {
  Widener widened;
  for (const auto& inner : module.modules()) {
    for (std::size_t i = 0; i < inner.type()->numAttributes(); ++i) {
      const auto value = inner._ivalue()->getSlot(i);
      if (value.isTensor()) inner._ivalue()->setSlot(i, widened(value.toTensor()));
    }
  }
}

// Outputs may share memory with attributes that later calls write.
IValue snapshot(const IValue& value) { return value.deepcopy(); }

Outcome called(const std::function<IValue(std::vector<IValue>&)>& call, std::vector<IValue> inputs) {
  Outcome outcome;
  outcome.inputs = std::move(inputs);
  try {
    outcome.output = snapshot(call(outcome.inputs));
  } catch (const std::exception& error) {
    outcome.exception = type_of(error);
    outcome.message = error.what();
  }
  return outcome;
}

double max_abs(const at::Tensor& t) { return t.numel() ? t.abs().max().item<double>() : 0; }

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

std::string values_differ(const at::Tensor& expected, const at::Tensor& found, double eps, const at::Tensor* reference) {
  const at::Tensor a = expected.detach().to(at::kDouble), b = found.detach().to(at::kDouble);
  if (!a.isnan().equal(b.isnan())) return "NaN in other places";
  const at::Tensor finite = a.isfinite();
  if (!finite.equal(b.isfinite()) || !at::where(a.isinf(), a == b, at::ones_like(finite)).all().item<bool>()) return "infinities in other places";
  const at::Tensor zero = at::zeros({}, a.options());
  const at::Tensor a0 = at::where(finite, a, zero), b0 = at::where(finite, b, zero);
  const double scale = max_abs(a0);
  // float64 is its own reference: rounding errors of a badly conditioned model are larger than a few eps.
  const bool low = eps > 1e-6;
  double error = max_abs(a0 - b0), allowed = scale * (low ? 16 * eps : eps > 1e-10 ? 1e-4 : 1e-9);
  if (reference && reference->defined() && eps > 1e-10 && reference->sizes() == a.sizes()) {
    const at::Tensor r = reference->detach().to(at::kDouble);
    const at::Tensor both = finite & r.isfinite();
    const at::Tensor r0 = at::where(both, r, zero);
    error = max_abs(at::where(both, b, zero) - r0);
    allowed = (low ? 8 : 64) * max_abs(at::where(both, a, zero) - r0) + (low ? 4 : 64) * eps * scale;
  }
  return error <= allowed ? "" : "values differ by " + number(error) + ", allowed " + number(allowed) + ", max " + number(scale);
}

std::string tensors_differ(const at::Tensor& a, const at::Tensor& b, const Tolerance& tolerance, const at::Tensor* reference) {
  if (a.defined() != b.defined()) return "one tensor is undefined";
  if (!a.defined()) return "";
  if (a.scalar_type() != b.scalar_type()) return std::string("dtype ") + c10::toString(b.scalar_type()) + " instead of " + c10::toString(a.scalar_type());
  if (a.sizes() != b.sizes()) return "another shape";
  for (std::int64_t d = 0; d < a.dim() && a.numel() > 0; ++d) {
    if (a.size(d) > 1 && a.stride(d) != b.stride(d)) return "stride of dimension " + std::to_string(d) + " is " + std::to_string(b.stride(d)) + " instead of " + std::to_string(a.stride(d));
  }
  if (a.requires_grad() != b.requires_grad()) return "requires_grad differs";
  if (!a.is_floating_point()) return a.equal(b) ? "" : "values differ";
  if (!tolerance.bits) return values_differ(a, b, tolerance.epsilon, reference);
  return at::where(a.isnan(), b.isnan(), a == b).all().item<bool>() ? "" : "other bits";
}

std::string values_differ(const IValue& a, const IValue& b, const Tolerance& tolerance, const IValue* reference) {
  if (a.tagKind() != b.tagKind()) return "a " + b.tagKind() + " instead of a " + a.tagKind();
  if (a.isTensor()) return tensors_differ(a.toTensor(), b.toTensor(), tolerance, reference && reference->isTensor() ? &reference->toTensor() : nullptr);
  const auto each = [&](c10::ArrayRef<IValue> x, c10::ArrayRef<IValue> y, c10::ArrayRef<IValue> r) -> std::string {
    if (x.size() != y.size()) return "another length";
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (auto why = values_differ(x[i], y[i], tolerance, r.size() == x.size() ? &r[i] : nullptr); !why.empty()) return "element " + std::to_string(i) + ": " + why;
    }
    return "";
  };
  if (a.isTuple()) {
    const auto r = reference && reference->isTuple() ? reference->toTupleRef().elements().vec() : std::vector<IValue>();
    return each(a.toTupleRef().elements().vec(), b.toTupleRef().elements().vec(), r);
  }
  if (a.isList()) {
    const auto r = reference && reference->isList() ? reference->toListRef().vec() : std::vector<IValue>();
    return each(a.toListRef().vec(), b.toListRef().vec(), r);
  }
  if (a.isGenericDict()) {
    const auto x = a.toGenericDict(), y = b.toGenericDict();
    if (x.size() != y.size()) return "other keys";
    for (const auto& item : x) {
      const auto found = y.find(item.key());
      if (found == y.end()) return "a key is missing";
      const IValue* wide = nullptr;
      IValue held;
      if (reference && reference->isGenericDict()) {
        const auto r = reference->toGenericDict();
        if (const auto it = r.find(item.key()); it != r.end()) held = it->value(), wide = &held;
      }
      if (auto why = values_differ(item.value(), found->value(), tolerance, wide); !why.empty()) return why;
    }
    return "";
  }
  return a == b ? "" : "values differ";
}

}  // namespace

double epsilon_of(const Program& program) {
  double eps = 2.3e-16;
  const auto take = [&](const TensorSpec& t) {
    eps = std::max(eps, t.dtype == "float32" ? 1.2e-7 : t.dtype == "float16" ? 1e-3 : t.dtype == "bfloat16" ? 8e-3 : 0);
  };
  for (const auto& a : program.attributes) take(a.tensor);
  for (const auto& call : program.calls) {
    for (const auto& input : call) take(input);
  }
  return eps;
}

Session run(torch::jit::Module module, const Program& program, bool in_float64) {
  at::NoGradGuard no_grad;
  if (in_float64) widen(module);
  Session session;
  for (std::size_t i = 0; i < program.calls.size(); ++i) {
    for (int repeat = 0; repeat < (i == 0 ? 3 : 1); ++repeat) {
      auto inputs = inputs_of(program.calls[i]);
      if (in_float64) {
        Widener widened;
        for (auto& input : inputs) input = widened(input.toTensor());
      }
      session.push_back(called([&](std::vector<IValue>& given) { return module.forward(given); }, std::move(inputs)));
    }
  }
  if (module.find_method("state")) session.push_back(called([&](std::vector<IValue>&) { return module.run_method("state"); }, {}));
  return session;
}

std::string differ(const Session& expected, const Session& found, const Tolerance& tolerance) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Outcome &a = expected[i], &b = found.at(i);
    const Outcome* r = tolerance.reference ? &tolerance.reference->at(i) : nullptr;
    const std::string at_call = "call " + std::to_string(i) + ": ";
    // Input without a batch dimension: a traced _convolution refuses it, the module that it was traced from accepts it. Empty input of
    // another dtype than the bias: the other way round. Either is right.
    if (a.message.find("-dimensional weight") != std::string::npos && a.message.find("but got") != std::string::npos) return "";
    if (b.message.find(") and bias type (") != std::string::npos) return "";
    if (a.exception != b.exception)
      return at_call + (a.exception.empty() ? "raises " + b.exception + " where the original returns: " + b.message
                                            : b.exception.empty() ? "returns where the original raises " + a.exception + ": " + a.message
                                                                  : "raises " + b.exception + " instead of " + a.exception);
    const bool wide = r && r->exception == a.exception;
    if (a.exception.empty()) {
      if (auto why = values_differ(a.output, b.output, tolerance, wide ? &r->output : nullptr); !why.empty()) return at_call + "result: " + why;
    }
    for (std::size_t k = 0; k < a.inputs.size(); ++k) {
      if (auto why = values_differ(a.inputs[k], b.inputs[k], tolerance, wide ? &r->inputs[k] : nullptr); !why.empty())
        return at_call + "input " + std::to_string(k) + " afterwards: " + why;
    }
  }
  return "";
}

}  // namespace fuzz
