#include "ops/region/plan.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>
#include <ATen/MemoryOverlap.h>

#include "ops/kernels/team.h"
#include "ops/region/arena.h"
#include "ops/region/borders.h"
#include "ops/region/integers.h"

namespace fusible {
namespace {

constexpr std::int64_t kAlign = 64;

// A block of the arena while steps [begin, end] run.
struct Block {
  std::int64_t offset, bytes, begin, end;
};

// The lowest place that no block alive in [begin, end] touches.
std::int64_t lowest_place(std::vector<Block>& blocks, std::int64_t bytes, std::int64_t begin, std::int64_t end) {
  bytes = (bytes + kAlign - 1) / kAlign * kAlign;
  std::int64_t offset = 0;
  for (const Block& b : blocks) {  // by offset
    if (b.end < begin || b.begin > end) continue;
    if (offset + bytes <= b.offset) break;
    offset = std::max(offset, b.offset + b.bytes);
  }
  const Block block{offset, bytes, begin, end};
  blocks.insert(std::upper_bound(blocks.begin(), blocks.end(), block, [](const Block& a, const Block& b) { return a.offset < b.offset; }),
                block);
  return offset;
}

// bfloat16 where all tensors are, else float32.
at::ScalarType common_dtype(const Region& region, const std::vector<at::Tensor>& registers) {
  for (size_t i = 0; i < registers.size(); ++i)
    if (!region.is_integer(static_cast<std::int64_t>(i)) && registers[i].scalar_type() != at::kBFloat16) return at::kFloat;
  return at::kBFloat16;
}

bool is_narrow(const at::Tensor& t) { return t.scalar_type() == at::kBFloat16; }

// As the steps see it: no values.
at::Tensor widened(const at::Tensor& r) {
  return is_narrow(r) ? at::empty_strided(r.sizes(), r.strides(), at::TensorOptions(at::kMeta).dtype(at::kFloat)) : r;
}

Instruction widened(Instruction instruction) {
  for (Argument& argument : instruction.arguments)
    if (argument.kind == Argument::Kind::constant && argument.value.isTensor() && argument.value.toTensor().defined() && is_narrow(argument.value.toTensor()))
      argument.value = argument.value.toTensor().to(at::kFloat);
  return instruction;
}

}  // namespace

std::vector<std::int64_t> strides_in(const std::vector<std::int64_t>& sizes, Form form) {
  std::vector<std::int64_t> strides(sizes.size());
  std::int64_t step = 1;
  const auto take = [&](size_t d) {
    strides[d] = step;
    step *= sizes[d];
  };
  const size_t channels = form == Form::nhwc ? 1 : sizes.size();  // taken before all others
  if (channels < sizes.size()) take(channels);
  for (size_t d = sizes.size(); d-- > 0;)
    if (d != channels) take(d);
  return strides;
}

bool lies_in(const at::Tensor& t, Form form) {
  if (form == Form::dense) return t.is_contiguous();
  if (form != Form::nhwc || t.dim() < 3 || t.dim() > 5) return false;
  const std::vector<std::int64_t> strides = strides_in(t.sizes().vec(), form);
  for (std::int64_t d = 0; d < t.dim(); ++d)
    if (t.size(d) != 1 && t.stride(d) != strides[d]) return false;
  return true;
}

std::int64_t Slot::pixel_stride() const {
  if (form == Form::nhwc) return sizes[1];
  const size_t rank = sizes.size();
  if (form != Form::view || rank < 3 || rank > 5 || (strides[1] != 1 && sizes[1] != 1)) return 0;
  const std::int64_t step = strides[rank - 1];
  for (size_t d = rank - 1; d > 2; --d)
    if (strides[d - 1] != sizes[d] * strides[d]) return 0;
  return step >= sizes[1] && strides[0] == sizes[2] * strides[2] ? step : 0;
}

std::shared_ptr<const Plan> Plan::make(const Region& region, const std::vector<at::Tensor>& seen) {
  for (size_t i = 0; i < seen.size(); ++i) {
    const at::Tensor& r = seen[i];
    if (!region.is_integer(static_cast<std::int64_t>(i)) && (!r.defined() || r.numel() == 0 || r.is_neg() || r.is_conj())) return nullptr;
  }
  const auto& outputs = region.outputs();
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!seen[outputs[i]].is_non_overlapping_and_dense()) return nullptr;
    for (std::int64_t input = 0; input < region.inputs(); ++input)
      if (seen[outputs[i]].storage().is_alias_of(seen[input].storage())) return nullptr;
    for (size_t j = 0; j < i; ++j)
      if (seen[outputs[i]].storage().is_alias_of(seen[outputs[j]].storage())) return nullptr;
  }
  auto plan = std::make_shared<Plan>();
  plan->dtype_ = common_dtype(region, seen);
  std::vector<at::Tensor> registers = seen;
  if (plan->is_narrow()) std::transform(seen.begin(), seen.end(), registers.begin(), [](const at::Tensor& r) { return widened(r); });
  for (const at::Tensor& r : registers) plan->slots_.push_back({r.sizes().vec(), r.scalar_type()});
  // What is not float (masks, indices) stays with ATen.
  const auto is_float = [&](std::int64_t r) { return region.is_integer(r) || plan->slots_[r].dtype == at::kFloat; };
  const auto all_float = [&](const Instruction& instruction) {
    for (const Argument& argument : instruction.arguments)
      if (!std::all_of(argument.registers.begin(), argument.registers.end(), is_float)) return false;
    return is_float(instruction.result);
  };
  for (std::int64_t r : outputs) {
    const auto integer = region.is_integer(r) ? std::optional(registers[r].item<std::int64_t>()) : std::nullopt;
    plan->outputs_.push_back({r, seen[r].sizes().vec(), seen[r].strides().vec(), seen[r].scalar_type(), integer});
  }
  plan->instructions_.reserve(region.instructions().size());
  bool any_own = false;
  for (const Instruction& written : region.instructions()) {
    const Instruction outside = region.settled(written, registers);
    const Instruction& instruction = plan->instructions_.emplace_back(plan->is_narrow() ? widened(outside) : outside);
    Making making{instruction, plan->instructions_, plan->slots_, registers, outside};
    Slot& slot = plan->slots_[instruction.result];
    const bool known = region.is_integer(instruction.result);  // a size: part of the plan
    const bool own = !known && all_float(instruction);
    std::unique_ptr<Step> step;
    if (own)
      for (auto* maker : {make_contraction, make_pool, make_elementwise, make_concat, make_shuffle, make_layer_norm, make_attention})
        if ((step = maker(making))) break;
    any_own |= step != nullptr;
    if (!step && !known && !(own && make_alias(making, slot))) step = make_aten(making);
    if (step) {
      slot.form = making.made_form;
      slot.strides = std::move(making.made_strides);
    }
    plan->steps_.push_back(std::move(step));
  }
  if (!any_own) return nullptr;  // one by one they need no copies
  join_concats(region.inputs(), plan->slots_, plan->steps_);
  // Sizes are known: who asks for one reads no memory.
  std::vector<std::int64_t> reads(plan->slots_.size(), 0);
  for (const Instruction& instruction : plan->instructions_)
    if (!region.is_integer(instruction.result))
      for (const Argument& argument : instruction.arguments)
        for (std::int64_t r : argument.registers) ++reads[r];
  for (std::int64_t r : outputs) ++reads[r];
  plan->runs_at_.resize(plan->steps_.size());
  std::iota(plan->runs_at_.begin(), plan->runs_at_.end(), 0);
  join_elementwise(region.inputs(), reads, plan->slots_, plan->steps_, plan->runs_at_);
  join_lines(reads, plan->slots_, plan->steps_, plan->runs_at_);
  plan->place();
  plan->find_stretches();
  return plan;
}

