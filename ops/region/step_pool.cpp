// Pooling and the mean over an image, NHWC.

#include <algorithm>

#include <ATen/Parallel.h>

#include "ops/kernels/isa.h"
#include "ops/region/plan.h"

namespace fusible {
namespace {

// Taps of one output pixel along one dimension: input positions begin, begin + step, ... below end.
struct Window {
  std::int64_t begin, end, step;
  std::int64_t count() const { return (end - begin + step - 1) / step; }
};

class PoolStep : public Step {
 public:
  PoolStep(std::int64_t x, std::int64_t y, bool max, std::vector<Window> heights, std::vector<Window> widths, double divisor)
      : x_(x), y_(y), max_(max), heights_(std::move(heights)), widths_(std::move(widths)), divisor_(divisor) {}

  bool writes_pixels() const override { return true; }

  void run(Frame& frame) const override {
    const auto& in = frame.slot(x_).sizes;
    const std::int64_t channels = in[1], height = in[2], width = in[3];
    const auto lines = static_cast<std::int64_t>(heights_.size()), columns = static_cast<std::int64_t>(widths_.size());
    std::int64_t x_stride = 0, y_stride = 0;
    const float* const x = frame.read_pixels(x_, x_stride);
    float* const y = frame.write_pixels(y_, y_stride);
    at::parallel_for(0, in[0] * lines, 1, [&](std::int64_t begin, std::int64_t end) {
      std::vector<const float*> rows;
      for (std::int64_t line = begin; line < end; ++line) {
        const float* const image = x + line / lines * height * width * x_stride;
        const Window& h = heights_[line % lines];
        for (std::int64_t column = 0; column < columns; ++column) {
          const Window& w = widths_[column];
          rows.clear();
          for (std::int64_t i = h.begin; i < h.end; i += h.step)
            for (std::int64_t j = w.begin; j < w.end; j += w.step) rows.push_back(image + (i * width + j) * x_stride);
          const auto taps = static_cast<std::int64_t>(rows.size());
          const double divisor = divisor_ != 0 ? divisor_ : static_cast<double>(taps);
          kernels::isa().pool(
              {rows.data(), taps, channels, y + (line * columns + column) * y_stride, static_cast<float>(1 / divisor), max_});
        }
      }
    });
  }

 private:
  std::int64_t x_, y_;
  bool max_;
  std::vector<Window> heights_, widths_;
  double divisor_;  // 0: the number of taps
};

std::int64_t entry(const std::vector<std::int64_t>& list, size_t i) { return list[list.size() == 1 ? 0 : i]; }

std::vector<Window> windows(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                            std::int64_t dilation) {
  std::vector<Window> result;
  for (std::int64_t o = 0; o < out; ++o) {
    std::int64_t begin = o * stride - padding;
    const std::int64_t end = std::min(begin + dilation * (kernel - 1) + 1, in);
    while (begin < 0) begin += dilation;
    result.push_back({begin, end, dilation});
  }
  return result;
}

std::vector<Window> adaptive_windows(std::int64_t in, std::int64_t out) {
  std::vector<Window> result;
  for (std::int64_t o = 0; o < out; ++o) result.push_back({o * in / out, ((o + 1) * in + out - 1) / out, 1});
  return result;
}

}  // namespace

std::unique_ptr<Step> make_pool(Making& making) {
  const Instruction& instruction = making.instruction;
  const std::string& name = instruction.op.name;
  if (!making.is_register(0) || making.slot(0).sizes.size() != 4) return nullptr;
  const at::Tensor& result = making.registers[instruction.result];
  if (result.dim() != 4) return nullptr;
  const auto& in = making.slot(0).sizes;
  const std::int64_t x = instruction.arguments[0].registers[0], y = instruction.result;
  std::vector<Window> heights, widths;
  double divisor = 0;
  const bool max = name == "aten::max_pool2d";
  if (max || name == "aten::avg_pool2d") {
    const auto kernel = making.value(1).toIntVector(), padding = making.value(3).toIntVector();
    auto stride = making.value(2).toIntVector();
    if (stride.empty()) stride = kernel;
    const auto dilation = max ? making.value(4).toIntVector() : std::vector<std::int64_t>{1};
    const bool padded = std::any_of(padding.begin(), padding.end(), [](std::int64_t p) { return p != 0; });
    if (!max) {
      const bool ceil_mode = making.value(4).toBool(), counts_padding = making.value(5).toBool();
      if (ceil_mode || !making.value(6).isNone()) return nullptr;
      if (padded && counts_padding) divisor = static_cast<double>(entry(kernel, 0) * entry(kernel, 1));
    }
    heights = windows(in[2], result.size(2), entry(kernel, 0), entry(stride, 0), entry(padding, 0), entry(dilation, 0));
    widths = windows(in[3], result.size(3), entry(kernel, 1), entry(stride, 1), entry(padding, 1), entry(dilation, 1));
  } else if (name == "aten::adaptive_avg_pool2d") {
    heights = adaptive_windows(in[2], result.size(2));
    widths = adaptive_windows(in[3], result.size(3));
  } else if (name == "aten::mean" && instruction.op.overload_name == "dim") {
    auto dims = making.value(1).isIntList() ? making.value(1).toIntVector() : std::vector<std::int64_t>{};
    for (std::int64_t& d : dims) d = d < 0 ? d + 4 : d;
    std::sort(dims.begin(), dims.end());
    if (dims != std::vector<std::int64_t>{2, 3} || !making.value(3).isNone()) return nullptr;
    heights = adaptive_windows(in[2], 1);
    widths = adaptive_windows(in[3], 1);
  } else {
    return nullptr;
  }
  // A sum is taken in one run: beyond this length ATen's, which is taken in parts, is closer.
  constexpr std::int64_t kMostTaps = 1024;
  for (const Window& h : heights)
    for (const Window& w : widths)
      if (h.count() <= 0 || w.count() <= 0 || (!max && h.count() * w.count() > kMostTaps)) return nullptr;
  making.made_form = Form::nhwc;
  return std::make_unique<PoolStep>(x, y, max, std::move(heights), std::move(widths), divisor);
}

}  // namespace fusible
