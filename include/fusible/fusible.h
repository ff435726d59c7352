#pragma once

// fusible for C++ deployment. Link fusible::fusible (find_package(fusible)), or preload libfusible.so with FUSIBLE_ENABLE=1.

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/core/ivalue.h>
#include <torch/csrc/jit/api/module.h>

#include "fusible/export.h"
#include "fusible/report.h"

namespace fusible {

// Unusable input: what was needed, what was found, what to do. Never thrown for a sequence that could not be fused.
class FUSIBLE_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Options {
  std::vector<std::string> methods;            // empty: forward and every other method no treated method calls
  std::string target = "cpu";                  // "cpu": fusible operators; "aten": stock operators only
  bool strict = false;                         // only rewrites that are exact (no weight folds)
  std::optional<bool> verify;                  // default: when example_inputs are given
  std::vector<std::string> select;             // prefixes of patterns to apply, of codes to report; of either none: all
  std::vector<std::string> ignore;             // prefixes of patterns to leave alone, of codes not to report
  std::vector<std::string> patterns;           // texts of further pattern files
  std::optional<std::vector<c10::IValue>> example_inputs;
  bool sample = false;                         // lint measures what missed fusions would save; needs shapes: example_inputs, or a traced module
  bool tune = false;                           // fuse measures on this machine with its threads of now; needs example_inputs
  std::string model_path;                      // for the report only
  bool mapped_from_cuda = false;               // the archive was saved on CUDA and loaded onto the CPU; for the report only
  std::function<void(const std::string& stage, double share)> progress;
};

struct Fused {
  torch::jit::Module module;
  Report report;
};

// Returns a fused private copy; `module` is unchanged. Throws Error when `module` is in training mode or has no method to treat.
// With options.tune the copy remembers per contraction and shape which kernel was fastest, and what loses to the original is left as it was; of a
// module that was fused already the copy is tuned for this machine, too.
FUSIBLE_API Fused fuse(const torch::jit::Module& module, const Options& options = {});
// What fuse would do; changes nothing and does not run the model. With options.sample torch's operators of the sequences that were not fused
// are run, each sequence by itself on random tensors; throws Error when no shapes are known.
FUSIBLE_API Report lint(const torch::jit::Module& module, const Options& options = {});
// The report stored in a fused module, also after save and load; nothing when `module` was not made by fuse.
FUSIBLE_API std::optional<Report> report(const torch::jit::Module& module);

// Weight-agnostic fusions in the profiled plan of every model of this process.
FUSIBLE_API void enable();
FUSIBLE_API void disable();
FUSIBLE_API bool enabled();
// What keeps the pass from running for calls that this thread makes now: one sentence each, empty when nothing does. Without a module: also
// how many plans of the process are older than enable(); with one: which of its methods have such a plan.
FUSIBLE_API std::vector<std::string> why_not_running(const torch::jit::Module* module = nullptr);

// Adds patterns for the rest of this process; `text` in the format of patterns/README.md. Throws Error with line and column.
FUSIBLE_API void load_patterns(const std::string& text, const std::string& name = "<text>");

// Packs the weights of every fused operator, in parallel, and runs `inputs` once when given.
FUSIBLE_API void warmup(torch::jit::Module& module, const std::vector<c10::IValue>& inputs = {});

// What a fused module holds of the weights of its fused operators, in bytes: dense until a kernel packs them for this machine, then packed, and
// both where an operator of torch needs the dense form at every call.
struct WeightBytes {
  std::int64_t dense = 0, packed = 0;
};
FUSIBLE_API WeightBytes weight_bytes(const torch::jit::Module& module);

FUSIBLE_API const char* version();
FUSIBLE_API const char* built_for_torch();

namespace detail {
// Referenced by every includer so that --as-needed cannot drop the library and with it the operator registrations.
FUSIBLE_API extern const int anchor;
inline const int* const keep = &anchor;
}  // namespace detail

}  // namespace fusible
