#include "ops/cost_model.h"

#include <limits>

#include "ops/kernels/packed_weights.h"

namespace fusible {

// Where a group's output channels leave lanes or registers idle: ratio loop nests / ATen inside of a region, AMD EPYC with AVX-512, 1 thread: 8
// channels per group 1.24 at 2^20.8 and 1.84 at 2^23.8, 16 channels 0.60 at 2^20.8 and 1.17 at 2^23.8. Three taps wide, vectors hold several groups:
// 0.36 to 1.02 (4 to 40 channels, Xeon with AVX-512). Of images, as measured.
std::int64_t most_for_panels(const ContractionSpec& spec) {
  const std::int64_t out = spec.out_channels() / spec.groups, lanes = kernels::isa().lanes;
  const bool images = spec.kind == Contraction::conv && spec.spatial_dims() == 2;
  const bool fills = out > lanes || (out == 1 && spec.weight.size(1) == 1) || kernels::PackedWeights::takes_grouped_lines(spec);
  if (!images || spec.groups == 1 || fills) return std::numeric_limits<std::int64_t>::max();
  return out < lanes ? 1 << 20 : 1 << 23;
}

// Ratio ATen / oneDNN with silu, Xeon with AVX-512, 1 and 2 threads: conv 0.2-0.5 up to 2^19, 0.5-0.7 at 2^21, 0.6-1.0 at 2^23.6, 0.99-1.00 at
// 2^24.8; linear 0.2-0.5 up to 2^21, 0.9-1.0 at 2^24, 1.0 at 2^28. Of 1x1 convolutions of many channels, AMD EPYC: 1.10 at 2^21.6 (256 channels),
// 1.20 at 2^22.6, 1.41 to 1.78 at 2^23.6; of few 0.5 to 0.8 at 2^21.6, 0.97 at 2^23.4.
std::int64_t least_for_onednn(const ContractionSpec& spec) {
  bool pointwise = spec.kind == Contraction::conv && spec.groups == 1 && spec.weight.size(0) >= 64 && spec.weight.size(1) >= 64;
  for (std::int64_t d = 2; d < spec.weight.dim(); ++d) pointwise &= spec.weight.size(d) == 1;
  return pointwise ? 1 << 22 : 1 << 24;
}

}  // namespace fusible
