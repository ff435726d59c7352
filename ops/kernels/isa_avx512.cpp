// AVX-512 F, BW, DQ, VL: 32 registers hold 24 accumulators, 4 weights and a broadcast.
#define FUSIBLE_TABLE kAvx512
#define FUSIBLE_NAME "avx512"
#define FUSIBLE_LANES 16
#define FUSIBLE_VECTORS 4
#define FUSIBLE_ACCUMULATORS 24
#include "ops/kernels/simd/table.h"
