#pragma once

// What a fused operator keeps of its weights. Pickles densely under a format version (law 4); packs for the machine at first use.

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include "fusible/export.h"

namespace fusible {

enum class Contraction : std::int64_t { conv = 0, conv_transpose = 1, linear = 2 };

// Dense description of a contraction with constant weights. Everything here is saved.
struct ContractionSpec {
  Contraction kind = Contraction::conv;
  at::Tensor weight;                 // conv [O, I/g, k...], conv_transpose [I, O/g, k...], linear [O, I]; its strides are kept (memory format)
  at::Tensor bias;                   // [O] or undefined
  std::vector<std::int64_t> stride, padding, dilation, output_padding;  // conv only; one entry per spatial dimension
  std::string padding_mode;          // "": numbers in `padding`; "same" or "valid" as aten::conv2d.padding takes them
  std::int64_t groups = 1;
  std::int64_t expected_rank = 0;    // an input of another rank raises as the original did (addmm: 2); 0: any rank ATen accepts
  // Affine steps that were folded into weight and bias, as a post-op chain with its operands, so that an input on which the fold is not
  // valid (unbatched images, linear + batch_norm1d on 3-D input) still computes the original:
  //   z = (F(x) - fold_shift) / fold_scale along the channel axis gives the unfolded contraction, then the chain is applied to z.
  std::string folded_ops;
  std::vector<at::Tensor> folded_operands;
  at::Tensor fold_scale, fold_shift; // [O] float64; undefined when nothing was folded
};

class FUSIBLE_API PackedContraction : public torch::CustomClassHolder {
 public:
  explicit PackedContraction(ContractionSpec spec);
  const ContractionSpec& spec() const { return spec_; }

 private:
  ContractionSpec spec_;
};

// Registered as torch.classes.fusible.Contraction.
FUSIBLE_API c10::intrusive_ptr<PackedContraction> make_packed(ContractionSpec spec);

}  // namespace fusible
