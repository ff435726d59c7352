// Instructions that stay with ATen, and those that only rename memory.

#include <ATen/ATen.h>

#include "ops/region/plan.h"

namespace fusible {
namespace {

class AtenStep : public Step {
 public:
  explicit AtenStep(const Instruction& instruction, size_t registers) : instruction_(instruction), registers_(registers) {}

  void run(Frame& frame) const override {
    std::vector<at::Tensor> registers(registers_);
    for (const Argument& argument : instruction_.arguments)
      for (std::int64_t r : argument.registers) registers[r] = frame.tensor(r);
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

  const char* name() const override { return "ATen"; }

 private:
  const Instruction& instruction_;
  size_t registers_;
};

bool renames(const std::string& name) {
  return name == "aten::flatten" || name == "aten::reshape" || name == "aten::view" || name == "aten::unsqueeze" || name == "aten::squeeze";
}

}  // namespace

std::unique_ptr<Step> make_aten(Making& making) {
  making.made_form = Form::tensor;
  return std::make_unique<AtenStep>(making.instruction, making.registers.size());
}

// flatten, view and their like keep the order of the elements: the same memory where that order is the order in memory.
std::int64_t alias_source(const Making& making) {
  if (!renames(making.instruction.op.name) || !making.is_register(0)) return -1;
  const Slot& source = making.slot(0);
  const bool one_order = source.form == Form::nhwc && (source.sizes[1] == 1 || source.sizes[2] * source.sizes[3] == 1);
  return source.form == Form::dense || one_order ? making.instruction.arguments[0].registers[0] : -1;
}

}  // namespace fusible
