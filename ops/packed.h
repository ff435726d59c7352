#pragma once

// What a fused operator keeps of its weights. Pickles densely under a format version (law 4); packs for the machine at first use, and then has
// the packed form only.

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include "fusible/export.h"
#include "ops/choice.h"
#include "ops/weight_values.h"

namespace fusible {

enum class Contraction : std::int64_t { conv = 0, conv_transpose = 1, linear = 2 };

// Description of a contraction with constant weights. Everything here is saved.
struct ContractionSpec {
  Contraction kind = Contraction::conv;
  // conv [O, I/g, k...], conv_transpose [I, O/g, k...], linear [O, I]; its strides are kept (memory format). In the spec of a PackedContraction it
  // has sizes, strides and dtype only, on the meta device: the values, on the CPU, are PackedContraction::values().
  at::Tensor weight;
  at::Tensor bias;                   // [O] or undefined
  std::vector<std::int64_t> stride, padding, dilation, output_padding;  // conv only; one entry per spatial dimension
  std::string padding_mode;          // "": numbers in `padding`; "same" or "valid" as aten::conv2d.padding takes them
  std::int64_t groups = 1;
  std::int64_t expected_rank = 0;    // an input of another rank raises as the original did (addmm: 2); 0: any rank ATen accepts
  // Affine steps that were folded into weight and bias, as a post-op chain with its operands, so that an input on which the fold is not
  // valid (unbatched images, linear + batch_norm1d on 3-D input) still computes the original:
  //   z = F0(x) / fold_scale + unfolded_bias along the channel axis gives the unfolded contraction, F0 being F without its bias, then the chain
  //   is applied to z. (F(x) - fold_shift) / fold_scale would lose what bias * fold_scale is smaller than fold_shift.
  std::string folded_ops;
  std::vector<at::Tensor> folded_operands;  // undefined where batch_norm's is absent
  at::Tensor fold_scale, fold_shift; // [O] float64; undefined when nothing was folded
  // The bias before the fold, zeros where there was none; undefined in states that were saved before it was kept, and beside an unfolded_weight
  // that had none. The weight before the fold is kept only where the fold cannot be undone: fold_scale has a zero, or a number so near
  // it that folded weights lose digits.
  at::Tensor unfolded_weight, unfolded_bias;
  std::vector<Choice> choices;       // what tuning measured, on any machine

  std::int64_t spatial_dims() const { return kind == Contraction::linear ? 0 : weight.dim() - 2; }
  // Whether groups and lists are such that ATen accepts, one entry per spatial dimension, none so large that a size computed from it wraps.
  FUSIBLE_API bool has_usable_attributes() const;
  std::int64_t out_channels() const { return kind == Contraction::conv_transpose ? weight.size(1) * groups : weight.size(0); }
};

// What a kernel derives from the dense weights for the machine it runs on. Never saved.
class PackedState {
 public:
  virtual ~PackedState() = default;
};

enum class PackedFor : size_t { onednn, panels, count };

// Immutable but for the packed states, each made once: forward, save and deepcopy may run at the same time.
class FUSIBLE_API PackedContraction : public torch::CustomClassHolder {
 public:
  // Throws c10::Error when the parts of `spec` do not fit together.
  explicit PackedContraction(ContractionSpec spec);
  const ContractionSpec& spec() const { return spec_; }
  const std::shared_ptr<WeightValues>& values() const { return values_; }

  // The state of one kind of kernel; the first caller makes it, others wait. When `make` throws, the next caller tries again.
  const PackedState& packed(PackedFor kernel, const std::function<std::unique_ptr<PackedState>()>& make) const;

  // The choice for a call on this machine with the threads of now; none: the cost model decides.
  std::optional<Way> choice(const CallShape& shape) const;
  std::optional<Way> choice(const at::Tensor& x) const;
  // Before anyone else has the object.
  void choose(std::vector<Choice> choices);

  // One line for a person: "conv weight=[8, 3, 3, 3] float32 stride=[1, 1] ...".
  std::string describe() const;

 private:
  struct Slot {
    std::once_flag once;
    std::unique_ptr<PackedState> state;
  };
  ContractionSpec spec_;
  std::vector<Choice> here_;  // the choices for this machine
  mutable std::array<Slot, static_cast<size_t>(PackedFor::count)> slots_;
  std::shared_ptr<WeightValues> values_;
};

// The weight of `spec`, for an operator that reads it at every call: that of `packed`, or, where the weight is not constant, its own.
inline at::Tensor dense_weight(const ContractionSpec& spec, const PackedContraction* packed) {
  return packed ? packed->values()->kept_dense() : spec.weight;
}

// A constant that shares no storage with a larger tensor, so that the archive holds its elements and nothing more. Strides stay as they are.
at::Tensor own_constant(const at::Tensor& tensor);

// Registered as torch.classes.fusible.Contraction.
FUSIBLE_API c10::intrusive_ptr<PackedContraction> make_packed(ContractionSpec spec);

// Makes the class known to schemas; every operator library calls it before it names the class. Idempotent.
void register_contraction_class();

}  // namespace fusible
