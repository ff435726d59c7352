#include "fusible/fusible.h"

namespace fusible {

const char* version() { return FUSIBLE_VERSION; }
const char* built_for_torch() { return FUSIBLE_TORCH_VERSION; }

}  // namespace fusible
