#pragma once

// Weights as the micro-kernels read them, and the loop nests over them, in float32. Weights of bfloat16 stay that in
// panels of an even depth.

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ops/kernels/isa.h"
#include "fusible/export.h"
#include "ops/packed.h"

namespace fusible::kernels {

// Memory of images: pixels of `channels` dense floats, `pixel_stride` apart, no gap between rows, frames or images. A matrix is one image
// of height 1. planar: channels outermost in each image instead, dense (input of run() only, and only where takes_planar()).
struct Pixels {
  std::int64_t images = 1, height = 1, width = 1, pixel_stride = 0;
  bool planar = false;
  std::int64_t frames = 1;  // of a volume or a video

  std::int64_t rows() const { return frames * height * width; }  // per image
};

// Lines [begin, end) of one image, or columns of a line.
struct Lines {
  std::int64_t begin, end;
};

// Results that read the input at the same taps: all of a convolution, or one residue class of a transposed one. Along each dimension,
// frames, lines and columns, result `first + step * q` sums over taps k what the input holds at `stride * q + offsets[k]`. In a transposed
// convolution input i and tap k meet at result i * step - padding + dilation * k, so the results `first` modulo step are an ordinary
// convolution of stride 1 with those taps whose offset (first + padding - dilation * k) / step is a whole number.
struct Phase {
  std::int64_t first[3] = {0, 0, 0};
  std::vector<std::int64_t> offsets[3];
  std::int64_t begin = 0;  // where its taps begin in a panel

  std::int64_t taps() const { return static_cast<std::int64_t>(offsets[0].size() * offsets[1].size() * offsets[2].size()); }
};

// Panels of isa().vectors * isa().lanes output channels, [group][panel][tap][in][panel width], the taps phase by phase; the last panel of a
// group is cut to whole vectors. Depthwise: [tap][channels], float32; several groups in a
// vector: [vector][kernel row][in][tap][lanes], float32. Zero padding apart this is a permutation of the dense weight.
class FUSIBLE_API PackedWeights : public PackedState {
 public:
  // Whether the loop nests take this contraction: float32 or bfloat16, linear or (transposed) convolution, groups of 8 channels or more or depthwise,
  // or such that a vector holds several (grouped_nest.cpp).
  static bool takes(const ContractionSpec& spec);
  // Of those, whether vectors of several groups do.
  static bool takes_grouped_lines(const ContractionSpec& spec);
  // `values` lose their dense form when the panels are made, and are owned by who owns this object, too.
  PackedWeights(const ContractionSpec& spec, std::shared_ptr<WeightValues> values);
  explicit PackedWeights(const ContractionSpec& spec) : PackedWeights(spec, std::make_shared<WeightValues>(spec.weight)) {}

  // Makes the panels; without it the first call does.
  void prepare() const { packed(); }
  // The dense weight, contiguous, bit for bit, from the panels.
  at::Tensor unpack() const;

  // Output sizes; 0 where ATen raises.
  Pixels out_pixels(const Pixels& x) const;
  std::int64_t in_channels() const { return groups_ * in_; }
  std::int64_t out_channels() const { return groups_ * out_; }
  // Memory that run() needs for this input: a padded copy where input channels are few, transformed tiles where weights are many.
  std::int64_t scratch_floats(const Pixels& x) const;
  bool takes_planar() const { return padded_copy_; }

  // y = chain(contraction(x)). `chain` is bound; rows_collapse: Chain::rows_collapse of y's rows. Same bits for any number of threads.
  void run(const float* x, const Pixels& x_pixels, float* y, std::int64_t y_stride, const std::vector<Step>& chain, bool rows_collapse,
           float* scratch) const;

  // The same in parts, on the thread that asks: for several contractions that pass lines on while they are in the cache. Not where run()
  // takes Winograd's way, whose bits differ.
  bool takes_lines(const Pixels& x) const { return x.frames == 1 && frames_apart_ && !transposed_ && !takes_winograd(out_pixels(x)); }
  std::int64_t weight_bytes() const;  // of the panels
  bool is_pointwise() const;  // kernel 1, stride 1, no padding
  // What run_lines() reads: x, or its padded copy, for which `scratch` has room.
  const float* laid_out(const float* x, const Pixels& x_pixels, float* scratch) const;
  std::int64_t laid_out_floats(const Pixels& x) const;  // per image
  // Lines of x, inside an image of `height`, that lines `y` are computed from.
  Lines lines_read(Lines y, std::int64_t height) const;
  std::int64_t lines_spanned(std::int64_t lines) const;  // how many at most
  // `x` begins with line `x_line` of the image (0 for a padded copy) and `y` with the first of `lines`. `image`: for the chain's operands.
  void run_lines(const float* x, std::int64_t x_line, const Pixels& x_pixels, float* y, Lines lines, const std::vector<Step>& chain,
                 std::int64_t image) const;

