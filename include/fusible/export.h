#pragma once

#if defined(FUSIBLE_BUILDING)
#define FUSIBLE_API __attribute__((visibility("default")))
#else
#define FUSIBLE_API
#endif
