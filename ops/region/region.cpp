#include "ops/region/region.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "ops/autograd.h"
#include "ops/forward.h"
#include "ops/plain.h"
#include "ops/region/integers.h"
#include "ops/region/plan.h"
#include "ops/region/shapes.h"
#include "ops/region/text.h"

namespace fusible {
namespace {

constexpr std::int64_t kMostInputs = 1 << 20;

c10::IValue value_of(const Argument& argument, const std::vector<at::Tensor>& registers) {
  if (argument.kind == Argument::Kind::constant) return argument.value;
  if (argument.kind == Argument::Kind::one) return registers[argument.registers[0]];
  c10::List<at::Tensor> list;
  for (std::int64_t r : argument.registers) list.push_back(registers[r]);
  return list;
}

bool is_plain_integer(const at::Tensor& x) { return x.defined() && x.device().is_cpu() && x.scalar_type() == at::kLong && x.dim() == 0; }

bool fits_registers(const Argument& argument) {
  if (argument.kind != Argument::Kind::integers) return true;
  const auto entries = argument.value.toIntVector();
  return std::count(entries.begin(), entries.end(), Argument::kHeld) == static_cast<std::ptrdiff_t>(argument.registers.size());
}

// A mode or a transform (TorchDispatchMode, torch.func) is to see each operator, and tensors that a plan makes for itself would be the mode's.
bool are_operators_seen() {
  constexpr c10::DispatchKeySet kModes({c10::DispatchKey::Python, c10::DispatchKey::FuncTorchDynamicLayerFrontMode, c10::DispatchKey::Functionalize});
  return c10::impl::tls_local_dispatch_key_set().included_.has_any(kModes);
}

void append(std::vector<std::int64_t>& signature, const at::Tensor& x) {
  signature.push_back(static_cast<std::int64_t>(x.scalar_type()));
  signature.push_back(x.dim());
  signature.insert(signature.end(), x.sizes().begin(), x.sizes().end());
  signature.insert(signature.end(), x.strides().begin(), x.strides().end());
}

}  // namespace

at::Tensor call_boxed(const Instruction& instruction, const std::vector<at::Tensor>& registers) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(instruction.op.name.c_str(), instruction.op.overload_name.c_str());
  torch::jit::Stack stack;
  for (const Argument& argument : instruction.arguments) stack.push_back(value_of(argument, registers));
  op.callBoxed(&stack);
  return stack[0].isInt() ? integer_tensor(stack[0].toInt()) : std::move(stack[0]).toTensor();
}

Region::Region(std::int64_t inputs, std::vector<Instruction> instructions, std::vector<std::int64_t> outputs)
    : inputs_(inputs), instructions_(std::move(instructions)), outputs_(std::move(outputs)) {
  TORCH_CHECK(inputs >= 0 && inputs <= kMostInputs, "a region needs 0 to ", kMostInputs, " inputs, found ", inputs);
  last_use_.resize(inputs + instructions_.size(), -1);
  std::int64_t written = inputs_;
  for (const Instruction& instruction : instructions_) {
    TORCH_CHECK(instruction.result == written, "a region needs instruction ", written - inputs_, " to write register ", written, ", found ",
                instruction.result);
    const auto schema = c10::Dispatcher::singleton().findSchema(instruction.op);
    const size_t needed = schema ? schema->schema().arguments().size() : 2;  // numbers are added without the dispatcher
    TORCH_CHECK((schema || gives_integer(instruction.op)) && needed == instruction.arguments.size(), "a region needs every argument of ",
                instruction.op, ", found ", instruction.arguments.size());
    std::vector<const c10::IValue*> constants;
    for (const Argument& argument : instruction.arguments) {
      constants.push_back(argument.kind == Argument::Kind::constant ? &argument.value : nullptr);
      TORCH_CHECK(fits_registers(argument), "a region needs a register for each entry that one holds, found ", argument.registers.size(), " in ",
                  instruction.op);
      for (std::int64_t r : argument.registers) {
        TORCH_CHECK(r >= 0 && r < written, "a region needs registers that are written before they are read, found %", r, " in ",
                    instruction.op);
        last_use_[r] = written - inputs_;
      }
    }
    TORCH_CHECK(takes(instruction.op, constants), "a region needs operators that it takes, with arguments with which they are pure, found ",
                instruction.op);
    ++written;
  }
  find_integers();
  for (const Instruction& instruction : instructions_)
    if (instruction.in_place()) check_owner(instruction);
  for (std::int64_t r : outputs_) {
    TORCH_CHECK(r >= 0 && r < written, "a region needs outputs among its ", written, " registers, found %", r);
    last_use_[r] = static_cast<std::int64_t>(instructions_.size());
  }
}

