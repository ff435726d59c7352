// fusible::region
// A run of operators as one, see region.h. inputs and results: any tensors that the operators take and give. Errors are theirs.

#include <torch/library.h>

#include "ops/region/region.h"

namespace fusible {

void register_region_class() {
  register_contraction_class();
  using Self = c10::intrusive_ptr<Region>;
  static const auto registered =
      torch::class_<Region>("fusible", "Region")
          .def("__repr__", [](const Self& self) { return self->print(); })
          .def("text", [](const Self& self) { return self->print(); })
          .def("explain", [](const Self& self, const std::vector<at::Tensor>& inputs) { return self->explain(inputs); })
          .def_pickle([](const Self& self) { return self->save(); }, [](const Region::State& state) { return Region::load(state); });
}

namespace {

// Below the composite key there are only the operators of the list, so that derivatives, Meta kernels and modes are theirs.
std::vector<at::Tensor> region(at::TensorList inputs, const c10::intrusive_ptr<Region>& plan) { return plan->run(inputs); }

TORCH_LIBRARY_FRAGMENT(fusible, m) {
  register_region_class();
  m.def("region(Tensor[] inputs, __torch__.torch.classes.fusible.Region plan) -> Tensor[]");
}
TORCH_LIBRARY_IMPL(fusible, CompositeImplicitAutograd, m) { m.impl("region", region); }
// Under vmap the list's operators have the batching rules.
TORCH_LIBRARY_IMPL(fusible, FuncTorchBatched, m) { m.impl("region", region); }

}  // namespace
}  // namespace fusible
