#include "ops/region/borders.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "ops/kernels/isa.h"
#include "ops/kernels/team.h"
#include "ops/region/plan.h"

namespace fusible {
namespace {

constexpr std::int64_t kLeastChannels = 8;  // below, most of a square of registers is empty
constexpr std::int64_t kBlock = 64;         // pixels that a task moves at a time
constexpr std::int64_t kGrain = 1 << 15;    // floats that are worth a thread

bool is_float(const at::Tensor& t) { return t.scalar_type() == at::kFloat && t.dim() >= 3; }

}  // namespace

void copy_across(const at::Tensor& to, const at::Tensor& from) {
  const bool inwards = is_float(to) && is_float(from) && lies_in(from, Form::dense) && lies_in(to, Form::nhwc);
  const bool outwards = is_float(to) && is_float(from) && lies_in(from, Form::nhwc) && lies_in(to, Form::dense);
  if ((!inwards && !outwards) || from.size(1) < kLeastChannels) {
    to.copy_(from);
    return;
  }
  const std::int64_t channels = from.size(1), pixels = from.numel() / (from.size(0) * channels), blocks = (pixels + kBlock - 1) / kBlock;
  const float* const x = from.const_data_ptr<float>();
  float* const y = to.mutable_data_ptr<float>();
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / (kBlock * channels));
  kernels::for_each_range(from.size(0) * blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t image = i / blocks * pixels * channels, first = i % blocks * kBlock, count = std::min(kBlock, pixels - first);
      const std::int64_t outermost = image + first, innermost = image + first * channels;
      if (inwards)
        kernels::isa().transpose(x + outermost, pixels, channels, count, y + innermost, channels);
      else
        kernels::isa().transpose(x + innermost, channels, count, channels, y + outermost, pixels);
    }
  });
}

}  // namespace fusible
