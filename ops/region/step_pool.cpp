// Pooling and the mean over an image or a volume, channels innermost.

#include <algorithm>
#include <array>
#include <numeric>

#include "ops/kernels/isa.h"
#include "ops/kernels/team.h"
#include "ops/region/plan.h"

namespace fusible {
namespace {

// Taps of one output pixel along one dimension: input positions begin, begin + step, ... below end.
struct Window {
  std::int64_t begin, end, step;
  std::int64_t count() const { return (end - begin + step - 1) / step; }
};

// Along frames, lines and columns.
using Windows = std::array<std::vector<Window>, 3>;

class PoolStep : public Step {
 public:
  PoolStep(std::int64_t x, std::int64_t y, bool max, Windows windows, double divisor)
      : x_(x), y_(y), max_(max), windows_(std::move(windows)), divisor_(divisor) {}

  bool writes_pixels() const override { return true; }

  void run(Frame& frame) const override {
    const auto& in = frame.slot(x_).sizes;
    const size_t rank = in.size();
    const std::int64_t channels = in[1], height = rank > 3 ? in[rank - 2] : 1, width = in[rank - 1];
    const auto &frames = windows_[0], &heights = windows_[1], &widths = windows_[2];
    const auto lines = static_cast<std::int64_t>(heights.size()), columns = static_cast<std::int64_t>(widths.size());
    const auto lines_per_image = static_cast<std::int64_t>(frames.size()) * lines;
    std::int64_t x_stride = 0, y_stride = 0;
    const float* const x = frame.read_pixels(x_, x_stride);
    float* const y = frame.write_pixels(y_, y_stride);
    const std::int64_t image_floats = frame.slot(x_).numel() / (in[0] * channels) * x_stride;
    kernels::for_each_range(in[0] * lines_per_image, 1, [&](std::int64_t begin, std::int64_t end) {
      std::vector<const float*> rows;
      for (std::int64_t line = begin; line < end; ++line) {
        const float* const image = x + line / lines_per_image * image_floats;
        const Window &f = frames[line % lines_per_image / lines], &h = heights[line % lines];
        for (std::int64_t column = 0; column < columns; ++column) {
          const Window& w = widths[column];
          rows.clear();
          for (std::int64_t k = f.begin; k < f.end; k += f.step)
            for (std::int64_t i = h.begin; i < h.end; i += h.step)
              for (std::int64_t j = w.begin; j < w.end; j += w.step) rows.push_back(image + ((k * height + i) * width + j) * x_stride);
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
  Windows windows_;
  double divisor_;  // 0: the number of taps
};

std::int64_t entry(const std::vector<std::int64_t>& list, size_t i) { return list[list.size() == 1 ? 0 : i]; }

std::vector<Window> windows_of(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
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
  if (!making.is_register(0)) return nullptr;
  const auto& in = making.slot(0).sizes;
  const size_t rank = in.size(), spatial = rank - 2;
  const at::Tensor& result = making.registers[instruction.result];
  if (rank < 3 || rank > 5 || result.dim() != static_cast<std::int64_t>(rank)) return nullptr;
  if (rank == 3 && !making.slot(0).pixel_stride()) return nullptr;  // tokens in rows: dimension 1 is not that of channels
  const auto is = [&](const char* pool) { return name == pool + std::to_string(spatial) + "d"; };
  const bool max = is("aten::max_pool"), adaptive = is("aten::adaptive_avg_pool");
  Windows windows;
  windows.fill(std::vector<Window>{Window{0, 1, 1}});
  double divisor = 0;
  if (max || is("aten::avg_pool")) {
    const auto kernel = making.value(1).toIntVector(), padding = making.value(3).toIntVector();
    auto stride = making.value(2).toIntVector();
    if (stride.empty()) stride = kernel;
    const auto dilation = max ? making.value(4).toIntVector() : std::vector<std::int64_t>{1};
    const bool padded = std::any_of(padding.begin(), padding.end(), [](std::int64_t p) { return p != 0; });
    std::int64_t taps = 1;
    for (size_t i = 0; i < spatial; ++i) {
      windows[3 - spatial + i] =
          windows_of(in[2 + i], result.size(2 + i), entry(kernel, i), entry(stride, i), entry(padding, i), entry(dilation, i));
      taps *= entry(kernel, i);
    }
    if (!max) {
      const bool ceil_mode = making.value(4).toBool(), counts_padding = making.value(5).toBool();
      if (ceil_mode || (spatial > 1 && !making.value(6).isNone())) return nullptr;
      if (padded && counts_padding) divisor = static_cast<double>(taps);
    }
  } else if (adaptive || (name == "aten::mean" && instruction.op.overload_name == "dim")) {
    if (!adaptive) {
      auto dims = making.value(1).isIntList() ? making.value(1).toIntVector() : std::vector<std::int64_t>{};
      for (std::int64_t& d : dims) d = d < 0 ? d + static_cast<std::int64_t>(rank) : d;
      std::sort(dims.begin(), dims.end());
      std::vector<std::int64_t> all(spatial);
      std::iota(all.begin(), all.end(), 2);
      if (dims != all || !making.value(3).isNone()) return nullptr;
    }
    for (size_t i = 0; i < spatial; ++i) windows[3 - spatial + i] = adaptive_windows(in[2 + i], adaptive ? result.size(2 + i) : 1);
  } else {
    return nullptr;
  }
  // A sum is taken in one run: beyond this length ATen's, which is taken in parts, is closer.
  constexpr std::int64_t kMostTaps = 1024;
  for (const Window& f : windows[0])
    for (const Window& h : windows[1])
      for (const Window& w : windows[2])
        if (f.count() <= 0 || h.count() <= 0 || w.count() <= 0 || (!max && f.count() * h.count() * w.count() > kMostTaps)) return nullptr;
  making.made_form = Form::nhwc;
  return std::make_unique<PoolStep>(instruction.arguments[0].registers[0], instruction.result, max, std::move(windows), divisor);
}

}  // namespace fusible
