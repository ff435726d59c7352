#pragma once

#include <cstdint>
#include <unordered_map>

#include "passes/model.h"

namespace fusible {

// What a value carries in one call of its method: summed over the times that it is computed.
struct TensorSize {
  std::int64_t elements = 0;
  std::int64_t bytes = 0;
  int times = 0;

  struct Layout {
    std::vector<std::int64_t> sizes, strides;
    at::ScalarType dtype = at::kFloat;
    bool operator==(const Layout&) const = default;
  };
  std::optional<Layout> layout;  // none when it is not the same each time
};

struct Sizes {
  std::unordered_map<const Value*, TensorSize> of;  // absent: not known
  std::string basis;                                // where the shapes of the inputs come from; "" when they are not known
};

// Runs the method's graph on the meta device: shapes and dtypes only, no numbers, no memory for data, no code of others. Whatever depends on
// numbers, and what no meta kernel exists for, stays unknown. `inputs`: those of the method without self; null: the shapes that tracing
// recorded in the graph, where it did.
Sizes sizes_on_meta(const Model& model, const MethodGraph& method, const std::vector<c10::IValue>* inputs);

}  // namespace fusible
