#pragma once

// What fusible::lstm and fusible::gru keep of their weights. Pickles densely under a format version; packs for the machine at first use, and
// then has the packed form only.

#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include "fusible/export.h"
#include "ops/kernels/recurrence.h"
#include "ops/weight_values.h"

namespace fusible {

// The arguments of aten::lstm and aten::gru that are not data, as they were. Everything here is saved.
struct RecurrentSpec {
  kernels::CellKind cell = kernels::CellKind::lstm;
  // Of each layer and direction: weight_ih, weight_hh, and with biases bias_ih, bias_hh. In the spec of a Recurrent the first two have sizes,
  // strides and dtype only, on the meta device.
  std::vector<at::Tensor> weights;
  bool biases = true;
  std::int64_t layers = 1;
  bool bidirectional = false, batch_first = false;

  std::int64_t directions() const { return bidirectional ? 2 : 1; }
  std::int64_t per_layer() const { return biases ? 4 : 2; }  // tensors of one layer and direction
  std::int64_t hidden() const { return weights.at(1).size(1); }
  std::int64_t inputs() const { return weights.at(0).size(1); }
};

class FUSIBLE_API Recurrent : public torch::CustomClassHolder {
 public:
  // (version, cell, weights, numbers: biases, layers, bidirectional, batch_first)
  using State = std::tuple<std::int64_t, std::string, std::vector<at::Tensor>, std::vector<std::int64_t>>;
  static constexpr std::int64_t kVersion = 1;

  // Throws c10::Error when the tensors do not fit together.
  explicit Recurrent(RecurrentSpec spec);
  static c10::intrusive_ptr<Recurrent> load(const State& state);
  State save() const;
  const RecurrentSpec& spec() const { return spec_; }
  // All of the spec, dense, see WeightValues: for who reads it once, and for torch's operator, which reads it at every call.
  std::vector<at::Tensor> dense_weights() const;
  std::vector<at::Tensor> kept_dense_weights() const;
  std::vector<std::shared_ptr<WeightValues>> values() const;  // of the matrices
  std::string describe() const;

  // Whether the kernels take these arguments; else torch's operator is to be called. `states`: h and, of an LSTM, c.
  bool takes(const at::Tensor& input, at::TensorList states) const;
  // input: [steps, batch, inputs], or [batch, steps, inputs] with batch_first; states [layers * directions, batch, hidden]. Returns the output and
  // the last states, with the strides of torch's operators. Not differentiable.
  std::vector<at::Tensor> run(const at::Tensor& input, at::TensorList states) const;
  // Packs the weights; without it the first call does.
  void prepare() const;

 private:
  kernels::PackedRecurrence packed(std::int64_t layer, std::int64_t direction) const;

  RecurrentSpec spec_;
  std::vector<std::shared_ptr<WeightValues>> values_;  // as spec_.weights; null for a bias
  mutable std::once_flag once_;
  mutable std::vector<std::vector<kernels::PackedRecurrence>> layers_;
};

// Registers torch.classes.fusible.Recurrent. Idempotent.
void register_recurrent_class();

}  // namespace fusible
