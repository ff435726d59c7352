#include "tests/fuzz/session.h"

#include <cxxabi.h>

#include <ATen/CPUGeneratorImpl.h>

#include <torch/csrc/jit/runtime/jit_exception.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <typeinfo>

#include "tests/fuzz/random.h"

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

// A float tensor in another guise; one tensor under two names stays one tensor.
class Disguise {
 public:
  Disguise(As as, std::uint64_t seed) : as_(as), random_(seed) {}

  at::Tensor operator()(const at::Tensor& t) {
    if (as_ == As::given || !t.defined() || !t.is_floating_point()) return t;
    auto& changed = done_[t.unsafeGetTensorImpl()];
    if (!changed.defined()) changed = as_ == As::perturbed ? perturbed(t.detach()) : t.detach().to(as_ == As::float64 ? at::kDouble : at::kFloat);
    return changed;
  }

  void operator()(const torch::jit::Module& module) {
    for (const auto& inner : module.modules()) {
      for (std::size_t i = 0; i < inner.type()->numAttributes(); ++i) {
        const auto value = inner._ivalue()->getSlot(i);
        if (value.isTensor()) inner._ivalue()->setSlot(i, (*this)(value.toTensor()));
      }
    }
  }

 private:
  at::Tensor perturbed(const at::Tensor& t) {
    at::Tensor once = t;  // of an expanded tensor each element
    for (std::int64_t d = 0; d < t.dim(); ++d)
      if (t.stride(d) == 0 && t.size(d) > 1) once = once.narrow(d, 0, 1);
    if (!once.is_same(t)) return perturbed(once).expand(t.sizes());
    auto generator = at::make_generator<at::CPUGeneratorImpl>(random_.next());
    const double eps = t.scalar_type() == at::kDouble ? 2.3e-16 : t.scalar_type() == at::kFloat ? 1.2e-7 : t.scalar_type() == at::kHalf ? 1e-3 : 8e-3;
    const at::Tensor signs = at::randint(-1, 2, t.sizes(), generator, t.options().dtype(at::kDouble));
    at::Tensor changed = at::empty_like(t);
    if (!changed.strides().equals(t.strides())) changed = at::empty_strided(t.sizes(), t.strides(), t.options());
    return changed.copy_(t.to(at::kDouble) * (1 + eps * signs));
  }

  As as_;
  Random random_;
  std::map<const void*, at::Tensor> done_;
};

