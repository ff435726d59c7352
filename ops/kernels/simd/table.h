// Defines FUSIBLE_TABLE, the Isa of the flags this file is compiled with. Included once by each isa_*.cpp.

#include "ops/kernels/simd/cell.h"
#include "ops/kernels/simd/depthwise.h"
#include "ops/kernels/simd/grouped.h"
#include "ops/kernels/simd/rows.h"
#include "ops/kernels/simd/tile.h"
#include "ops/kernels/simd/winograd.h"

namespace fusible::kernels {

const Isa FUSIBLE_TABLE = {
    FUSIBLE_NAME,
    kLanes,
    kMostVectors,
    [](std::int32_t vectors) -> std::int32_t { return most_rows(vectors); },
    kDepthwiseRows,
    run_tile,
    run_depthwise,
    has_line,
    run_depthwise_line,
    run_grouped_line,
    run_pool,
    [](float* c, std::int64_t c_stride, std::int64_t m, std::int64_t channels, const Step* chain, std::int32_t steps, std::int64_t image,
       std::int64_t row) { run_chain(c, c_stride, m, channels, chain, steps, image, row, 0); },
    transpose,
    layer_norm,
    winograd_input,
    winograd_output,
    softmax,
    lstm_cell,
    gru_cell,
};

}  // namespace fusible::kernels
