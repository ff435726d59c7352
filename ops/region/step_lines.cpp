// Contractions that follow each other, some lines of the image at a time: what one passes to the next never leaves the cache. A task takes the
// lines [begin, end) of the last result from its first contraction to its last; lines that neighbours of a kernel need again stay in the task's
// memory, and are computed twice only where two tasks meet. The idea is the "fused layer" of Alwani et al., MICRO 2016; the sums are those of
// the contractions one by one, bit for bit.

#include <algorithm>
#include <iterator>
#include <optional>

#include "ops/kernels/loop_nest.h"
#include "ops/region/step_contraction.h"

namespace fusible {
namespace {

using kernels::Lines;
using kernels::Pixels;

constexpr std::int64_t kSpills = 1 << 20;     // bytes of a result, per thread, that leave the second-level cache before they are read
constexpr std::int64_t kWeights = 512 << 10;  // bytes of weights that stay there while lines pass by
constexpr std::int64_t kHeld = 512 << 10;     // bytes of lines that a task holds
constexpr std::int64_t kLeastRows = 48;       // rows made at a time: what a panel of weights is worth being read for
constexpr std::int64_t kLeastLines = 8;       // of a task, so that the lines which it computes for itself alone are few

// How the lines of a run of contractions lie in a task's memory.
struct Geometry {
  explicit Geometry(std::vector<const ContractionStep*> of) : steps(std::move(of)) {
    const auto all = [&](auto condition) { return std::all_of(steps.begin(), steps.end(), condition); };
    const bool flat = all([](const ContractionStep* step) { return step->weights().is_pointwise(); });
    const bool one_image = flat && all([](const ContractionStep* step) { return step->rows_collapse(); });
    for (const ContractionStep* step : steps) {
      Pixels in = step->pixels();
      // Where no pixel meets its neighbours each is a line of its own.
      if (flat) in = {in.images, in.height * in.width, 1, in.pixel_stride};
      if (one_image) in = {1, in.images * in.height, 1, in.pixel_stride};
      pixels.push_back(in);
    }
    pixels.push_back(steps.back()->weights().out_pixels(pixels.back()));
    lines = kLeastRows / pixels.back().width + 1;
    while (place(lines * 2) * 4 <= kHeld && lines < pixels.back().height) lines *= 2;
    floats = place(lines);
  }

  std::int64_t line_floats(size_t k) const { return pixels[k].width * pixels[k].pixel_stride; }

  std::vector<const ContractionStep*> steps;
  std::vector<Pixels> pixels;         // of each contraction's input, then of the result
  std::int64_t lines;                 // of the result, made at a time
  std::vector<std::int64_t> offsets;  // of each contraction's input in a task's memory, without that of the first
  std::int64_t floats;                // of that memory

 private:
  // The floats that are held while `asked` lines of the result are made.
  std::int64_t place(std::int64_t asked) {
    std::int64_t end = 0;
    offsets.assign(steps.size(), 0);
    for (size_t k = steps.size(); --k > 0;) {
      asked = std::min(steps[k]->weights().lines_spanned(asked), pixels[k].height);
      offsets[k] = end;
      end += asked * line_floats(k);
    }
    return end;
  }
};

class LinesStep : public Step {
 public:
  LinesStep(Geometry geometry, std::vector<std::unique_ptr<Step>> steps) : geometry_(std::move(geometry)), owned_(std::move(steps)) {}

  const char* name() const override { return "loop nest, line by line"; }

  std::vector<Trial::Met> contractions() const override {
    std::vector<Trial::Met> met;
    for (const ContractionStep* step : geometry_.steps) met.push_back(step->contractions()[0]);
    return met;
  }

  std::int64_t scratch_floats() const override { return geometry_.steps.front()->scratch_floats(); }

  void run(Frame& frame) const override {
    const auto& steps = geometry_.steps;
    Chains chains(steps.size());
    for (size_t k = 0; k < steps.size(); ++k) {
      steps[k]->weights().prepare();  // with all threads: inside of a task it would be one
      steps[k]->bind(frame, chains[k]);
    }
    Pixels seen = steps.front()->pixels();
    const float* const given = steps.front()->read_x(frame, seen);
    const float* const x = steps.front()->weights().laid_out(given, seen, frame.scratch(*this));
    float* const y = frame.write(steps.back()->y());
    const Pixels& out = geometry_.pixels.back();
    const std::int64_t most = std::max<std::int64_t>(1, out.height / std::max(kLeastLines, geometry_.lines));
    const std::int64_t tasks = std::clamp<std::int64_t>(kernels::divide_up(4 * at::get_num_threads(), out.images), 1, most);
    kernels::for_each_task(out.images * tasks, [&](std::int64_t i) {
      const std::int64_t image = i / tasks, task = i % tasks;
      run_task(x, y, chains, image, {out.height * task / tasks, out.height * (task + 1) / tasks});
    });
  }