// Float tensors in bfloat16, whatever holds them.
IValue narrowed(const IValue& value) {
  if (value.isTensor()) return value.toTensor().scalar_type() == at::kFloat ? value.toTensor().to(at::kBFloat16) : value;
  if (value.isTuple()) {
    std::vector<IValue> elements;
    for (const IValue& element : value.toTupleRef().elements()) elements.push_back(narrowed(element));
    return c10::ivalue::Tuple::create(std::move(elements));
  }
  if (value.isList()) {
    c10::impl::GenericList list(value.toList().elementType());
    for (const IValue& element : value.toListRef()) list.push_back(narrowed(element));
    return list;
  }
  if (!value.isGenericDict()) return value;
  const auto dict = value.toGenericDict();
  c10::impl::GenericDict all(dict.keyType(), dict.valueType());
  for (const auto& item : dict) all.insert(item.key(), narrowed(item.value()));
  return all;
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

using Others = std::vector<const IValue*>;  // what the references of a Tolerance gave in the same place, null where they gave nothing alike

// How far each element moves when inputs and weights are off by one rounding: what its condition makes of any rounding.
at::Tensor spread(const at::Tensor& a, const Others& others) {
  at::Tensor widest = at::zeros_like(a);
  for (std::size_t i = 1; i < others.size(); ++i) {
    if (!others[i] || !others[i]->isTensor() || others[i]->toTensor().sizes() != a.sizes()) continue;
    const at::Tensor b = others[i]->toTensor().detach().to(at::kDouble);
    const at::Tensor distance = at::where((a == b).logical_or(a.isnan().logical_and(b.isnan())), at::zeros_like(a), (a - b).abs());
    widest = at::maximum(widest, at::nan_to_num(distance, INFINITY, INFINITY));
  }
  return widest;
}

// Everywhere but where one rounding decides between a number and NaN or infinity.
std::string values_differ(const at::Tensor& expected, const at::Tensor& found, double eps, const Others& others) {
  const at::Tensor a = expected.detach().to(at::kDouble), b = found.detach().to(at::kDouble);
  const at::Tensor moved = spread(a, others);
  const auto* wide = others.empty() || !others[0] || !others[0]->isTensor() ? nullptr : &others[0]->toTensor();
  if (wide && wide->sizes() != a.sizes()) wide = nullptr;
  // oneDNN's bfloat16 convolutions spread a NaN over neighbours for some numbers of channels: then the original's own NaNs say nothing.
  const bool faithful = eps < 2e-3 || !wide || wide->isnan().equal(a.isnan());
  const at::Tensor compared = (moved == 0).logical_or(a.isfinite().logical_and(moved <= 0.05 * a.abs()));
  if (faithful && a.isnan().ne(b.isnan()).logical_and(compared).any().item<bool>()) return "NaN in other places";
  const at::Tensor infinite = a.isinf().logical_or(b.isinf()).logical_and(compared).logical_and(a.isnan().eq(b.isnan()));
  if (infinite.logical_and(a != b).any().item<bool>()) return "infinities in other places";
  const at::Tensor zero = at::zeros({}, a.options());
  const at::Tensor finite = a.isfinite().logical_and(b.isfinite());
  const at::Tensor a0 = at::where(finite, a, zero), b0 = at::where(finite, b, zero);
  const double scale = max_abs(a0);
  // float64 is its own reference: rounding errors of a badly conditioned model are larger than a few eps.
  const bool low = eps > 1e-6;
  double allowed = scale * (low ? 16 * eps : eps > 1e-10 ? 1e-4 : 1e-9);
  at::Tensor error = (a0 - b0).abs();
  if (wide && eps > 1e-10) {
    const at::Tensor r = wide->detach().to(at::kDouble);
    const at::Tensor both = finite.logical_and(r.isfinite()), r0 = at::where(both, r, zero);
    error = (at::where(both, b, zero) - r0).abs();
    allowed = (low ? 8 : 64) * max_abs(at::where(both, a, zero) - r0) + (low ? 4 : 64) * eps * scale;
  }
  const at::Tensor excess = error - 8 * moved;
  if (!excess.numel() || excess.max().item<double>() <= allowed) return "";
  return "values differ by " + number(max_abs(error)) + ", allowed " + number(allowed) + ", max " + number(scale);
}

std::string tensors_differ(const at::Tensor& a, const at::Tensor& b, const Tolerance& tolerance, const Others& others) {
  if (a.defined() != b.defined()) return "one tensor is undefined";
  if (!a.defined()) return "";
  if (a.scalar_type() != b.scalar_type()) return std::string("dtype ") + c10::toString(b.scalar_type()) + " instead of " + c10::toString(a.scalar_type());
  if (a.sizes() != b.sizes()) return "another shape";
  for (std::int64_t d = 0; d < a.dim() && a.numel() > 0; ++d) {
    if (a.size(d) > 1 && a.stride(d) != b.stride(d)) return "stride of dimension " + std::to_string(d) + " is " + std::to_string(b.stride(d)) + " instead of " + std::to_string(a.stride(d));
  }
  if (a.requires_grad() != b.requires_grad()) return "requires_grad differs";
  if (!a.is_floating_point()) return a.equal(b) ? "" : "values differ";
  if (!tolerance.bits) return values_differ(a, b, tolerance.epsilon, others);
  return at::where(a.isnan(), b.isnan(), a == b).all().item<bool>() ? "" : "other bits";
}

// Element `i` of each reference that is of the same kind and length.
std::vector<IValue> elements(const IValue& value) {
  return value.isTuple() ? value.toTupleRef().elements().vec() : value.isList() ? value.toListRef().vec() : std::vector<IValue>();
}

std::string values_differ(const IValue& a, const IValue& b, const Tolerance& tolerance, const Others& others) {
  if (a.tagKind() != b.tagKind()) return "a " + b.tagKind() + " instead of a " + a.tagKind();
  if (a.isTensor()) return tensors_differ(a.toTensor(), b.toTensor(), tolerance, others);
  if (a.isTuple() || a.isList()) {
    const auto x = elements(a), y = elements(b);
    if (x.size() != y.size()) return "another length";
    std::vector<std::vector<IValue>> held;
    for (const auto* other : others) held.push_back(other ? elements(*other) : std::vector<IValue>());
    for (std::size_t i = 0; i < x.size(); ++i) {
      Others inner;
      for (const auto& list : held) inner.push_back(list.size() == x.size() ? &list[i] : nullptr);
      if (auto why = values_differ(x[i], y[i], tolerance, inner); !why.empty()) return "element " + std::to_string(i) + ": " + why;
    }
    return "";
  }
  if (a.isGenericDict()) {
    const auto x = a.toGenericDict(), y = b.toGenericDict();
    if (x.size() != y.size()) return "other keys";
    for (const auto& item : x) {
      if (!y.contains(item.key())) return "a key is missing";
      std::vector<IValue> held;
      for (const auto* other : others) held.push_back(other && other->isGenericDict() && other->toGenericDict().contains(item.key()) ? other->toGenericDict().at(item.key()) : IValue());
      Others inner;
      for (const auto& value : held) inner.push_back(&value);
      if (auto why = values_differ(item.value(), y.at(item.key()), tolerance, inner); !why.empty()) return why;
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

Session run(torch::jit::Module module, const Program& program, As as, std::uint64_t seed) {
  at::NoGradGuard no_grad;
  Disguise(as, seed)(module);
  Session session;
  for (std::size_t i = 0; i < program.calls.size(); ++i) {
    for (int repeat = 0; repeat < (i == 0 ? 3 : 1); ++repeat) {
      auto inputs = inputs_of(program.calls[i]);
      Disguise disguised(as, seed + i);
      for (auto& input : inputs) input = disguised(input.toTensor());
      session.push_back(called([&](std::vector<IValue>& given) { return module.forward(given); }, std::move(inputs)));
    }
  }
  if (module.find_method("state")) session.push_back(called([&](std::vector<IValue>&) { return module.run_method("state"); }, {}));
  if (as != As::float32) return session;
  for (Outcome& outcome : session) {
    outcome.output = narrowed(outcome.output);
    for (IValue& input : outcome.inputs) input = narrowed(input);
  }
  return session;
}

std::string differ(const Session& expected, const Session& found, const Tolerance& tolerance) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Outcome &a = expected[i], &b = found.at(i);
    const std::string at_call = "call " + std::to_string(i) + ": ";
    // Input without a batch dimension: a traced _convolution refuses it, the module that it was traced from accepts it. Empty input of
    // another dtype than the bias: the other way round. Either is right.
    if (a.message.find("-dimensional weight") != std::string::npos && a.message.find("but got") != std::string::npos) return "";
    if (b.message.find(") and bias type (") != std::string::npos) return "";
    if (a.exception != b.exception && a.exception.empty()) return at_call + "raises " + b.exception + " where the original returns: " + b.message;
    if (a.exception != b.exception && b.exception.empty()) return at_call + "returns where the original raises " + a.exception + ": " + a.message;
    if (a.exception != b.exception) return kAnotherException;
    std::vector<const Outcome*> alike;
    for (const auto& reference : tolerance.references) alike.push_back(reference.at(i).exception == a.exception ? &reference[i] : nullptr);
    const auto others = [&](const auto& part) {
      Others all;
      for (const auto* outcome : alike) all.push_back(outcome ? part(*outcome) : nullptr);
      return all;
    };
    if (a.exception.empty()) {
      if (auto why = values_differ(a.output, b.output, tolerance, others([](const Outcome& o) { return &o.output; })); !why.empty()) return at_call + "result: " + why;
    }
    for (std::size_t k = 0; k < a.inputs.size(); ++k) {
      if (auto why = values_differ(a.inputs[k], b.inputs[k], tolerance, others([&](const Outcome& o) { return &o.inputs[k]; })); !why.empty())
        return at_call + "input " + std::to_string(k) + " afterwards: " + why;
    }
  }
  return "";
}

}  // namespace fuzz
