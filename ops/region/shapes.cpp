#include "ops/region/shapes.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>

#include "ops/forward.h"
#include "ops/reference.h"
#include "ops/region/integers.h"
#include "ops/region/plan.h"

namespace fusible {
namespace {

using Sizes = std::vector<std::int64_t>;

// The rows of a classifier's head are contiguous whatever was before.
bool has_known_strides(const Region& region, std::int64_t reg) {
  if (reg < region.inputs()) return false;
  const Instruction& last = region.instructions()[reg - region.inputs()];
  return last.op.name == "fusible::linear" && last.arguments[3].registers.empty();
}

// Throws c10::Error where the operator raises; nothing where the fold does not hold for this input or an operand enlarges the result.
std::optional<Sizes> sizes_of_contraction(const Instruction& instruction, const std::vector<at::Tensor>& seen) {
  if (instruction.arguments[0].kind != Argument::Kind::one) return std::nullopt;  // of a constant
  const auto weights = instruction.arguments[1].value.toCustomClass<PackedContraction>();
  const at::Tensor& x = seen[instruction.arguments[0].registers[0]];
  if (weights->spec().weight.scalar_type() != x.scalar_type()) return std::nullopt;  // the operator raises
  const Sizes sizes = contraction_sizes(x, weights->spec());
  if (!fold_is_valid(x, weights->spec())) return std::nullopt;
  for (std::int64_t r : instruction.arguments[3].registers)
    if (at::infer_size(sizes, seen[r].sizes()) != sizes) return std::nullopt;
  return sizes;
}

// Operators that give the sizes of their first argument, or those of two by broadcasting.
std::optional<Sizes> sizes_of_elementwise(const Instruction& instruction, const std::vector<at::Tensor>& seen) {
  const std::string& op = instruction.op.name;
  const auto is_register = [&](size_t i) { return instruction.arguments[i].kind == Argument::Kind::one; };  // a tensor, in these operators
  if (!is_register(0)) return std::nullopt;
  const at::Tensor& x = seen[instruction.arguments[0].registers[0]];
  if (is_activation(op) || op == "aten::batch_norm" || op == "aten::layer_norm") return x.sizes().vec();
  if (!is_arithmetic(op) || !is_register(1)) return std::nullopt;
  const auto sizes = at::infer_size(x.sizes(), seen[instruction.arguments[1].registers[0]].sizes());
  return Sizes(sizes.begin(), sizes.end());
}

// Any other operator runs, on one zero that is seen everywhere. Nothing: its result is of another dtype.
std::optional<Sizes> sizes_by_running(const Region& region, const Instruction& instruction, const std::vector<at::Tensor>& seen, at::ScalarType dtype) {
  const at::Tensor zero = at::zeros({}, dtype);
  std::vector<at::Tensor> read(seen.size());
  for (const Argument& argument : instruction.arguments)
    for (std::int64_t r : argument.registers) read[r] = region.is_integer(r) ? seen[r] : zero.expand(seen[r].sizes());
  const at::Tensor result = region.result_of(instruction, read);
  return result.scalar_type() == dtype ? std::optional(result.sizes().vec()) : std::nullopt;
}

}  // namespace

bool infer_shapes(const Region& region, at::TensorList inputs, std::vector<at::Tensor>& seen) {
  const auto& outputs = region.outputs();
  if (!std::all_of(outputs.begin(), outputs.end(), [&](std::int64_t r) { return has_known_strides(region, r); })) return false;
  std::optional<at::ScalarType> dtype;
  for (std::int64_t i = 0; i < region.inputs(); ++i) {
    if (region.is_integer(i)) continue;
    if (!dtype) dtype = inputs[i].scalar_type();
    if (inputs[i].scalar_type() != *dtype) return false;
  }
  if (dtype != at::kFloat && dtype != at::kBFloat16) return false;
  seen.assign(inputs.begin(), inputs.end());
  seen.resize(region.registers());
  try {
    for (const Instruction& instruction : region.instructions()) {
      if (region.is_integer(instruction.result)) {
        seen[instruction.result] = region.result_of(instruction, seen);
        continue;
      }
      const bool contraction = instruction.op.name.rfind("fusible::", 0) == 0;
      auto sizes = contraction ? sizes_of_contraction(instruction, seen) : sizes_of_elementwise(instruction, seen);
      if (!sizes && !contraction) sizes = sizes_by_running(region, instruction, seen, *dtype);
      if (!sizes) return false;
      seen[instruction.result] = at::empty(*sizes, at::TensorOptions(at::kMeta).dtype(*dtype));
    }
  } catch (const std::exception&) {
    return false;  // the operators raise in their own words
  }
  return std::all_of(outputs.begin(), outputs.end(), [&](std::int64_t r) { return seen[r].dim() <= 2; });
}

}  // namespace fusible