 private:
  using Chains = std::vector<std::vector<kernels::Step>>;

  void run_task(const float* x, float* y, const Chains& chains, std::int64_t image, Lines asked) const {
    thread_local std::vector<float> memory;
    const auto& [steps, pixels, lines, offsets, floats] = geometry_;
    if (static_cast<std::int64_t>(memory.size()) < floats) memory.resize(floats);
    const size_t count = steps.size();
    const float* const first = x + image * steps.front()->weights().laid_out_floats(pixels.front());
    std::vector<Lines> held(count, {0, 0}), made(count);  // held[k]: what contraction k finds of its input; held[0] is not used
    for (std::int64_t begin = asked.begin; begin < asked.end; begin += lines) {
      made[count - 1] = {begin, std::min(begin + lines, asked.end)};
      for (size_t k = count; --k > 0;) {
        const Lines read = steps[k]->weights().lines_read(made[k], pixels[k].height);
        const std::int64_t again = std::max<std::int64_t>(0, held[k].end - read.begin), line = geometry_.line_floats(k);
        float* const kept = memory.data() + offsets[k];
        if (again && read.begin > held[k].begin) std::copy_n(kept + (read.begin - held[k].begin) * line, again * line, kept);
        made[k - 1] = {read.begin + again, read.end};
        held[k] = read;
      }
      for (size_t k = 0; k < count; ++k) {
        if (made[k].begin >= made[k].end) continue;
        const std::int64_t line = geometry_.line_floats(k + 1);
        float* const to = k + 1 == count ? y + (image * pixels[count].height + made[k].begin) * line
                                         : memory.data() + offsets[k + 1] + (made[k].begin - held[k + 1].begin) * line;
        Pixels in = pixels[k];
        in.images = 1;
        const float* const from = k ? memory.data() + offsets[k] : first;
        steps[k]->weights().run_lines(from, k ? held[k].begin : 0, in, to, made[k], chains[k], image);
      }
    }
  }

  Geometry geometry_;
  std::vector<std::unique_ptr<Step>> owned_;
};

}  // namespace

void join_lines(const std::vector<std::int64_t>& reads, const std::vector<Slot>& slots, std::vector<std::unique_ptr<Step>>& steps,
                std::vector<std::int64_t>& runs_at) {
  const auto count = static_cast<std::int64_t>(steps.size());
  const auto contraction = [&](std::int64_t i) { return dynamic_cast<ContractionStep*>(steps[i].get()); };
  // Of two forms a line of the one is no line of the other, even where there are as many.
  const auto joins = [&](const ContractionStep& from, const ContractionStep* to) {
    return to && to->x() == from.y() && to->form() == from.form() && slots[from.x()].form != Form::view && slots[to->y()].form != Form::view &&
           reads[from.y()] == 1 && from.weights().takes_lines(from.pixels()) && to->weights().takes_lines(to->pixels()) && !to->weights().takes_planar() &&
           slots[from.y()].numel() * 4 / at::get_num_threads() >= kSpills;
  };
  for (std::int64_t i = 0; i < count; ++i) {
    if (!contraction(i)) continue;
    std::vector<const ContractionStep*> run{contraction(i)};
    std::int64_t end = i + 1, bytes = run[0]->weights().weight_bytes();
    std::optional<Geometry> geometry;
    for (; end < count && joins(*run.back(), contraction(end)); ++end) {
      run.push_back(contraction(end));
      Geometry longer(run);
      bytes += run.back()->weights().weight_bytes();
      if (bytes > kWeights || longer.floats * 4 > kHeld) break;
      geometry = std::move(longer);
    }
    if (!geometry) continue;
    std::vector<std::unique_ptr<Step>> joined(std::make_move_iterator(steps.begin() + i), std::make_move_iterator(steps.begin() + end));
    std::fill(runs_at.begin() + i, runs_at.begin() + end, end - 1);
    steps[end - 1] = std::make_unique<LinesStep>(std::move(*geometry), std::move(joined));
    i = end - 1;
  }
}

}  // namespace fusible