void Region::find_integers() {
  integers_.resize(last_use_.size());
  std::vector<bool> known(inputs_, false);  // an input is what its first reader takes it for
  known.resize(integers_.size(), true);
  for (const Instruction& instruction : instructions_) {
    integers_[instruction.result] = gives_integer(instruction.op);
    const auto schema = c10::Dispatcher::singleton().findSchema(instruction.op);  // none: arithmetic on integers
    for (size_t i = 0; i < instruction.arguments.size(); ++i) {
      const Argument& argument = instruction.arguments[i];
      const bool wanted = argument.kind == Argument::Kind::integers ||
                          (argument.kind == Argument::Kind::one && (!schema || is_integer_argument(schema->schema().arguments()[i])));
      for (std::int64_t r : argument.registers) {
        if (!known[r]) integers_[r] = wanted;
        known[r] = true;
        TORCH_CHECK(integers_[r] == wanted, "a region needs ", wanted ? "an integer" : "a tensor", " in %", r, " for ",
                    instruction.op, ", found the other");
      }
    }
  }
}

bool Region::reads_integers(const Instruction& instruction) const {
  return std::any_of(instruction.arguments.begin(), instruction.arguments.end(), [&](const Argument& argument) {
    return argument.kind == Argument::Kind::integers || (argument.kind == Argument::Kind::one && integers_[argument.registers[0]]);
  });
}

Instruction Region::settled(const Instruction& instruction, const std::vector<at::Tensor>& registers) const {
  return reads_integers(instruction) ? with_integers(instruction, integers_, registers) : instruction;
}

at::Tensor Region::result_of(const Instruction& instruction, const std::vector<at::Tensor>& registers) const {
  if (reads_integers(instruction)) return result_of(settled(instruction, registers), registers);
  return integers_[instruction.result] ? integer_tensor(integer_result(instruction, registers)) : call_boxed(instruction, registers);
}

void Region::check_owner(const Instruction& instruction) const {
  const Argument& x = instruction.arguments[0];
  TORCH_CHECK(x.kind == Argument::Kind::one && x.registers[0] >= inputs_ && last_use_[x.registers[0]] == instruction.result - inputs_ &&
                  std::find(outputs_.begin(), outputs_.end(), x.registers[0]) == outputs_.end(),
              "a region needs ", instruction.op, " to write to a register that is its own, found one that is an input, an output or read later");
}

Region::~Region() = default;

c10::intrusive_ptr<Region> Region::load(const State& state) {
  const auto& [version, inputs, lines, outputs, weights, tensors] = state;
  TORCH_CHECK(version >= 1 && version <= kVersion, "fusible.Region needs format version 1 to ", kVersion, ", found ", version,
              ": load the model with the release that fused it or a later one");
  const Constants constants{weights, tensors};
  std::vector<Instruction> instructions;
  for (const std::string& line : lines) instructions.push_back(parse_instruction(line, constants));
  return c10::make_intrusive<Region>(inputs, std::move(instructions), outputs);
}

Region::State Region::save() const {
  Constants constants;
  std::vector<std::string> lines;
  for (const Instruction& instruction : instructions_) lines.push_back(print_instruction(instruction, constants));
  return {kVersion, inputs_, lines, outputs_, constants.weights, constants.tensors};
}

std::string Region::print() const {
  std::string text;
  const State state = save();
  for (const std::string& line : std::get<2>(state)) text += line + "\n";
  return text;
}

