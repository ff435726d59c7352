#pragma once

#include <string>

#include "fusible/report.h"

namespace fusible {

// The diagnostic codes: one table, never reused. rules/CODE-name.md is the page of each; tests hold both together.
struct Code {
  const char* id;
  const char* name;
  Severity severity;
};

namespace codes {
// 0xx archive and module
inline constexpr Code frozen_without_provenance{"FUS001", "frozen-without-provenance", Severity::note};
inline constexpr Code cuda_archive{"FUS002", "cuda-archive", Severity::note};
inline constexpr Code parameters_are_constants{"FUS003", "parameters-are-constants", Severity::note};
inline constexpr Code unverifiable{"FUS004", "unverifiable", Severity::warning};
inline constexpr Code verification_failed{"FUS005", "verification-failed", Severity::warning};
inline constexpr Code already_fused{"FUS006", "already-fused", Severity::note};
// 1xx structure
inline constexpr Code wrong_order{"FUS101", "wrong-order", Severity::warning};
inline constexpr Code intervening_op{"FUS102", "intervening-op", Severity::warning};
inline constexpr Code block_boundary{"FUS103", "block-boundary", Severity::warning};
inline constexpr Code interface_call{"FUS104", "interface-call", Severity::warning};
inline constexpr Code unknown_op{"FUS105", "unknown-op", Severity::warning};
inline constexpr Code unreachable{"FUS106", "unreachable", Severity::note};
inline constexpr Code nothing_to_fuse{"FUS107", "nothing-to-fuse", Severity::note};
inline constexpr Code no_contraction{"FUS108", "no-contraction", Severity::note};
inline constexpr Code foreign_region{"FUS109", "foreign-region", Severity::note};
// 2xx dataflow
inline constexpr Code second_use{"FUS201", "second-use", Severity::warning};
inline constexpr Code graph_output{"FUS202", "graph-output", Severity::warning};
inline constexpr Code mutation_between{"FUS203", "mutation-between", Severity::warning};
inline constexpr Code view_between{"FUS204", "view-between", Severity::warning};
inline constexpr Code in_place_on_other{"FUS205", "in-place-on-other", Severity::warning};
inline constexpr Code operand_of_itself{"FUS206", "operand-of-itself", Severity::note};
// 3xx parameters
inline constexpr Code training_batch_norm{"FUS301", "training-batch-norm", Severity::warning};
inline constexpr Code no_running_statistics{"FUS302", "no-running-statistics", Severity::warning};
inline constexpr Code weight_not_constant{"FUS303", "weight-not-constant", Severity::warning};
inline constexpr Code weight_written{"FUS304", "weight-written", Severity::warning};
inline constexpr Code shared_weight{"FUS305", "shared-weight", Severity::note};
inline constexpr Code operand_not_constant{"FUS306", "operand-not-constant", Severity::warning};
inline constexpr Code requires_freeze{"FUS307", "requires-freeze", Severity::note};
// 4xx types and shapes
inline constexpr Code dtype{"FUS401", "dtype", Severity::warning};
inline constexpr Code channel_mismatch{"FUS402", "channel-mismatch", Severity::warning};
inline constexpr Code broadcast_enlarges{"FUS403", "broadcast-enlarges", Severity::warning};
inline constexpr Code not_per_channel{"FUS404", "not-per-channel", Severity::warning};
inline constexpr Code device_or_layout{"FUS405", "device-or-layout", Severity::warning};
// 5xx attributes
inline constexpr Code alpha_not_one{"FUS501", "alpha-not-one", Severity::warning};
inline constexpr Code unsupported_attribute{"FUS502", "unsupported-attribute", Severity::warning};
inline constexpr Code dynamic_attribute{"FUS503", "dynamic-attribute", Severity::warning};
// 6xx backend and profit
inline constexpr Code unprofitable{"FUS601", "unprofitable", Severity::note};
inline constexpr Code operator_missing{"FUS602", "operator-missing", Severity::warning};
inline constexpr Code target_lacks_operator{"FUS603", "target-lacks-operator", Severity::note};
// 7xx numerics
inline constexpr Code strict_numerics{"FUS701", "strict-numerics", Severity::note};
// 8xx user patterns and options
inline constexpr Code ignored{"FUS801", "ignored", Severity::note};
inline constexpr Code pattern_failed{"FUS802", "pattern-failed", Severity::warning};
inline constexpr Code unused_suppression{"FUS803", "unused-suppression", Severity::note};  // found by the linter, from comments in the source
// 9xx internal
inline constexpr Code internal{"FUS901", "internal", Severity::warning};
}  // namespace codes

}  // namespace fusible
