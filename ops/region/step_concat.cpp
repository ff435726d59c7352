// Concatenation of channels that lie innermost. Where it can, a part is made where it will lie (join_concats), as densenet needs (Huang et al., 2017).

#include <algorithm>
#include <cstring>
#include <optional>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

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
    at::parallel_for(0, frame.slot(y_).numel() / sizes[1], std::max<std::int64_t>(1, 16384 / moved), [&](std::int64_t begin, std::int64_t end) {
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
  const auto become_part = [&](std::int64_t part, std::int64_t whole, std::int64_t channel) {
    slots[part].strides = slots[whole].strides_in_memory();
    slots[part].alias_of = whole;
    slots[part].shift = channel;
    slots[part].form = Form::view;
  };
  // Where the parts lie one behind the other already, as in a later concatenation that begins with the same parts.
  const auto place_of = [&](const ConcatStep& concat) -> std::optional<std::pair<std::int64_t, std::int64_t>> {
    const Slot& first = slots[concat.parts[0].reg];
    for (const auto& [reg, channel] : concat.parts) {
      const Slot& slot = slots[reg];
      if (slot.form != Form::view || slot.alias_of != first.alias_of || slot.shift != first.shift + channel || slot.pixel_stride() != first.pixel_stride())
        return std::nullopt;
    }
    return std::make_pair(first.alias_of, first.shift);
  };
  // The last concatenation first: it is the longest.
  for (auto i = static_cast<std::int64_t>(steps.size()); i-- > 0;) {
    auto* const concat = dynamic_cast<ConcatStep*>(steps[i].get());
    if (!concat) continue;
    const std::int64_t y = inputs + i;
    if (const auto place = slots[y].alias_of < 0 ? place_of(*concat) : std::nullopt) {
      become_part(y, place->first, place->second);
      steps[i].reset();
      continue;
    }
    std::erase_if(concat->parts, [&](const ConcatStep::Part& part) {
      const Slot& slot = slots[part.reg];
      const bool own = part.reg >= inputs && slot.form == Form::nhwc && slot.alias_of < 0;
      if (!own || !steps[part.reg - inputs] || !steps[part.reg - inputs]->writes_pixels()) return false;
      become_part(part.reg, y, part.channel);
      return true;
    });
    if (concat->parts.empty()) steps[i].reset();
  }
}

}  // namespace fusible