std::vector<at::Tensor> Region::interpret(at::TensorList inputs, std::vector<at::Tensor>* seen) const {
  std::vector<at::Tensor> registers(inputs.begin(), inputs.end());
  registers.resize(inputs_ + instructions_.size());
  if (seen) *seen = registers;
  for (size_t i = 0; i < instructions_.size(); ++i) {
    const Instruction& instruction = instructions_[i];
    at::Tensor& result = registers[instruction.result] = result_of(instruction, registers);
    if (seen && result.defined() && result.layout() == at::kStrided)
      (*seen)[instruction.result] = integers_[instruction.result] ? result : on_meta(result);
    for (const Argument& argument : instruction.arguments)
      for (std::int64_t r : argument.registers)
        if (last_use_[r] == static_cast<std::int64_t>(i)) registers[r] = at::Tensor();
  }
  std::vector<at::Tensor> results;
  for (std::int64_t r : outputs_) {
    results.push_back(registers[r]);
    if (seen) (*seen)[r] = registers[r];
  }
  return results;
}

std::shared_ptr<const Plan> Region::plan_for(at::TensorList inputs) const {
  std::vector<std::int64_t> signature;
  for (std::int64_t i = 0; i < inputs_; ++i)
    if (integers_[i])
      signature.push_back(inputs[i].item<std::int64_t>());
    else
      append(signature, inputs[i]);
  if (const Trial* trial = Trial::current()) signature.push_back(trial->asked ? static_cast<std::int64_t>(*trial->asked) : -1);
  {
    std::lock_guard lock(mutex_);
    for (auto found = plans_.begin(); found != plans_.end(); ++found)
      if (found->signature == signature) {
        plans_.splice(plans_.begin(), plans_, found);
        return found->plan;
      }
  }
  // Else shapes and strides of every register are those of one execution by the operators; two threads may both make the plan. That
  // execution's results are not given out: they may differ from the plan's in the last digit, and every call gives the same bits.
  std::vector<at::Tensor> seen;
  if (!infer_shapes(*this, inputs, seen)) {
    const Trial unheard(std::nullopt);  // who watches wants to hear of the plan
    interpret(inputs, &seen);
  }
  std::shared_ptr<const Plan> plan = Plan::make(*this, seen);
  std::lock_guard lock(mutex_);
  plans_.push_front({std::move(signature), plan});
  if (plans_.size() > kMostPlans) plans_.pop_back();
  return plan;
}

void Region::forget_plans() {
  std::lock_guard lock(mutex_);
  plans_.clear();
}

bool Region::may_plan(at::TensorList inputs) const {
  if (at::autocast::is_autocast_enabled(at::kCPU) || are_operators_seen() || needs_derivative(inputs)) return false;
  for (std::int64_t i = 0; i < inputs_; ++i)
    if (!(integers_[i] ? is_plain_integer(inputs[i]) : is_plain(inputs[i]))) return false;
  return true;
}

std::vector<std::string> Region::explain(at::TensorList inputs) const {
  const auto plan = may_plan(inputs) ? plan_for(inputs) : nullptr;
  return plan ? plan->explain() : std::vector<std::string>{};
}

std::vector<at::Tensor> Region::run(at::TensorList inputs) const {
  TORCH_CHECK(static_cast<std::int64_t>(inputs.size()) == inputs_, "fusible::region needs ", inputs_, " inputs, found ", inputs.size());
  if (!may_plan(inputs)) return interpret(inputs);
  at::NoGradGuard no_grad;
  const auto plan = plan_for(inputs);
  return plan ? plan->run(inputs) : interpret(inputs);
}

std::int64_t Region::Builder::input() {
  TORCH_CHECK(instructions_.empty(), "a region needs its inputs before the first instruction");
  return inputs_++;
}

std::int64_t Region::Builder::call(const c10::OperatorName& op, std::vector<Argument> arguments) {
  TORCH_CHECK(takes(op), "a region needs operators that it takes, found ", op);
  const std::int64_t result = inputs_ + static_cast<std::int64_t>(instructions_.size());
  instructions_.push_back({op, std::move(arguments), result});
  return result;
}

c10::intrusive_ptr<Region> Region::Builder::finish() {
  return c10::make_intrusive<Region>(inputs_, std::move(instructions_), std::move(outputs_));
}

}  // namespace fusible