void Plan::place() {
  const auto count = static_cast<std::int64_t>(steps_.size());
  const auto root = [&](std::int64_t r) {
    while (slots_[r].alias_of >= 0) r = slots_[r].alias_of;
    return r;
  };
  std::vector<std::int64_t> last(slots_.size(), -1), first(slots_.size(), count);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t r = root(instructions_[i].result);
    first[r] = std::min(first[r], i);
  }
  for (std::int64_t i = 0; i < count; ++i)
    for (const Argument& argument : instructions_[i].arguments)
      for (std::int64_t r : argument.registers) last[root(r)] = std::max(last[root(r)], runs_at_[i]);
  for (const Output& output : outputs_) last[root(output.reg)] = count;
  // An output is written in place where its memory is its own and lies as the caller must see it; else it is copied at the end.
  for (size_t o = 0; o < outputs_.size(); ++o) {
    Slot& slot = slots_[outputs_[o].reg];
    if (slot.form == Form::tensor || slot.alias_of >= 0 || is_narrow()) continue;
    const at::Tensor seen = at::empty_strided(outputs_[o].sizes, outputs_[o].strides, at::TensorOptions(at::kMeta));
    if (lies_in(seen, slot.form)) slot.output = static_cast<std::int64_t>(o);
  }
  std::vector<Block> blocks;
  dying_.resize(count);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t r = instructions_[i].result;
    Slot& slot = slots_[r];
    if (slot.alias_of < 0 && slot.form != Form::tensor && slot.output < 0 && runs_at_[i] == i)
      slot.offset = lowest_place(blocks, slot.numel() * 4, first[r], std::max(last[r], i));
    if (steps_[i])
      if (const std::int64_t floats = steps_[i]->scratch_floats()) steps_[i]->scratch_offset = lowest_place(blocks, floats * 4, i, i);
  }
  for (size_t r = slots_.size() - steps_.size(); r < slots_.size(); ++r)
    if (slots_[r].form == Form::tensor && last[r] >= 0 && last[r] < count) dying_[last[r]].push_back(static_cast<std::int64_t>(r));
  for (const Block& b : blocks) bytes_ = std::max<size_t>(bytes_, b.offset + b.bytes);
}

