// fusible::to_channels_last, fusible::restore_layout and its overload beside
// The borders of a channels_last run (passes/layout.cpp). All leave anything but a 4-D tensor as it is; differentiable.

#include <ATen/ATen.h>
#include <c10/util/strides.h>
#include <torch/library.h>

namespace fusible {
namespace {

bool is_channels_last(const at::Tensor& t) { return t.dim() == 4 && t.suggest_memory_format() == at::MemoryFormat::ChannelsLast; }

// x [N, C, H, W] with channels innermost; x itself when it is so already.
at::Tensor to_channels_last(const at::Tensor& x) { return x.dim() == 4 ? x.contiguous(at::MemoryFormat::ChannelsLast) : x; }

// y [N, C, H, W] with the strides that the original gives: channels_last when all of `like`, the tensors that its format comes from,
// are channels_last, contiguous otherwise.
at::Tensor restore_layout(const at::Tensor& y, at::TensorList like) {
  if (y.dim() != 4) return y;
  const bool kept = std::all_of(like.begin(), like.end(), is_channels_last);
  const at::Tensor restored = y.contiguous(kept ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
  // Strides of dimensions of size 1 count too: the next operator guesses the layout from them.
  const auto contiguous = c10::contiguous_strides(restored.sizes());
  const std::vector<std::int64_t> strides =
      kept ? c10::get_channels_last_strides_2d(restored.sizes()) : std::vector<std::int64_t>(contiguous.begin(), contiguous.end());
  return restored.strides() == at::IntArrayRef(strides) ? restored : restored.as_strided(restored.sizes(), strides);
}

// Inside of a run: an operand of more dimensions makes a result of more, whose strides nothing restores, of strides that the original has.
at::Tensor restore_layout_beside(const at::Tensor& y, at::TensorList like, at::TensorList operands) {
  const bool enlarged = std::any_of(operands.begin(), operands.end(), [](const at::Tensor& operand) { return operand.dim() > 4; });
  return enlarged ? restore_layout(y, like) : y;
}

TORCH_LIBRARY_FRAGMENT(fusible, m) {
  m.def("to_channels_last(Tensor(a) x) -> Tensor(a)");
  m.def("restore_layout(Tensor(a) y, Tensor[] like) -> Tensor(a)");
  m.def("restore_layout.beside(Tensor(a) y, Tensor[] like, Tensor[] operands) -> Tensor(a)");
}
TORCH_LIBRARY_IMPL(fusible, CompositeImplicitAutograd, m) {
  m.impl("to_channels_last", to_channels_last);
  m.impl("restore_layout", restore_layout);
  m.impl("restore_layout.beside", restore_layout_beside);
}
// Under vmap an example's memory format cannot be asked for; where neither border converts, the run between them is the original's operators.
TORCH_LIBRARY_IMPL(fusible, FuncTorchBatched, m) {
  m.impl("to_channels_last", [](const at::Tensor& x) { return x; });
  m.impl("restore_layout", [](const at::Tensor& y, at::TensorList) { return y; });
  m.impl("restore_layout.beside", [](const at::Tensor& y, at::TensorList, at::TensorList) { return y; });
}

}  // namespace
}  // namespace fusible
