// fusible::conv, fusible::conv_transpose and fusible::linear on packed weights.

#include <ATen/ATen.h>

#include "ops/cost_model.h"
#include "ops/forward.h"
#include "ops/kernels/try_panels.h"
#include "ops/reference.h"
#include "ops/region/step_contraction.h"

namespace fusible {

using kernels::Chain;
using kernels::PackedWeights;
using kernels::Pixels;

ContractionStep::ContractionStep(c10::intrusive_ptr<PackedContraction> contraction, Chain chain, std::vector<From> operands, From x, std::int64_t y,
                                 Pixels pixels, CallShape shape)
    : contraction_(std::move(contraction)),
      weights_(kernels::packed_weights(*contraction_)),
      chain_(std::move(chain)),
      operands_(std::move(operands)),
      x_(x),
      y_(y),
      pixels_(pixels),
      shape_(std::move(shape)) {
  collapse_ = chain_.rows_collapse(weights_.out_pixels(pixels_).rows());
}

void ContractionStep::bind(Frame& frame, std::vector<kernels::Step>& steps) const {
  std::vector<const float*> data;
  for (const auto& [reg, form] : operands_) data.push_back(frame.read(reg, form));
  chain_.bind(data.data(), steps);
}

const float* ContractionStep::read_x(Frame& frame, Pixels& pixels) const {
  // Images of few channels are copied anyway: from NCHW as well as from NHWC.
  pixels.planar = weights_.takes_planar() && frame.slot(x_.reg).form == Form::tensor && frame.tensor(x_.reg).is_contiguous();
  if (pixels.planar) return frame.tensor(x_.reg).const_data_ptr<float>();
  return x_.form == Form::nhwc ? frame.read_pixels(x_.reg, pixels.pixel_stride) : frame.read(x_.reg, x_.form);
}

void ContractionStep::run(Frame& frame) const {
  thread_local std::vector<kernels::Step> steps;
  bind(frame, steps);
  Pixels pixels = pixels_;
  const float* const x = read_x(frame, pixels);
  std::int64_t y_stride = weights_.out_channels();
  float* const y = x_.form == Form::nhwc ? frame.write_pixels(y_, y_stride) : frame.write(y_);
  weights_.run(x, pixels, y, y_stride, steps, collapse_, frame.scratch(*this));
}

namespace {

// Where a vector's lanes stay mostly empty ATen is faster (measured with one thread): conv1d to one or two channels from an input that would
// be brought into channels innermost for it (0.7x to 0.75x), transposed convolutions with short sums for few channels (0.87x).
bool pays(const ContractionSpec& spec, const Slot& in) {
  const std::int64_t out = spec.out_channels();
  if (spec.kind == Contraction::conv) return out > 2 || in.sizes.size() != 3 || in.form != Form::tensor;
  if (spec.kind == Contraction::linear || spec.groups > 1) return true;
  const std::int64_t per_result = spec.weight.numel() / out / c10::multiply_integers(spec.stride);
  return out >= 8 || per_result >= 8;
}

}  // namespace

std::unique_ptr<Step> make_contraction(Making& making) {
  const std::string& name = making.instruction.op.name;
  const bool linear = name == "fusible::linear";
  if ((!linear && name != "fusible::conv" && name != "fusible::conv_transpose") || !making.is_register(0)) return nullptr;
  const auto contraction = making.value(1).toCustomClass<PackedContraction>();
  const ContractionSpec& spec = contraction->spec();
  const std::int64_t x = making.instruction.arguments[0].registers[0];
  const Slot& in = making.slot(0);
  const at::Tensor& result = making.registers[making.instruction.result];
  if (!PackedWeights::takes(spec) || !fold_is_valid(making.registers[x], spec) || in.numel() == 0) return nullptr;
  if (!pays(spec, in)) return nullptr;
  const size_t rank = in.sizes.size();
  if (linear ? rank < 2 : rank != static_cast<size_t>(spec.weight.dim())) return nullptr;
  Pixels pixels;
  if (linear) {
    pixels.pixel_stride = in.sizes.back();
    if (in.sizes.size() > 2) pixels.images = in.sizes[0];
    pixels.width = in.numel() / (pixels.pixel_stride * pixels.images);
  } else {
    pixels = {in.sizes[0], rank > 3 ? in.sizes[rank - 2] : 1, in.sizes[rank - 1], in.pixel_stride() ? in.pixel_stride() : in.sizes[1]};
    if (rank > 4) pixels.frames = in.sizes[2];
  }
  const at::Tensor like = at::empty(in.sizes, spec.weight.options().device(at::kMeta));
  if (result.sizes() != at::IntArrayRef(contraction_sizes(like, spec))) return nullptr;  // an operand of the chain enlarges it
  CallShape shape{in.sizes, CallShape::Layout::region};
  const Trial* const trial = Trial::current();
  std::optional<Way> way = trial && trial->asked ? trial->asked : contraction->choice(shape);
  if (!way && result.numel() / spec.out_channels() * spec.weight.numel() >= most_for_panels(spec)) way = Way::aten;
  // One channel is both layouts at once: torch 2.13's conv2d computes wrong numbers from a channels_last image of one channel.
  const bool one_channel = !linear && (spec.weight.size(1) * spec.groups == 1 || spec.out_channels() == 1);
  if (way && *way != Way::panels && !one_channel) return make_operator(making, *way, std::move(shape));
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
    const Form operand_form = slot.sizes.size() == rank && !linear ? Form::nhwc : Form::dense;
    strides.push_back(strides_in(slot.sizes, operand_form));
    described.push_back({slot.sizes, strides.back(), at::kFloat, true, nullptr});
    operands.push_back({r, operand_form});
  }
  auto chain = Chain::plan(parse_post_ops(making.value(2).toStringRef()), described, view);
  if (!chain) return nullptr;
  making.made_form = form;
  return std::make_unique<ContractionStep>(contraction, std::move(*chain), std::move(operands), ContractionStep::From{x, form},
                                           making.instruction.result, pixels, std::move(shape));
}

}  // namespace fusible