std::vector<at::Tensor> Plan::run(at::TensorList inputs) const {
  std::vector<at::Tensor> results;
  results.reserve(outputs_.size());
  for (const Output& output : outputs_)
    results.push_back(output.integer ? integer_tensor(*output.integer)
                                     : at::empty_strided(output.sizes, output.strides, at::TensorOptions(output.dtype)));
  const Arena arena(bytes_);
  Frame frame(*this, inputs, arena.data(), results);
  for (const Stretch& stretch : stretches_) {
    if (stretch.own_threads) {
      run_steps(stretch, frame);
    } else if (stretch.loops > 1) {
      kernels::with_team([&] { run_steps(stretch, frame); });
    } else {
      const std::int64_t before = kernels::teams_led();
      run_steps(stretch, frame);
      stretch.loops = kernels::teams_led() - before;
    }
  }
  for (size_t o = 0; o < outputs_.size(); ++o)
    if (!outputs_[o].integer && slots_[outputs_[o].reg].output != static_cast<std::int64_t>(o)) copy_across(results[o], frame.tensor(outputs_[o].reg));
  return results;
}

void Plan::find_stretches() {
  for (size_t i = 0; i < steps_.size(); ++i) {
    const bool own = steps_[i] ? steps_[i]->has_own_threads() : !stretches_.empty() && stretches_.back().own_threads;
    if (stretches_.empty() || stretches_.back().own_threads != own) stretches_.emplace_back(i, own);
    stretches_.back().end = i + 1;
  }
}

