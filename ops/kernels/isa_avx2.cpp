// AVX2 and FMA: 16 registers hold 12 accumulators, 2 weights and a broadcast.
#define FUSIBLE_TABLE kAvx2
#define FUSIBLE_NAME "avx2"
#define FUSIBLE_LANES 8
#define FUSIBLE_VECTORS 2
#define FUSIBLE_ACCUMULATORS 12
#include "ops/kernels/simd/table.h"
