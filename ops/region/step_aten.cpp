// Instructions that stay with ATen, and those that only rename memory.

#include <optional>

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "ops/region/plan.h"

namespace fusible {
namespace {

class AtenStep : public Step {
 public:
  // `like`: of each register, where the operator looks at its strides; undefined for all others.
  AtenStep(Instruction instruction, std::vector<at::Tensor> like) : instruction_(std::move(instruction)), like_(std::move(like)) {}

  void run(Frame& frame) const override {
    std::vector<at::Tensor> registers(like_.size());
    for (const Argument& argument : instruction_.arguments)
      for (std::int64_t r : argument.registers) registers[r] = lying_like(frame.narrow_tensor(r), like_[r]);
    if (instruction_.in_place()) {
      at::Tensor& x = registers[instruction_.arguments[0].registers[0]];
      x = x.clone();  // its memory is given to others when this step is done
    }
    at::Tensor result = call_boxed(instruction_, registers);
    // A view of the arena would outlive what it shows.
    for (const Argument& argument : instruction_.arguments)
      for (std::int64_t r : argument.registers)
        if (frame.slot(r).form != Form::tensor && result.defined() && result.storage().is_alias_of(registers[r].storage()))
          result = result.clone();
    frame.hold(instruction_.result, std::move(result));
  }

  bool has_own_threads() const override { return true; }
  const char* name() const override { return "ATen"; }

 private:
  static at::Tensor lying_like(const at::Tensor& t, const at::Tensor& like) {
    return !like.defined() || t.strides() == like.strides() ? t : at::empty_strided(t.sizes(), like.strides(), t.options()).copy_(t);
  }

  Instruction instruction_;
  std::vector<at::Tensor> like_;
};

// Whether the result may be the memory of the one register that the instruction reads.
bool may_alias(const Instruction& instruction) {
  const auto op = c10::Dispatcher::singleton().findSchema(instruction.op);
  if (!op || instruction.arguments.empty()) return false;
  const auto* alias = op->schema().returns()[0].alias_info();
  const bool one = std::all_of(instruction.arguments.begin() + 1, instruction.arguments.end(), [](const Argument& a) { return a.registers.empty(); });
  return alias && !alias->isWrite() && instruction.arguments[0].kind == Argument::Kind::one && one;
}

// The result on a tensor that lies as the register does, of which only the strides are looked at.
std::optional<at::Tensor> result_on_like(const Making& making, const at::Tensor& like) {
  std::vector<at::Tensor> registers(making.registers.size());
  registers[making.instruction.arguments[0].registers[0]] = like;
  at::Tensor result;
  try {
    result = call_boxed(making.instruction, registers);
  } catch (const std::exception&) {
    return std::nullopt;  // view, where the plan holds another order than the operators one by one
  }
  return result.storage().is_alias_of(like.storage()) ? std::optional(result) : std::nullopt;
}

}  // namespace

std::unique_ptr<Step> make_aten(Making& making) {
  making.made_form = Form::tensor;
  Instruction call = making.outside;
  // Of other strides than the operators one by one would give, which view may not take.
  if (call.op.name == "aten::view") call.op = {"aten::reshape", ""};
  if (call.op.name == "aten::view_as") call.op = {"aten::reshape_as", ""};
  std::vector<at::Tensor> like(making.registers.size());
  if (attention_looks_at_strides(call, making.registers)) {
    for (const Argument& argument : call.arguments)
      for (std::int64_t r : argument.registers) like[r] = at::empty_strided(making.registers[r].sizes(), making.registers[r].strides(), at::kMeta);
  }
  return std::make_unique<AtenStep>(std::move(call), std::move(like));
}

// view, select and their like. Where the order of the elements is that in memory, flatten and view see them as dense.
bool make_alias(const Making& making, Slot& slot) {
  if (!may_alias(making.instruction)) return false;
  const std::int64_t reg = making.instruction.arguments[0].registers[0];
  const Slot& source = making.slots[reg];
  if (source.form == Form::tensor) return false;
  if (making.instruction.op.name == "aten::contiguous") {  // how a register lies is the plan's own affair
    slot.alias_of = reg;
    slot.form = source.form;
    slot.strides = source.strides;
    return true;
  }
  const bool one_order = source.form == Form::nhwc && (source.sizes[1] == 1 || source.sizes[0] * source.sizes[1] == source.numel());
  const at::Tensor like = at::empty_strided(source.sizes, one_order ? strides_in(source.sizes, Form::dense) : source.strides_in_memory());
  const auto result = result_on_like(making, like);
  if (!result) return false;
  slot.alias_of = reg;
  slot.shift = result->storage_offset();
  slot.strides = result->strides().vec();
  slot.form = result->is_contiguous() ? Form::dense : Form::view;
  if (slot.form == Form::view && lies_in(*result, Form::nhwc)) slot.form = Form::nhwc;
  return true;
}

}  // namespace fusible
