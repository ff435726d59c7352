#include "ops/kernels/isa.h"

#include <string>

#include <ATen/Version.h>

namespace fusible::kernels {
namespace {

const Isa& choose() {
#if defined(__x86_64__)
  const std::string allowed = at::get_cpu_capability();
  if (allowed == "AVX512" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
    return kAvx512;
  if ((allowed == "AVX512" || allowed == "AVX2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kPlain;
}

}  // namespace

const Isa& isa() {
  static const Isa& chosen = choose();
  return chosen;
}

}  // namespace fusible::kernels
