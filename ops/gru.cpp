// fusible::gru
// aten::gru of a dense input with constant weights, in inference: dropout between layers does nothing. Returns the output and h.
// Arguments, shapes, strides and errors are those of aten::gru (torch.nn.GRU's documentation), which takes over what the kernels do not
// take: other dtypes, autocast, derivatives.

#include <ATen/ATen.h>
#include <torch/library.h>

#include "ops/recurrent.h"

namespace fusible {
namespace {

std::tuple<at::Tensor, at::Tensor> gru(const at::Tensor& input, const at::Tensor& hx, const c10::intrusive_ptr<Recurrent>& weights) {
  const RecurrentSpec& spec = weights->spec();
  TORCH_CHECK(spec.cell == kernels::CellKind::gru, "fusible::gru needs the weights of a GRU, found those of ", weights->describe());
  if (!weights->takes(input, hx))
    return at::gru(input, hx, weights->kept_dense_weights(), spec.biases, spec.layers, /*dropout=*/0.0, /*train=*/false, spec.bidirectional, spec.batch_first);
  const auto results = weights->run(input, hx);
  return {results[0], results[1]};
}

TORCH_LIBRARY_FRAGMENT(fusible, m) {
  register_recurrent_class();
  m.def("gru(Tensor input, Tensor hx, __torch__.torch.classes.fusible.Recurrent weights) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fusible, CompositeImplicitAutograd, m) { m.impl("gru", gru); }

}  // namespace
}  // namespace fusible
