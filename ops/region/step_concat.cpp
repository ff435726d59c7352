// Concatenation of channels that lie innermost. Where it can, a part is made where it will lie (join_concats), as densenet needs (Huang et al., 2017).

#include <algorithm>
#include <cstring>

#include <ATen/ATen.h>

#include "ops/kernels/team.h"
#include "ops/region/plan.h"

namespace fusible {
namespace {

class ConcatStep : public Step {
 public:
  struct Part {
    std::int64_t reg, channel;
  };

  ConcatStep(std::vector<Part> parts, std::int64_t y) : parts(std::move(parts)), y_(y) {}

  bool writes_pixels() const override { return true; }

  void run(Frame& frame) const override {
    struct Copy {
      const float* from;
      std::int64_t channels, stride, channel;
    };
    std::vector<Copy> copies;
    std::int64_t moved = 0, stride = 0;
    for (const Part& part : parts) {
      Copy& copy = copies.emplace_back(Copy{nullptr, frame.slot(part.reg).sizes[1], 0, part.channel});
      copy.from = frame.read_pixels(part.reg, copy.stride);
      moved += copy.channels;
    }
    const auto& sizes = frame.slot(y_).sizes;
    float* const y = frame.write_pixels(y_, stride);
    kernels::for_each_range(frame.slot(y_).numel() / sizes[1], std::max<std::int64_t>(1, 16384 / moved), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t pixel = begin; pixel < end; ++pixel)
        for (const Copy& copy : copies) std::memcpy(y + pixel * stride + copy.channel, copy.from + pixel * copy.stride, copy.channels * sizeof(float));
    });
  }

  std::vector<Part> parts;  // that are copied

 private:
  std::int64_t y_;
};

}  // namespace

std::unique_ptr<Step> make_concat(Making& making) {
  const Instruction& instruction = making.instruction;
  if (instruction.op.name != "aten::cat" || instruction.arguments[0].kind != Argument::Kind::list) return nullptr;
  const std::int64_t dim = making.value(1).toInt();
  const std::int64_t rank = making.registers[instruction.result].dim();
  if (rank < 3 || rank > 5 || (dim != 1 && dim != 1 - rank)) return nullptr;
  std::vector<ConcatStep::Part> parts;
  std::int64_t channel = 0;
  for (std::int64_t r : instruction.arguments[0].registers) {
    if (static_cast<std::int64_t>(making.slots[r].sizes.size()) != rank) return nullptr;
    if (rank == 3 && !making.slots[r].pixel_stride()) return nullptr;  // tokens in rows: dimension 1 is not that of channels
    parts.push_back({r, channel});
    channel += making.slots[r].sizes[1];
  }
  making.made_form = Form::nhwc;
  return std::make_unique<ConcatStep>(std::move(parts), instruction.result);
}

void join_concats(std::int64_t inputs, std::vector<Slot>& slots, std::vector<std::unique_ptr<Step>>& steps) {
  // The strides of an alias are those of the memory that it shows: a register that has one stays where it is.
  std::vector<bool> is_shown(slots.size(), false);
  for (const Slot& slot : slots)
    if (slot.alias_of >= 0) is_shown[slot.alias_of] = true;
  const auto may_move = [&](std::int64_t reg) { return slots[reg].form == Form::nhwc && slots[reg].alias_of < 0 && !is_shown[reg]; };
  const auto move = [&](std::int64_t reg, std::int64_t to, std::int64_t shift, std::vector<std::int64_t> strides) {
    Slot& slot = slots[reg];
    slot.form = Form::view;
    slot.alias_of = to;
    slot.shift = shift;
    slot.strides = std::move(strides);
    is_shown[to] = true;
  };
  // Where pixel by pixel the parts lie one behind the other already, as in a later concatenation that begins with the same parts: as their first
  // one, of more channels.
  const auto place_of = [&](const ConcatStep& concat) -> const Slot* {
    const Slot& first = slots[concat.parts[0].reg];
    const std::int64_t stride = first.pixel_stride();
    const bool together = std::all_of(concat.parts.begin(), concat.parts.end(), [&](const ConcatStep::Part& part) {
      const Slot& slot = slots[part.reg];
      return slot.form == Form::view && slot.alias_of == first.alias_of && slot.shift == first.shift + part.channel && slot.pixel_stride() == stride;
    });
    return together && stride != 0 && first.alias_of >= 0 && first.strides[1] == 1 ? &first : nullptr;
  };
  // The last concatenation first: it is the longest.
  for (auto i = static_cast<std::int64_t>(steps.size()); i-- > 0;) {
    auto* const concat = dynamic_cast<ConcatStep*>(steps[i].get());
    if (!concat) continue;
    const std::int64_t y = inputs + i;
    if (const Slot* const first = may_move(y) ? place_of(*concat) : nullptr) {
      move(y, first->alias_of, first->shift, first->strides);
      steps[i].reset();
      continue;
    }
    std::erase_if(concat->parts, [&](const ConcatStep::Part& part) {
      const bool made = part.reg >= inputs && steps[part.reg - inputs] && steps[part.reg - inputs]->writes_pixels();
      if (!made || !may_move(part.reg)) return false;
      move(part.reg, y, part.channel, slots[y].strides_in_memory());
      return true;
    });
    if (concat->parts.empty()) steps[i].reset();
  }
}

}  // namespace fusible
