#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "fusible/export.h"

namespace fusible::kernels {

// Memory for `count` packed weights, not filled, at a line of the cache. Every call of a model reads all of them once, in the order in which they
// are packed, so they lie behind each other on huge pages where the system gives those (madvise; Linux,
// admin-guide/mm/transhuge.rst): a page of 4 KiB costs an entry of the TLB, and ends what the processor prefetches. Small weights share a chunk of
// 8 MiB, which is freed with the last of them.
FUSIBLE_API at::Tensor weight_memory(std::int64_t count, at::ScalarType dtype = at::kFloat);

}  // namespace fusible::kernels
