// Elementwise operators between contractions: the chain's kernels on a copy, piece by piece in the first-level cache.

#include <algorithm>
#include <cstring>
#include <map>

#include "ops/kernels/chain.h"
#include "ops/kernels/team.h"
#include "ops/region/plan.h"

namespace fusible {
namespace {

using kernels::Chain;

// One operator: its operands in registers, or constants (undefined: not given).
struct Part {
  PostOp op{};
  std::vector<std::int64_t> registers;
  std::vector<at::Tensor> constants;
};

// Operands are read in the form of the result. Nothing: the kernels do not take them.
std::optional<Chain> planned(const std::vector<Part>& parts, const std::vector<Slot>& slots, Form form, const kernels::View& view) {
  PostOps ops;
  std::vector<kernels::Operand> described;
  std::vector<std::vector<std::int64_t>> strides;
  strides.reserve(parts.size());
  for (const Part& part : parts) {
    ops.push_back(part.op);
    for (std::int64_t r : part.registers) {
      if (form == Form::nhwc && slots[r].sizes.size() != view.sizes.size()) return std::nullopt;  // its dimension 1 is no channels
      strides.push_back(strides_in(slots[r].sizes, form));
      described.push_back({slots[r].sizes, strides.back(), at::kFloat, true, nullptr});
    }
    for (const at::Tensor& t : part.constants)
      described.push_back(t.defined() ? kernels::Operand{t.sizes(), t.strides(), t.scalar_type(), true, &t} : kernels::Operand{{}, {}, at::kFloat, false, nullptr});
  }
  return Chain::plan(ops, described, view);
}

class ElementwiseStep : public Step {
 public:
  ElementwiseStep(std::int64_t x, std::int64_t y, std::vector<Part> parts, Chain chain, kernels::View view, Form form)
      : x(x), parts(std::move(parts)), form(form), view(std::move(view)), y_(y), chain_(std::move(chain)) {}

  void run(Frame& frame) const override {
    std::vector<const float*> data;
    for (const Part& part : parts) {
      for (std::int64_t r : part.registers) data.push_back(frame.read(r, form));
      data.resize(data.size() + part.constants.size());
    }
    std::vector<kernels::Step> steps;
    chain_.bind(data.data(), steps);
    const std::int64_t channels = view.channels(), rows = view.rows();
    std::int64_t stride = channels;
    const float* const from = form == Form::nhwc ? frame.read_pixels(x, stride) : frame.read(x, form);
    float* const y = frame.write(y_);
    const std::int64_t piece = std::max<std::int64_t>(1, 2048 / channels), pieces = (rows + piece - 1) / piece;
    kernels::for_each_range(view.images() * pieces, std::max<std::int64_t>(1, 16384 / (piece * channels)), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t image = i / pieces, row = i % pieces * piece, count = std::min(piece, rows - row);
        float* const to = y + (image * rows + row) * channels;
        const float* const first = from + (image * rows + row) * stride;
        const std::int64_t runs = stride == channels ? 1 : count, length = count * channels / runs;
        for (std::int64_t r = 0; r < runs; ++r) std::memcpy(to + r * length, first + r * stride, length * sizeof(float));
        kernels::isa().chain(to, channels, count, channels, steps.data(), static_cast<std::int32_t>(steps.size()), image, row);
      }
    });
  }

  const std::int64_t x;
  const std::vector<Part> parts;
  const Form form;
  const kernels::View view;

 private:
  std::int64_t y_;
  Chain chain_;
};

const std::map<std::string, PostOpKind>& activations() {
  static const std::map<std::string, PostOpKind> kinds = {{"aten::relu", PostOpKind::relu},
                                                          {"aten::relu6", PostOpKind::relu6},
                                                          {"aten::hardtanh", PostOpKind::hardtanh},
                                                          {"aten::clamp", PostOpKind::clamp},
                                                          {"aten::leaky_relu", PostOpKind::leaky_relu},
                                                          {"aten::sigmoid", PostOpKind::sigmoid},
                                                          {"aten::tanh", PostOpKind::tanh},
                                                          {"aten::silu", PostOpKind::silu},
                                                          {"aten::hardswish", PostOpKind::hardswish},
                                                          {"aten::hardsigmoid", PostOpKind::hardsigmoid},
                                                          {"aten::elu", PostOpKind::elu},
                                                          {"aten::mish", PostOpKind::mish},
                                                          {"aten::softplus", PostOpKind::softplus},
                                                          {"aten::gelu", PostOpKind::gelu}};
  return kinds;
}

// relu_ is relu: a plan gives every result memory of its own.
std::optional<PostOpKind> activation_of(const std::string& op) {
  const auto found = activations().find(op.back() == '_' ? op.substr(0, op.size() - 1) : op);
  return found == activations().end() ? std::nullopt : std::optional(found->second);
}

