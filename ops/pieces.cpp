// fusible::chunk, fusible::split, fusible::split_with_sizes, fusible::unbind
// Piece `index` of what the operator of the same name in torch gives, where its list is unpacked into `count` tensors; raises where it has
// another length. Views of x.
//
// fusible::size
// x.size(dim) where x.size() is unpacked into `count` numbers; raises where x has another rank.
//
// Regions hold operators with one result: these stand for one of several (passes/pieces.cpp).

#include <ATen/ATen.h>
#include <torch/library.h>

namespace fusible {
namespace {

void check_count(std::int64_t needed, std::int64_t found) {
  TORCH_CHECK(needed == found, "Expected ", needed, " elements in a list but found ", found);
}

at::Tensor piece(const std::vector<at::Tensor>& pieces, std::int64_t index, std::int64_t count) {
  check_count(count, static_cast<std::int64_t>(pieces.size()));
  return pieces.at(index);
}

at::Tensor chunk(const at::Tensor& x, std::int64_t chunks, std::int64_t dim, std::int64_t index, std::int64_t count) {
  return piece(x.chunk(chunks, dim), index, count);
}

at::Tensor split(const at::Tensor& x, std::int64_t size, std::int64_t dim, std::int64_t index, std::int64_t count) {
  return piece(x.split(size, dim), index, count);
}

at::Tensor split_with_sizes(const at::Tensor& x, at::IntArrayRef sizes, std::int64_t dim, std::int64_t index, std::int64_t count) {
  return piece(x.split_with_sizes(sizes, dim), index, count);
}

at::Tensor unbind(const at::Tensor& x, std::int64_t dim, std::int64_t index, std::int64_t count) { return piece(x.unbind(dim), index, count); }

std::int64_t size(const at::Tensor& x, std::int64_t dim, std::int64_t count) {
  check_count(count, x.dim());
  return x.size(dim);
}

TORCH_LIBRARY_FRAGMENT(fusible, m) {
  m.def("chunk(Tensor(a) x, int chunks, int dim, int index, int count) -> Tensor(a)");
  m.def("split(Tensor(a) x, int size, int dim, int index, int count) -> Tensor(a)");
  m.def("split_with_sizes(Tensor(a) x, int[] sizes, int dim, int index, int count) -> Tensor(a)");
  m.def("unbind(Tensor(a) x, int dim, int index, int count) -> Tensor(a)");
  m.def("size(Tensor x, int dim, int count) -> int");
}
TORCH_LIBRARY_IMPL(fusible, CompositeImplicitAutograd, m) {
  m.impl("chunk", chunk);
  m.impl("split", split);
  m.impl("split_with_sizes", split_with_sizes);
  m.impl("unbind", unbind);
  m.impl("size", size);
}
// Under vmap the operators that they stand for have the batching rules.
TORCH_LIBRARY_IMPL(fusible, FuncTorchBatched, m) {
  m.impl("chunk", chunk);
  m.impl("split", split);
  m.impl("split_with_sizes", split_with_sizes);
  m.impl("unbind", unbind);
  m.impl("size", size);
}

}  // namespace
}  // namespace fusible
