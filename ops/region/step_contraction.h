#pragma once

// fusible::conv, fusible::conv_transpose or fusible::linear on packed weights, as a step of a plan.

#include <memory>
#include <vector>

#include "ops/kernels/chain.h"
#include "ops/kernels/packed_weights.h"
#include "ops/region/plan.h"

namespace fusible {

class ContractionStep : public Step {
 public:
  struct From {
    std::int64_t reg;
    Form form;
  };

  ContractionStep(c10::intrusive_ptr<PackedContraction> contraction, kernels::Chain chain, std::vector<From> operands, From x, std::int64_t y,
                  kernels::Pixels pixels, CallShape shape);
  void run(Frame& frame) const override;
  std::vector<Trial::Met> contractions() const override { return {{contraction_.get(), shape_}}; }
  bool writes_pixels() const override { return x_.form == Form::nhwc; }
  std::int64_t scratch_floats() const override { return weights_.scratch_floats(pixels_); }

  // The post-op chain with the addresses of its operands.
  void bind(Frame& frame, std::vector<kernels::Step>& steps) const;
  // The input's memory; `pixels`, a copy of pixels(), learns whether it is planar.
  const float* read_x(Frame& frame, kernels::Pixels& pixels) const;

  const kernels::PackedWeights& weights() const { return weights_; }
  const kernels::Pixels& pixels() const { return pixels_; }  // of the input
  bool rows_collapse() const { return collapse_; }
  std::int64_t x() const { return x_.reg; }
  Form form() const { return x_.form; }  // of the input and of the result
  std::int64_t y() const { return y_; }

 private:
  c10::intrusive_ptr<PackedContraction> contraction_;
  const kernels::PackedWeights& weights_;
  kernels::Chain chain_;
  std::vector<From> operands_;
  From x_;
  std::int64_t y_;
  kernels::Pixels pixels_;
  CallShape shape_;
  bool collapse_;
};

// fusible::conv or fusible::linear by the operator's own code, for a way that is not the loop nests.
std::unique_ptr<Step> make_operator(const Making& making, Way way, CallShape shape);

}  // namespace fusible
