#pragma once

// Which kernel pays where nothing was measured (bench/ways_bench.cpp holds it against measurement).

#include "ops/packed.h"

namespace fusible {

// Multiply-adds from which on ATen's grouped convolution is faster than the loop nests.
std::int64_t most_for_panels(const ContractionSpec& spec);
// Multiply-adds from which on oneDNN's operator with a post-op is faster than ATen's and a pass over the result.
std::int64_t least_for_onednn(const ContractionSpec& spec);

}  // namespace fusible
