// fusible::conv and fusible::linear the way that was chosen for them, where that is not the loop nests.

#include <ATen/ATen.h>

#include "ops/forward.h"
#include "ops/region/step_contraction.h"

namespace fusible {
namespace {

class OperatorStep : public Step {
 public:
  OperatorStep(const Instruction& instruction, Way way, CallShape shape)
      : contraction_(instruction.arguments[1].value.toCustomClass<PackedContraction>()),
        post_ops_(instruction.arguments[2].value.toStringRef()),
        operands_(instruction.arguments[3].registers),
        x_(instruction.arguments[0].registers[0]),
        y_(instruction.result),
        way_(way),
        shape_(std::move(shape)) {}

  void run(Frame& frame) const override {
    std::vector<at::Tensor> operands;
    for (std::int64_t r : operands_) operands.push_back(frame.narrow_tensor(r));
    const ContractionSpec& spec = contraction_->spec();
    // In the layout that the loop nests would read: channels_last images, dense matrices. bfloat16 as Frame::narrow_tensor has it.
    const bool narrow = spec.weight.scalar_type() != at::kFloat;
    const Form form = spec.kind == Contraction::linear || narrow ? Form::dense : Form::nhwc;
    const at::Tensor x = at::from_blob(const_cast<float*>(frame.read(x_, form)), shape_.sizes, strides_in(shape_.sizes, form), at::TensorOptions(at::kFloat));
    frame.hold(y_, forward_by(way_, x.to(spec.weight.scalar_type()), spec, contraction_.get(), post_ops_, operands));
  }

  std::vector<Trial::Met> contractions() const override { return {{contraction_.get(), shape_}}; }
  bool has_own_threads() const override { return true; }
  const char* name() const override { return way_ == Way::onednn ? "oneDNN" : "ATen"; }

 private:
  c10::intrusive_ptr<PackedContraction> contraction_;
  std::string post_ops_;
  std::vector<std::int64_t> operands_;
  std::int64_t x_, y_;
  Way way_;
  CallShape shape_;
};

}  // namespace

std::unique_ptr<Step> make_operator(const Making& making, Way way, CallShape shape) {
  return std::make_unique<OperatorStep>(making.instruction, way, std::move(shape));
}

}  // namespace fusible
