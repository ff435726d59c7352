// The build's base instruction set, whatever it is.
#define FUSIBLE_TABLE kPlain
#define FUSIBLE_NAME "plain"
#define FUSIBLE_LANES 4
#define FUSIBLE_VECTORS 2
#define FUSIBLE_ACCUMULATORS 12
#include "ops/kernels/simd/table.h"
