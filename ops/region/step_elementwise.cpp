// Elementwise operators between contractions: the chain's kernels on a copy, piece by piece in the first-level cache.

#include <algorithm>
#include <cstring>
#include <map>

#include <ATen/Parallel.h>

#include "ops/kernels/chain.h"
#include "ops/region/plan.h"

namespace fusible {
namespace {

using kernels::Chain;

class ElementwiseStep : public Step {
 public:
  ElementwiseStep(std::int64_t x, std::int64_t y, std::vector<std::int64_t> operands, Chain chain, kernels::View view, Form form)
      : x_(x), y_(y), operands_(std::move(operands)), chain_(std::move(chain)), view_(std::move(view)), form_(form) {}

  void run(Frame& frame) const override {
    std::vector<const float*> data;
    for (std::int64_t r : operands_) data.push_back(frame.read(r, form_));
    std::vector<kernels::Step> steps;
    chain_.bind(data.data(), steps);
    const std::int64_t channels = view_.channels(), rows = view_.rows();
    const float* const x = frame.read(x_, form_);
    float* const y = frame.write(y_);
    const std::int64_t piece = std::max<std::int64_t>(1, 2048 / channels), pieces = (rows + piece - 1) / piece;
    at::parallel_for(
        0, view_.images() * pieces, std::max<std::int64_t>(1, 16384 / (piece * channels)), [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t image = i / pieces, row = i % pieces * piece, count = std::min(piece, rows - row);
            const std::int64_t at = (image * rows + row) * channels;
            std::memcpy(y + at, x + at, count * channels * sizeof(float));
            kernels::isa().chain(y + at, channels, count, channels, steps.data(), static_cast<std::int32_t>(steps.size()), image, row);
          }
        });
  }

 private:
  std::int64_t x_, y_;
  std::vector<std::int64_t> operands_;
  Chain chain_;
  kernels::View view_;
  Form form_;
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
  if (seen.is_contiguous()) return Form::dense;
  return seen.dim() == 4 && seen.is_contiguous(at::MemoryFormat::ChannelsLast) ? std::optional(Form::nhwc) : std::nullopt;
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
  std::vector<std::int64_t> operands;
  std::vector<kernels::Operand> described;
  PostOp op{};
  if (instruction.op.name == "aten::batch_norm") {
    op.kind = PostOpKind::batch_norm;
    op.operands = 4;
    op.scalars.push_back(making.value(7).toScalar());
    for (size_t i = 1; i < 5; ++i) {
      if (making.is_register(i)) return nullptr;
      const at::Tensor* constant = making.value(i).isTensor() ? &making.value(i).toTensor() : nullptr;
      if (constant)
        described.push_back({constant->sizes(), constant->strides(), constant->scalar_type(), true, constant});
      else
        described.push_back({{}, {}, at::kFloat, false, nullptr});
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
      operands.push_back(instruction.arguments[1].registers[0]);
      if (making.slots[x].sizes != result.sizes() && making.slots[operands[0]].sizes == result.sizes()) {
        std::swap(x, operands[0]);
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
  std::vector<std::int64_t> strides;
  for (std::int64_t r : operands) {
    const auto& sizes = making.slots[r].sizes;
    // Read in the same form; of a smaller rank, nhwc has no meaning.
    if (*form == Form::nhwc && sizes.size() != 4) return nullptr;
    strides = strides_in(sizes, *form);
    described.push_back({sizes, strides, at::kFloat, true, nullptr});
  }
  auto chain = Chain::plan({op}, described, view);
  if (!chain) return nullptr;
  making.made_form = *form;
  return std::make_unique<ElementwiseStep>(x, instruction.result, std::move(operands), std::move(*chain), std::move(view), *form);
}

}  // namespace fusible
