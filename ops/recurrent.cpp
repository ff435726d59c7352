#include "ops/recurrent.h"

#include <algorithm>
#include <iterator>
#include <sstream>

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include "ops/autograd.h"
#include "ops/packed.h"
#include "ops/plain.h"

namespace fusible {
namespace {

using kernels::CellKind;
using kernels::PackedRecurrence;

bool takes_tensor(const at::Tensor& x) { return is_plain(x) && x.scalar_type() == at::kFloat && x.numel() > 0 && x.dim() == 3; }

CellKind cell_from(const std::string& name) {
  TORCH_CHECK(name == "lstm" || name == "gru", "fusible.Recurrent needs a cell lstm or gru, found \"", name, "\"");
  return name == "lstm" ? CellKind::lstm : CellKind::gru;
}

void check(const RecurrentSpec& spec) {
  const auto per_layer = static_cast<size_t>(spec.per_layer()), all = static_cast<size_t>(spec.layers * spec.directions());
  TORCH_CHECK(spec.layers > 0 && spec.weights.size() == all * per_layer, "fusible.Recurrent needs ", per_layer, " tensors for each of ", all,
              " layers and directions, found ", spec.weights.size());
  for (const at::Tensor& weight : spec.weights)
    TORCH_CHECK(weight.defined() && weight.layout() == at::kStrided && !weight.is_quantized() && weight.scalar_type() == at::kFloat && weight.device().is_cpu(),
                "fusible.Recurrent needs dense float32 weights on the CPU, found others");
  TORCH_CHECK(spec.weights[0].dim() == 2 && spec.weights[1].dim() == 2, "fusible.Recurrent needs weights of 2 dimensions, found ", spec.weights[0].sizes());
  const std::int64_t hidden = spec.hidden(), rows = (spec.cell == CellKind::lstm ? 4 : 3) * hidden;
  TORCH_CHECK(hidden > 0 && spec.inputs() > 0, "fusible.Recurrent needs inputs and hidden units, found none");
  for (size_t i = 0; i < spec.weights.size(); ++i) {
    const std::int64_t layer = static_cast<std::int64_t>(i / per_layer) / spec.directions();
    const std::int64_t inputs = layer ? spec.directions() * hidden : spec.inputs();
    const std::vector<std::int64_t> needed = i % per_layer == 0   ? std::vector<std::int64_t>{rows, inputs}
                                             : i % per_layer == 1 ? std::vector<std::int64_t>{rows, hidden}
                                                                  : std::vector<std::int64_t>{rows};
    TORCH_CHECK(spec.weights[i].sizes() == at::IntArrayRef(needed), "fusible.Recurrent needs a tensor of shape ", at::IntArrayRef(needed), " as weight ", i,
                ", found ", spec.weights[i].sizes());
  }
}

}  // namespace

Recurrent::Recurrent(RecurrentSpec spec) : spec_(std::move(spec)) {
  check(spec_);
  for (size_t i = 0; i < spec_.weights.size(); ++i) {
    at::Tensor& weight = spec_.weights[i] = own_constant(spec_.weights[i]);
    const bool is_matrix = weight.dim() == 2;
    values_.push_back(is_matrix ? std::make_shared<WeightValues>(weight) : nullptr);
    if (is_matrix) weight = without_values(weight);
  }
}

c10::intrusive_ptr<Recurrent> Recurrent::load(const State& state) {
  const auto& [version, cell, weights, numbers] = state;
  TORCH_CHECK(version == kVersion, "fusible.Recurrent needs a saved state of format ", kVersion, ", found ", version,
              ": load the model with the release of fusible that saved it or a later one");
  TORCH_CHECK(numbers.size() == 4 && numbers[1] > 0 && numbers[1] <= static_cast<std::int64_t>(weights.size()),
              "fusible.Recurrent needs 4 numbers that fit its weights in its saved state, found others");
  return c10::make_intrusive<Recurrent>(RecurrentSpec{cell_from(cell), weights, numbers[0] != 0, numbers[1], numbers[2] != 0, numbers[3] != 0});
}

Recurrent::State Recurrent::save() const {
  return {kVersion, spec_.cell == CellKind::lstm ? "lstm" : "gru", dense_weights(), {spec_.biases, spec_.layers, spec_.bidirectional, spec_.batch_first}};
}

std::string Recurrent::describe() const {
  std::ostringstream text;
  text << (spec_.cell == CellKind::lstm ? "lstm" : "gru") << " inputs=" << spec_.inputs() << " hidden=" << spec_.hidden() << " layers=" << spec_.layers
       << " directions=" << spec_.directions() << " bias=" << (spec_.biases ? "yes" : "no") << " batch_first=" << (spec_.batch_first ? "yes" : "no");
  return text.str();
}

bool Recurrent::takes(const at::Tensor& input, at::TensorList states) const {
  if (states.size() != (spec_.cell == CellKind::lstm ? 2 : 1) || at::autocast::is_autocast_enabled(at::kCPU)) return false;
  if (!takes_tensor(input) || needs_derivative(input) || needs_derivative(states) || input.size(2) != spec_.inputs()) return false;
  const std::vector<std::int64_t> sizes{spec_.layers * spec_.directions(), input.size(spec_.batch_first ? 0 : 1), spec_.hidden()};
  return std::all_of(states.begin(), states.end(), [&](const at::Tensor& state) { return takes_tensor(state) && state.sizes() == at::IntArrayRef(sizes); });
}

std::vector<at::Tensor> Recurrent::dense_weights() const {
  std::vector<at::Tensor> all = spec_.weights;
  for (size_t i = 0; i < all.size(); ++i)
    if (values_[i]) all[i] = values_[i]->dense();
  return all;
}

std::vector<at::Tensor> Recurrent::kept_dense_weights() const {
  std::vector<at::Tensor> all = spec_.weights;
  for (size_t i = 0; i < all.size(); ++i)
    if (values_[i]) all[i] = values_[i]->kept_dense();
  return all;
}

std::vector<std::shared_ptr<WeightValues>> Recurrent::values() const {
  std::vector<std::shared_ptr<WeightValues>> matrices;
  std::copy_if(values_.begin(), values_.end(), std::back_inserter(matrices), [](const auto& weight) { return weight != nullptr; });
  return matrices;
}

// The ways back hold the packed form themselves: when memory runs out at a later layer, the next call begins again with all weights.
PackedRecurrence Recurrent::packed(std::int64_t layer, std::int64_t direction) const {
  const std::int64_t first = (layer * spec_.directions() + direction) * spec_.per_layer();
  const auto bias = [&](std::int64_t i) { return spec_.biases ? spec_.weights[first + i] : at::Tensor(); };
  PackedRecurrence packed(spec_.cell, values_[first]->dense(), values_[first + 1]->dense(), bias(2), bias(3));
  values_[first]->give_up_dense([packed] { return packed.unpack_from_input(); }, packed.bytes_from_input());
  values_[first + 1]->give_up_dense([packed] { return packed.unpack_from_hidden(); }, packed.bytes_from_hidden());
  return packed;
}

void Recurrent::prepare() const {
  std::call_once(once_, [this] {
    std::vector<std::vector<PackedRecurrence>> layers(spec_.layers);
    for (std::int64_t layer = 0; layer < spec_.layers; ++layer)
      for (std::int64_t direction = 0; direction < spec_.directions(); ++direction) layers[layer].push_back(packed(layer, direction));
    layers_ = std::move(layers);
  });
}

std::vector<at::Tensor> Recurrent::run(const at::Tensor& input, at::TensorList states) const {
  at::NoGradGuard no_grad;
  prepare();
  at::Tensor x = (spec_.batch_first ? input.transpose(0, 1) : input).contiguous(), y;
  const std::int64_t steps = x.size(0), batch = x.size(1), of_layer = spec_.directions() * batch * spec_.hidden();
  const at::Tensor h0 = states[0].contiguous(), last = at::empty(h0.sizes(), at::kFloat);
  const at::Tensor state = states.size() > 1 ? states[1].clone(at::MemoryFormat::Contiguous) : at::Tensor();
  for (std::int64_t layer = 0; layer < spec_.layers; ++layer, x = y) {
    y = at::empty({steps, batch, spec_.directions() * spec_.hidden()}, at::kFloat);
    kernels::run_layer(layers_[layer], {x.const_data_ptr<float>(), steps, batch, h0.const_data_ptr<float>() + layer * of_layer,
                                        state.defined() ? state.mutable_data_ptr<float>() + layer * of_layer : nullptr, y.mutable_data_ptr<float>(),
                                        last.mutable_data_ptr<float>() + layer * of_layer});
  }
  if (spec_.batch_first) y = y.transpose(0, 1);
  return state.defined() ? std::vector<at::Tensor>{y, last, state} : std::vector<at::Tensor>{y, last};
}

void register_recurrent_class() {
  using Self = c10::intrusive_ptr<Recurrent>;
  static const auto registered =
      torch::class_<Recurrent>("fusible", "Recurrent")
          .def(torch::init([](const std::string& cell, std::vector<at::Tensor> weights, bool biases, std::int64_t layers, bool bidirectional, bool batch_first) {
                 return c10::make_intrusive<Recurrent>(RecurrentSpec{cell_from(cell), std::move(weights), biases, layers, bidirectional, batch_first});
               }),
               "cell lstm or gru; weights as torch.nn.LSTM and GRU keep them in _flat_weights",
               {torch::arg("cell"), torch::arg("weights"), torch::arg("biases") = true, torch::arg("layers") = 1, torch::arg("bidirectional") = false,
                torch::arg("batch_first") = false})
          .def("describe", [](const Self& self) { return self->describe(); })
          .def("bytes", [](const Self& self) { return bytes_held(self->values()); }, "of the weights: dense, and packed for this machine")
          .def("__repr__", [](const Self& self) { return "fusible.Recurrent(" + self->describe() + ")"; })
          .def_pickle([](const Self& self) { return self->save(); }, [](const Recurrent::State& state) { return Recurrent::load(state); });
}

}  // namespace fusible