void Plan::run_steps(const Stretch& stretch, Frame& frame) const {
  Trial* const trial = Trial::current();
  for (size_t i = stretch.begin; i < stretch.end; ++i) {
    if (steps_[i] && trial) trial->watch(steps_[i]->contractions(), [&] { steps_[i]->run(frame); });
    else if (steps_[i]) steps_[i]->run(frame);
    for (std::int64_t r : dying_[i]) frame.drop(r);
  }
}

std::vector<std::string> Plan::explain() const {
  std::vector<std::string> names;
  for (size_t i = 0; i < steps_.size(); ++i) names.emplace_back(steps_[runs_at_[i]] ? steps_[runs_at_[i]]->name() : "same memory");
  return names;
}

Frame::Frame(const Plan& plan, at::TensorList inputs, char* arena, std::vector<at::Tensor>& outputs)
    : plan_(plan), arena_(arena), outputs_(outputs), held_(plan.slots_.size()) {
  std::copy(inputs.begin(), inputs.end(), held_.begin());
}

float* Frame::address(std::int64_t reg) {
  const Slot* slot = &plan_.slots_[reg];
  std::int64_t shift = 0;
  for (; slot->alias_of >= 0; slot = &plan_.slots_[slot->alias_of]) shift += slot->shift;
  float* const begin = slot->output >= 0 ? outputs_[slot->output].mutable_data_ptr<float>() : reinterpret_cast<float*>(arena_ + slot->offset);
  return begin + shift;
}

float* Frame::write(std::int64_t reg) { return address(reg); }

float* Frame::write_pixels(std::int64_t reg, std::int64_t& pixel_stride) {
  pixel_stride = plan_.slots_[reg].pixel_stride();
  return address(reg);
}

// A converted register is kept, in place of what it was made from, for the steps that read it after this one.
const float* Frame::read(std::int64_t reg, Form form) {
  const Slot& slot = plan_.slots_[reg];
  if (!held_[reg].defined()) {
    if (slot.form == form) return address(reg);
    held_[reg] = tensor(reg);
  }
  if (!lies_in(held_[reg], form) || held_[reg].scalar_type() != slot.dtype) {
    const at::Tensor converted = at::empty_strided(slot.sizes, strides_in(slot.sizes, form), held_[reg].options().dtype(slot.dtype));
    copy_across(converted, held_[reg]);
    held_[reg] = converted;
  }
  return held_[reg].const_data_ptr<float>();
}

const float* Frame::read_pixels(std::int64_t reg, std::int64_t& pixel_stride) {
  const Slot& slot = plan_.slots_[reg];
  pixel_stride = slot.form == Form::view && !held_[reg].defined() ? slot.pixel_stride() : 0;
  if (pixel_stride) return address(reg);
  pixel_stride = slot.sizes[1];
  return read(reg, Form::nhwc);
}

at::Tensor Frame::tensor(std::int64_t reg) {
  const Slot& slot = plan_.slots_[reg];
  if (held_[reg].defined()) {
    if (held_[reg].scalar_type() != slot.dtype) held_[reg] = held_[reg].to(slot.dtype);
    return held_[reg];
  }
  const std::vector<std::int64_t> strides = slot.strides_in_memory();
  TORCH_INTERNAL_ASSERT(strides.size() == slot.sizes.size());  // from_blob, which is noexcept there, would end the process
  return at::from_blob(address(reg), slot.sizes, strides, at::TensorOptions(at::kFloat));
}

at::Tensor Frame::narrow_tensor(std::int64_t reg) {
  if (held_[reg].defined() && is_narrow(held_[reg])) return held_[reg];
  const at::Tensor wide = tensor(reg);
  if (!plan_.is_narrow() || wide.scalar_type() != at::kFloat) return wide;
  const at::Tensor narrow = at::empty(wide.sizes(), wide.options().dtype(plan_.dtype_)).copy_(wide);
  // Later steps read what this one read: of one element, y - mean(y) is 0.
  if (at::has_internal_overlap(wide) != at::MemOverlap::Yes) wide.copy_(narrow);
  return narrow;
}

}  // namespace fusible