const std::map<std::string, PostOpKind>& binaries() {
  static const std::map<std::string, PostOpKind> kinds = {
      {"aten::add", PostOpKind::add}, {"aten::sub", PostOpKind::sub}, {"aten::mul", PostOpKind::mul}, {"aten::div", PostOpKind::div}};
  return kinds;
}

bool is_one(const Instruction& instruction, size_t argument) {
  if (argument >= instruction.arguments.size()) return true;
  const c10::IValue& alpha = instruction.arguments[argument].value;
  return alpha.isScalar() && alpha.toScalar().equal(1);
}

// The form in which the result is made: that of the value that is read whole.
std::optional<Form> form_of(const Making& making, std::int64_t reg) {
  const Slot& slot = making.slots[reg];
  if (slot.form == Form::view) return std::nullopt;
  if (slot.form != Form::tensor) return slot.form;
  const at::Tensor& seen = making.registers[reg];
  for (const Form form : {Form::dense, Form::nhwc})
    if (lies_in(seen, form)) return form;
  return std::nullopt;
}

}  // namespace

bool is_activation(const std::string& op) { return activation_of(op).has_value(); }

bool is_arithmetic(const std::string& op) { return binaries().count(op) != 0; }

std::unique_ptr<Step> make_elementwise(Making& making) {
  const Instruction& instruction = making.instruction;
  if (instruction.arguments.empty() || !making.is_register(0)) return nullptr;
  const at::Tensor& result = making.registers[instruction.result];
  if (result.dim() == 0) return nullptr;
  std::int64_t x = instruction.arguments[0].registers[0];
  Part part;
  PostOp& op = part.op;
  if (instruction.op.name == "aten::batch_norm") {
    op.kind = PostOpKind::batch_norm;
    op.operands = 4;
    op.scalars.push_back(making.value(7).toScalar());
    for (size_t i = 1; i < 5; ++i) {
      if (making.is_register(i)) return nullptr;
      part.constants.push_back(making.value(i).isTensor() ? making.value(i).toTensor() : at::Tensor());
    }
  } else if (const auto activation = activation_of(instruction.op.name)) {
    op.kind = *activation;
    for (size_t i = 1; i < instruction.arguments.size(); ++i) {
      const c10::IValue& value = making.value(i);
      if (value.isString())
        op.gelu = value.toStringRef() == "tanh" ? Gelu::tanh : Gelu::none;
      else if (value.isNone())
        op.scalars.push_back(std::nullopt);
      else if (value.isScalar())
        op.scalars.push_back(value.toScalar());
      else
        return nullptr;
    }
  } else if (const auto binary = binaries().find(instruction.op.name); binary != binaries().end()) {
    op.kind = binary->second;
    if (op.kind <= PostOpKind::sub && !is_one(instruction, 2)) return nullptr;
    if (making.is_register(1)) {
      op.operands = 1;
      part.registers.push_back(instruction.arguments[1].registers[0]);
      if (making.slots[x].sizes != result.sizes() && making.slots[part.registers[0]].sizes == result.sizes()) {
        std::swap(x, part.registers[0]);
        op.reversed = true;
      }
    } else if (making.value(1).isScalar()) {
      op.scalars.push_back(making.value(1).toScalar());
    } else {
      return nullptr;
    }
  } else {
    return nullptr;
  }
  const auto form = form_of(making, x);
  if (!form || making.slots[x].sizes != result.sizes()) return nullptr;
  kernels::View view{result.sizes().vec(), *form == Form::nhwc ? 1 : result.dim() - 1};
  std::vector<Part> parts{std::move(part)};
  auto chain = planned(parts, making.slots, *form, view);
  if (!chain) return nullptr;
  making.made_form = *form;
  return std::make_unique<ElementwiseStep>(x, instruction.result, std::move(parts), std::move(*chain), std::move(view), *form);
}

void join_elementwise(std::int64_t inputs, const std::vector<std::int64_t>& reads, const std::vector<Slot>& slots, std::vector<std::unique_ptr<Step>>& steps,
                      std::vector<std::int64_t>& runs_at) {
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto* const last = dynamic_cast<ElementwiseStep*>(steps[i].get());
    if (!last || last->x < inputs || reads[last->x] != 1) continue;
    const auto before = static_cast<size_t>(last->x - inputs);
    const auto* const first = dynamic_cast<ElementwiseStep*>(steps[before].get());
    if (!first || first->form != last->form) continue;
    std::vector<Part> parts = first->parts;
    parts.insert(parts.end(), last->parts.begin(), last->parts.end());
    auto chain = planned(parts, slots, last->form, last->view);
    if (!chain) continue;
    steps[i] = std::make_unique<ElementwiseStep>(first->x, inputs + static_cast<std::int64_t>(i), std::move(parts), std::move(*chain), last->view, last->form);
    steps[before].reset();
    std::replace(runs_at.begin(), runs_at.end(), static_cast<std::int64_t>(before), static_cast<std::int64_t>(i));
  }
}

}  // namespace fusible
