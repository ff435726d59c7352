#include "fusible/fusible.h"

namespace fusible::detail {

const int anchor = 0;

}  // namespace fusible::detail