 private:
  struct Job;
  Job job_of(const float* x, const Pixels& pixels, float* y, std::int64_t y_stride, const std::vector<Step>& chain) const;
  const at::Tensor& packed() const;
  template <typename Weight>
  at::Tensor pack(const at::Tensor& weight) const;
  template <typename Weight>
  at::Tensor unpack_as() const;
  at::Tensor made(const std::function<at::Tensor()>& make) const;  // names the weight when memory runs out
  std::int64_t panels() const { return (out_ + panel_ - 1) / panel_; }
  std::int64_t panel_width(std::int64_t panel) const;
  // Where a panel of that width has the weight of step `k` of depth and output channel `o`.
  std::int64_t panel_index(std::int64_t k, std::int64_t o, std::int64_t width) const {
    return pairs_ ? (k / 2 * width + o) * 2 + k % 2 : k * width + o;
  }
  // Lines of the kernel that meet an image of `height` where its first one stands at line `top`, which may lie above.
  Lines kernel_lines_met(std::int64_t top, std::int64_t height) const;
  std::int64_t taps() const { return kernel_[0] * kernel_[1] * kernel_[2]; }
  std::int64_t depth() const { return taps() * in_; }
  std::int64_t dense_index(std::int64_t group, std::int64_t out, std::int64_t in) const;  // of the first tap in the dense weight
  std::int64_t in_step(int d) const { return transposed_ ? 1 : stride_[d]; }
  std::int64_t out_step(int d) const { return transposed_ ? stride_[d] : 1; }
  void find_phases();
  Pixels with_frames_as_images(const Pixels& x) const;
  std::vector<Job> by_phase(const Job& job) const;
  void copy_padded(const float* x, const Pixels& pixels, float* to) const;
  void point_rows(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end, const float** rows) const;
  std::int64_t part_count(const Job& job) const;
  struct ImagePart;
  ImagePart part_of(std::int64_t index) const;
  std::int64_t parts_of_image() const { return dilation_[1] * dilation_[1]; }
  std::int64_t tile_lines(const Pixels& out) const;
  std::int64_t tile_columns(const Pixels& out) const;
  std::int64_t winograd_tiles(const Pixels& out) const;  // per image
  bool fits_winograd() const;
  bool takes_winograd(const Pixels& out) const;
  bool transforms_first(const Pixels& out) const;
  at::Tensor transform_weights() const;
  const at::Tensor& winograd_weights() const;
  bool run_winograd(const Job& job, float* scratch) const;
  // `index` of a part: all parts of the first image, then of the next.
  bool transform_tiles(const Job& job, std::int64_t index, std::int64_t first, std::int64_t count, float* v, std::int64_t v_stride) const;
  bool multiply_tiles(const Job& job, std::int64_t index, std::int64_t first, std::int64_t count, std::int64_t panel, const float* v,
                      std::int64_t v_stride, float* m) const;
  bool is_heavy() const;  // weights that do not stay in the cache
  std::int64_t chunk_rows(const Job& job) const;
  struct Run;
  Run run_at(const Job& job, std::int64_t image, std::int64_t row) const;
  void run_panel(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end, std::int64_t panel_index) const;
  void run_panels(const Job& job) const;
  void run_depthwise_rows(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end) const;
  bool has_depthwise_line(const Job& job) const;
  void run_depthwise_line(const Job& job, std::int64_t image, std::int64_t oh, std::int64_t first, std::int64_t last, std::int64_t channel,
                          std::int64_t channels) const;
  void run_depthwise_lines(const Job& job, std::int64_t image, std::int64_t begin, std::int64_t end) const;
  void run_depthwise(const Job& job) const;
  std::int64_t vectors() const;
  std::int64_t grouped_index(std::int64_t o, std::int64_t line, std::int64_t i, std::int64_t tap) const;
  template <typename Visit>
  void for_each_grouped_weight(Visit visit) const;
  at::Tensor pack_grouped(const float* from) const;
  void unpack_grouped(const float* from, float* to) const;
  void run_grouped_lines(const Job& job, std::int64_t image, Lines lines, Lines columns, std::int64_t first, std::int64_t last) const;
  void run_grouped(const Job& job) const;

  std::vector<std::int64_t> shape_;
  at::ScalarType dtype_;
  bool pairs_ = false;            // panels of bfloat16, two steps of depth beside each other: [in / 2][panel width][2]
  std::int64_t weight_size_ = 4;  // bytes of a weight in a panel
  std::int64_t groups_ = 1, in_ = 0, out_ = 0;  // channels per group
  // Of frames, lines and columns.
  std::int64_t kernel_[3] = {1, 1, 1}, stride_[3] = {1, 1, 1}, dilation_[3] = {1, 1, 1}, padding_[3] = {0, 0, 0};
  std::int64_t padding_end_[3] = {0, 0, 0}, output_padding_[3] = {0, 0, 0};
  std::vector<Phase> phases_;
  std::vector<std::int64_t> tap_order_;  // which dense tap lies at each place of a panel
  std::int64_t panel_ = 0, group_weights_ = 0;
  bool depthwise_ = false, grouped_ = false, padded_copy_ = false, transposed_ = false;
  bool frames_apart_ = true;  // each frame of the result reads one frame of the input: they are images
  std::shared_ptr<WeightValues> values_;
  at::Tensor bias_, zeros_;
  // Each made by the first call that takes it: the panels, and from them [panel][16][in][panel width].
  mutable std::once_flag packed_once_, winograd_once_;
  mutable at::Tensor packed_, winograd_;
};

}  // namespace fusible::kernels
