// fusible::conv and fusible::linear on packed weights.

#include <ATen/ATen.h>

#include "ops/forward.h"
#include "ops/kernels/chain.h"
#include "ops/kernels/try_panels.h"
#include "ops/reference.h"
#include "ops/region/plan.h"

namespace fusible {
namespace {

using kernels::Chain;
using kernels::PackedWeights;
using kernels::Pixels;

class ContractionStep : public Step {
 public:
  ContractionStep(c10::intrusive_ptr<PackedContraction> contraction, Chain chain, std::int64_t x, std::int64_t y, Form form, Pixels pixels)
      : contraction_(std::move(contraction)),
        weights_(kernels::packed_weights(*contraction_)),
        chain_(std::move(chain)),
        x_(x),
        y_(y),
        form_(form),
        pixels_(pixels) {
    const Pixels out = weights_.out_pixels(pixels_);
    collapse_ = chain_.rows_collapse(out.height * out.width);
  }

  std::int64_t scratch_floats() const override { return weights_.scratch_floats(pixels_); }

  void run(Frame& frame) const override {
    std::vector<const float*> data;
    for (const auto& [reg, form] : operands) data.push_back(frame.read(reg, form));
    thread_local std::vector<kernels::Step> steps;
    chain_.bind(data.data(), steps);
    Pixels pixels = pixels_;
    const float* x = nullptr;
    // Images of few channels are copied anyway: from NCHW as well as from NHWC.
    if (weights_.takes_planar() && frame.slot(x_).form == Form::tensor && frame.tensor(x_).is_contiguous()) {
      pixels.planar = true;
      x = frame.tensor(x_).const_data_ptr<float>();
    } else {
      x = frame.read(x_, form_);
    }
    weights_.run(x, pixels, frame.write(y_), weights_.out_channels(), steps, collapse_, frame.scratch(*this));
  }

  struct From {
    std::int64_t reg;
    Form form;
  };
  std::vector<From> operands;

 private:
  c10::intrusive_ptr<PackedContraction> contraction_;
  const PackedWeights& weights_;
  Chain chain_;
  std::int64_t x_, y_;
  Form form_;
  Pixels pixels_;
  bool collapse_;
};

}  // namespace

std::unique_ptr<Step> make_contraction(Making& making) {
  const std::string& name = making.instruction.op.name;
  const bool linear = name == "fusible::linear";
  if ((!linear && name != "fusible::conv") || !making.is_register(0)) return nullptr;
  const auto contraction = making.value(1).toCustomClass<PackedContraction>();
  const ContractionSpec& spec = contraction->spec();
  const std::int64_t x = making.instruction.arguments[0].registers[0];
  const Slot& in = making.slot(0);
  const at::Tensor& result = making.registers[making.instruction.result];
  if (!PackedWeights::takes(spec) || !fold_is_valid(making.registers[x], spec) || in.numel() == 0) return nullptr;
  if (linear ? in.sizes.size() < 2 : in.sizes.size() != 4) return nullptr;
  Pixels pixels;
  if (linear) {
    pixels.pixel_stride = in.sizes.back();
    if (in.sizes.size() > 2) pixels.images = in.sizes[0];
    pixels.width = in.numel() / (pixels.pixel_stride * pixels.images);
  } else {
    pixels = {in.sizes[0], in.sizes[2], in.sizes[3], in.sizes[1], false};
  }
  if (result.sizes() != at::IntArrayRef(contraction_sizes(making.registers[x], spec))) return nullptr;  // an operand of the chain enlarges it
  const Form form = linear ? Form::dense : Form::nhwc;
  kernels::View view{result.sizes().vec(), linear ? result.dim() - 1 : 1};
  const Argument& list = making.instruction.arguments[3];
  std::vector<ContractionStep::From> operands;
  std::vector<std::vector<std::int64_t>> strides;
  std::vector<kernels::Operand> described;
  strides.reserve(list.registers.size());
  for (std::int64_t r : list.registers) {
    // An operand of the result's rank lies as the result does; a smaller one is dense.
    const Slot& slot = making.slots[r];
    const Form operand_form = slot.sizes.size() == 4 && !linear ? Form::nhwc : Form::dense;
    strides.push_back(strides_in(slot.sizes, operand_form));
    described.push_back({slot.sizes, strides.back(), at::kFloat, true, nullptr});
    operands.push_back({r, operand_form});
  }
  auto chain = Chain::plan(parse_post_ops(making.value(2).toStringRef()), described, view);
  if (!chain) return nullptr;
  making.made_form = form;
  auto step = std::make_unique<ContractionStep>(contraction, std::move(*chain), x, making.instruction.result, form, pixels);
  step->operands = std::move(operands);
  return step;
}

}  // namespace fusible
