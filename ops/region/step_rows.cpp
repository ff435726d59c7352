// Shuffled channels and layer_norm: whole rows at a time.

#include <algorithm>

#include <ATen/ATen.h>

#include "ops/kernels/isa.h"
#include "ops/kernels/team.h"
#include "ops/region/plan.h"

namespace fusible {
namespace {

// Channel j * groups + i of the result is channel i * (channels / groups) + j: view, transpose, contiguous, view (Zhang et al., ShuffleNet, 2018).
class ShuffleStep : public Step {
 public:
  ShuffleStep(std::int64_t x, std::int64_t y, std::int64_t groups) : x_(x), y_(y), groups_(groups) {}

  void run(Frame& frame) const override {
    const auto& sizes = frame.slot(y_).sizes;
    const std::int64_t channels = sizes[1], each = channels / groups_;
    std::int64_t stride = 0;
    const float* const x = frame.read_pixels(x_, stride);
    float* const y = frame.write(y_);
    kernels::for_each_range(sizes[0] * sizes[2] * sizes[3], std::max<std::int64_t>(1, 16384 / channels), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t pixel = begin; pixel < end; ++pixel) {
        const float* const from = x + pixel * stride;
        float* const to = y + pixel * channels;
        if (groups_ == 2) {  // what the compiler turns into two shuffles of vectors
          for (std::int64_t j = 0; j < each; ++j) {
            to[2 * j] = from[j];
            to[2 * j + 1] = from[each + j];
          }
          continue;
        }
        for (std::int64_t i = 0; i < groups_; ++i)
          for (std::int64_t j = 0; j < each; ++j) to[j * groups_ + i] = from[i * each + j];
      }
    });
  }

 private:
  std::int64_t x_, y_, groups_;
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
    kernels::for_each_range(frame.slot(x_).numel() / width_, std::max<std::int64_t>(1, 8192 / width_), [&](std::int64_t begin, std::int64_t end) {
      kernels::isa().layer_norm(x + begin * width_, nullptr, nullptr, end - begin, width_, weight, bias, eps_, y + begin * width_);
    });
  }

 private:
  std::int64_t x_, y_, width_;
  at::Tensor weight_, bias_;
  double eps_;
};

}  // namespace

// Seen at its last instruction; those before it only rename memory, and nothing runs for them.
std::unique_ptr<Step> make_shuffle(Making& making) {
  const auto is = [](const Instruction* instruction, const char* name) { return instruction && instruction->op.name == name; };
  const auto is_view = [&](const Instruction* instruction) { return is(instruction, "aten::view") || is(instruction, "aten::reshape"); };
  const auto read = [](const Instruction* instruction) {  // -1: a constant
    const Argument& x = instruction->arguments[0];
    return x.kind == Argument::Kind::one ? x.registers[0] : -1;
  };
  if (!is_view(&making.instruction)) return nullptr;
  const Instruction* before = making.maker(read(&making.instruction));
  if (is(before, "aten::contiguous")) before = making.maker(read(before));
  if (!is(before, "aten::transpose") || before->arguments[1].value.toInt() != 1 || before->arguments[2].value.toInt() != 2) return nullptr;
  const Instruction* const split = making.maker(read(before));
  if (!is_view(split)) return nullptr;
  const std::int64_t x = read(split);
  if (x < 0) return nullptr;
  const auto& sizes = making.slots[x].sizes;
  const auto& groups = making.slots[split->result].sizes;
  if (sizes.size() != 4 || groups.size() != 5 || !making.slots[x].pixel_stride() || making.slots[making.instruction.result].sizes != sizes) return nullptr;
  if (groups != std::vector<std::int64_t>{sizes[0], groups[1], sizes[1] / groups[1], sizes[2], sizes[3]}) return nullptr;
  making.made_form = Form::nhwc;
  return std::make_unique<ShuffleStep>(x, making.instruction.result, groups[1]);
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
    if (affine[i].scalar_type() != at::kFloat || affine[i].sizes() != at::IntArrayRef{sizes.back()}) return nullptr;
    affine[i] = affine[i].contiguous();
  }
  making.made_form = Form::dense;
  return std::make_unique<LayerNormStep>(instruction.arguments[0].registers[0], instruction.result, sizes.back(), affine[0], affine[1],
                                         making.value(4).toDouble());
}

}  // namespace fusible
