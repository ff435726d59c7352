#include "ops/region/shapes.h"

#include <algorithm>
#include <functional>

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

// What the operator gives, or raises, for tensors of no value in place of its registers.
at::Tensor result_on(const Region& region, const Instruction& instruction, const std::vector<at::Tensor>& seen,
                     const std::function<at::Tensor(const at::Tensor&)>& stand_in) {
  std::vector<at::Tensor> read(seen.size());
  for (const Argument& argument : instruction.arguments)
    for (std::int64_t r : argument.registers) read[r] = region.is_integer(r) ? seen[r] : stand_in(seen[r]);
  return region.result_of(instruction, read);
}

// One zero that is seen everywhere.
at::Tensor zeros(at::IntArrayRef sizes, at::ScalarType dtype) { return at::zeros({}, dtype).expand(sizes); }

// Which views a tensor has depends on strides, which are not known of a register: here no dimension continues another, so that there is only what
// tensors of all strides have.
at::Tensor scattered(at::IntArrayRef sizes, at::ScalarType dtype) { return at::empty_strided(sizes, Sizes(sizes.size(), 1), dtype); }

std::optional<Sizes> sizes_if(bool known, at::IntArrayRef sizes) { return known ? std::optional(sizes.vec()) : std::nullopt; }

// The first and the last dimension whose sizes an operator that keeps the sizes of its first argument compares with others'.
std::pair<std::int64_t, std::int64_t> compared_dimensions(const Instruction& instruction, std::int64_t rank) {
  if (instruction.op.name == "aten::batch_norm") return {1, 1};
  if (instruction.op.name != "aten::layer_norm") return {rank, rank};
  return {rank - static_cast<std::int64_t>(instruction.arguments[1].value.toIntVector().size()), rank};
}

// Operators that give the sizes of their first argument, or those of two by broadcasting. They run on one element, or on one row where they have
// weights for it: what they refuse among the other arguments they refuse there.
std::optional<Sizes> sizes_of_elementwise(const Region& region, const Instruction& instruction, const std::vector<at::Tensor>& seen, at::ScalarType dtype) {
  const std::string& op = instruction.op.name;
  const auto is_register = [&](size_t i) { return instruction.arguments[i].kind == Argument::Kind::one; };  // a tensor, in these operators
  if (!is_register(0)) return std::nullopt;
  const at::Tensor& x = seen[instruction.arguments[0].registers[0]];
  if (is_activation(op) || op == "aten::batch_norm" || op == "aten::layer_norm") {
    const auto [first, last] = compared_dimensions(instruction, x.dim());
    Sizes sizes(x.dim(), 1);
    for (std::int64_t d = std::max<std::int64_t>(0, first); d <= last && d < x.dim(); ++d) sizes[d] = x.size(d);
    const at::Tensor result = result_on(region, instruction, seen, [&](const at::Tensor& r) { return zeros(r.is_same(x) ? sizes : r.sizes(), dtype); });
    return sizes_if(result.scalar_type() == dtype, x.sizes());
  }
  if (!is_arithmetic(op) || !is_register(1)) return std::nullopt;
  const at::Tensor result = result_on(region, instruction, seen, [&](const at::Tensor&) { return at::zeros({}, dtype); });
  return sizes_if(result.scalar_type() == dtype, at::infer_size(x.sizes(), seen[instruction.arguments[1].registers[0]].sizes()));
}

// Any other operator runs. Nothing: its result is of another dtype.
std::optional<Sizes> sizes_by_running(const Region& region, const Instruction& instruction, const std::vector<at::Tensor>& seen, at::ScalarType dtype) {
  const bool view = instruction.op.name == "aten::view" || instruction.op.name == "aten::view_as";
  const at::Tensor result = result_on(region, instruction, seen, [&](const at::Tensor& r) { return view ? scattered(r.sizes(), dtype) : zeros(r.sizes(), dtype); });
  return sizes_if(result.scalar_type() == dtype, result.sizes());
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
      if (attention_looks_at_strides(instruction, seen)) return false;  // they are known once the operators have run
      const bool contraction = instruction.op.name.rfind("fusible::", 0) == 0;
      auto sizes = contraction ? sizes_of_contraction(instruction, seen) : sizes_of_elementwise(region, instruction, seen, *dtype);
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
