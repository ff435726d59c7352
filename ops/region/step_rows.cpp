// Concatenation of channels and layer_norm: whole rows at a time.

#include <algorithm>
#include <cstring>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "ops/kernels/isa.h"
#include "ops/region/plan.h"

namespace fusible {
namespace {

class ConcatStep : public Step {
 public:
  ConcatStep(std::vector<std::int64_t> parts, std::int64_t y) : parts_(std::move(parts)), y_(y) {}

  void run(Frame& frame) const override {
    std::vector<std::pair<const float*, std::int64_t>> parts;
    for (std::int64_t r : parts_) parts.emplace_back(frame.read(r, Form::nhwc), frame.slot(r).sizes[1]);
    const auto& sizes = frame.slot(y_).sizes;
    float* const y = frame.write(y_);
    at::parallel_for(0, sizes[0] * sizes[2] * sizes[3], std::max<std::int64_t>(1, 16384 / sizes[1]),
                     [&](std::int64_t begin, std::int64_t end) {
                       for (std::int64_t pixel = begin; pixel < end; ++pixel) {
                         float* to = y + pixel * sizes[1];
                         for (const auto& [from, channels] : parts) {
                           std::memcpy(to, from + pixel * channels, channels * sizeof(float));
                           to += channels;
                         }
                       }
                     });
  }

 private:
  std::vector<std::int64_t> parts_;
  std::int64_t y_;
};

class LayerNormStep : public Step {
 public:
  LayerNormStep(std::int64_t x, std::int64_t y, std::int64_t width, at::Tensor weight, at::Tensor bias, double eps)
      : x_(x), y_(y), width_(width), weight_(std::move(weight)), bias_(std::move(bias)), eps_(eps) {}

  void run(Frame& frame) const override {
    const float* const x = frame.read(x_, Form::dense);
    float* const y = frame.write(y_);
    const float* const weight = weight_.defined() ? weight_.const_data_ptr<float>() : nullptr;
    const float* const bias = bias_.defined() ? bias_.const_data_ptr<float>() : nullptr;
    at::parallel_for(
        0, frame.slot(x_).numel() / width_, std::max<std::int64_t>(1, 8192 / width_), [&](std::int64_t begin, std::int64_t end) {
          kernels::isa().layer_norm(x + begin * width_, nullptr, nullptr, end - begin, width_, weight, bias, eps_, y + begin * width_);
        });
  }

 private:
  std::int64_t x_, y_, width_;
  at::Tensor weight_, bias_;
  double eps_;
};

}  // namespace

std::unique_ptr<Step> make_concat(Making& making) {
  const Instruction& instruction = making.instruction;
  if (instruction.op.name != "aten::cat" || instruction.arguments[0].kind != Argument::Kind::list) return nullptr;
  const std::int64_t dim = making.value(1).toInt();
  if (making.registers[instruction.result].dim() != 4 || (dim != 1 && dim != -3)) return nullptr;
  for (std::int64_t r : instruction.arguments[0].registers)
    if (making.slots[r].sizes.size() != 4) return nullptr;
  making.made_form = Form::nhwc;
  return std::make_unique<ConcatStep>(instruction.arguments[0].registers, instruction.result);
}

std::unique_ptr<Step> make_layer_norm(Making& making) {
  const Instruction& instruction = making.instruction;
  if (instruction.op.name != "aten::layer_norm" || !making.is_register(0)) return nullptr;
  const auto& sizes = making.slot(0).sizes;
  if (making.value(1).toIntVector() != std::vector<std::int64_t>{sizes.back()}) return nullptr;
  at::Tensor affine[2];
  for (size_t i : {0, 1}) {
    if (making.instruction.arguments[2 + i].kind != Argument::Kind::constant) return nullptr;
    if (making.value(2 + i).isNone()) continue;
    affine[i] = making.value(2 + i).toTensor();
    if (affine[i].scalar_type() != at::kFloat) return nullptr;
    affine[i] = affine[i].contiguous();
  }
  making.made_form = Form::dense;
  return std::make_unique<LayerNormStep>(instruction.arguments[0].registers[0], instruction.result, sizes.back(), affine[0], affine[1],
                                         making.value(4).toDouble());
}

}  // namespace fusible
