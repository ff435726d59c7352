#pragma once

// A run of operators as one: a list of instructions over registers, and plans that execute it without dispatcher or allocation.
// The list is the meaning: executed one by one through the dispatcher it gives what the original graph gives. A plan is made per signature
// of inputs (dtypes, sizes, strides) and gives the same within rounding, with the same strides.

#include <limits>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/operator_name.h>
#include <torch/custom_class.h>

#include "fusible/export.h"
#include "ops/packed.h"

namespace fusible {

// A register, registers that form a Tensor[], an int[] of which registers hold some entries, or a constant: number, bool, string, list of
// integers or of numbers, None, Tensor or fusible.Contraction.
struct Argument {
  enum class Kind { constant, one, list, integers };
  static constexpr std::int64_t kHeld = std::numeric_limits<std::int64_t>::min();  // an entry that the next of `registers` holds
  Kind kind = Kind::constant;
  std::vector<std::int64_t> registers;
  c10::IValue value;

  static Argument reg(std::int64_t r) { return {Kind::one, {r}, {}}; }
  static Argument regs(std::vector<std::int64_t> r) { return {Kind::list, std::move(r), {}}; }
  static Argument integers(std::vector<std::int64_t> entries, std::vector<std::int64_t> r) { return {Kind::integers, std::move(r), std::move(entries)}; }
  static Argument constant(c10::IValue v) { return {Kind::constant, {}, std::move(v)}; }
};

// registers[result] = op(arguments), arguments in the order of the schema, all of them.
struct Instruction {
  c10::OperatorName op{"", ""};
  std::vector<Argument> arguments;
  std::int64_t result = 0;

  // relu_ and its like: the first argument is a register that no other instruction reads, and becomes the result.
  bool in_place() const { return op.name.back() == '_'; }
};

class Plan;

// An instruction without integer registers, through the dispatcher; an integer result as integer_tensor() (integers.h) gives it.
at::Tensor call_boxed(const Instruction& instruction, const std::vector<at::Tensor>& registers);

class FUSIBLE_API Region : public torch::CustomClassHolder {
 public:
  class Builder;

  // (version, number of inputs, instructions as text, output registers, weights, tensor constants)
  using State = std::tuple<std::int64_t, std::int64_t, std::vector<std::string>, std::vector<std::int64_t>,
                           std::vector<c10::intrusive_ptr<PackedContraction>>, std::vector<at::Tensor>>;
  static constexpr std::int64_t kVersion = 3;  // 2: integers in registers; 3: lists of numbers; those before are read, too

  // Throws c10::Error when the parts do not fit: a register read before it is written, an operator that regions do not take.
  Region(std::int64_t inputs, std::vector<Instruction> instructions, std::vector<std::int64_t> outputs);
  static c10::intrusive_ptr<Region> load(const State& state);
  State save() const;
  ~Region() override;

  // Whether regions take this operator: one Tensor or integer result, same result for same arguments, pure or in place on a register of its
  // own.
  // `constants`: one entry per argument, null for a register.
  static bool takes(const c10::OperatorName& op);
  static bool takes(const c10::OperatorName& op, const std::vector<const c10::IValue*>& constants);

  // Errors and values are those of the instructions one by one. Thread-safe.
  std::vector<at::Tensor> run(at::TensorList inputs) const;
  // `seen`, where given, receives what every register held, without its values: Meta tensors of the same dtype, sizes and strides; inputs and
  // outputs as they are.
  std::vector<at::Tensor> interpret(at::TensorList inputs, std::vector<at::Tensor>* seen = nullptr) const;

  std::int64_t inputs() const { return inputs_; }
  // Whether a register holds an integer, see integers.h.
  bool is_integer(std::int64_t reg) const { return integers_[reg]; }
  // The instruction without integer registers, for what `registers` hold.
  Instruction settled(const Instruction& instruction, const std::vector<at::Tensor>& registers) const;
  // Of one instruction, by the operator.
  at::Tensor result_of(const Instruction& instruction, const std::vector<at::Tensor>& registers) const;
  std::int64_t registers() const { return inputs_ + static_cast<std::int64_t>(instructions_.size()); }
  const std::vector<Instruction>& instructions() const { return instructions_; }
  const std::vector<std::int64_t>& outputs() const { return outputs_; }
  // How each instruction runs for these inputs: "loop nest", "same memory" or "ATen"; nothing when they are executed one by one.
  std::vector<std::string> explain(at::TensorList inputs) const;
  // Of all instructions, each once.
  std::vector<c10::intrusive_ptr<PackedContraction>> contractions() const { return std::get<4>(save()); }
  // Plans are made anew: choices of its contractions have changed.
  void forget_plans();
  // One instruction per line, as save() writes them.
  std::string print() const;

 private:
  struct Cached {
    std::vector<std::int64_t> signature;
    std::shared_ptr<const Plan> plan;  // null: this signature is interpreted
  };
  static constexpr size_t kMostPlans = 8;
  void find_integers();
  bool reads_integers(const Instruction& instruction) const;
  void check_owner(const Instruction& instruction) const;
  bool may_plan(at::TensorList inputs) const;
  std::shared_ptr<const Plan> plan_for(at::TensorList inputs) const;

  std::int64_t inputs_;
  std::vector<Instruction> instructions_;
  std::vector<std::int64_t> outputs_, last_use_;
  std::vector<bool> integers_;
  mutable std::mutex mutex_;
  mutable std::list<Cached> plans_;  // most recently used first
};

class FUSIBLE_API Region::Builder {
 public:
  std::int64_t input();
  // The register of the result. All inputs come before the first call. Throws c10::Error when takes(op) is false.
  std::int64_t call(const c10::OperatorName& op, std::vector<Argument> arguments);
  void output(std::int64_t reg) { outputs_.push_back(reg); }
  c10::intrusive_ptr<Region> finish();

 private:
  std::int64_t inputs_ = 0;
  std::vector<Instruction> instructions_;
  std::vector<std::int64_t> outputs_;
};

// Registers torch.classes.fusible.Region. Idempotent.
void register_region_class();

}  // namespace fusible
