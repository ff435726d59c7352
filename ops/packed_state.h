#pragma once

// The saved form of a ContractionSpec: (version, tensors, integer lists, strings). A key that is missing has its default, so that a field can be
// added under the same version as long as older releases may ignore it; a field that they may not ignore needs a new version.

#include <string>
#include <tuple>
#include <vector>

#include <ATen/core/Dict.h>
#include <ATen/core/Tensor.h>

#include "ops/packed.h"

namespace fusible {

inline constexpr std::int64_t kStateVersion = 1;

using SavedState = std::tuple<std::int64_t, c10::Dict<std::string, at::Tensor>, c10::Dict<std::string, std::vector<std::int64_t>>,
                              c10::Dict<std::string, std::string>>;

FUSIBLE_API SavedState save_state(const ContractionSpec& spec);
// Throws c10::Error when `state` was written by a later format or its values cannot be a ContractionSpec.
FUSIBLE_API ContractionSpec load_state(const SavedState& state);

}  // namespace fusible
