#pragma once

// A region's execution for one signature of inputs: steps over an arena, addresses settled by liveness. Steps compute in float32. Where all registers
// are bfloat16, inputs are widened, which rounds nothing, and results are rounded where they leave the region, instead of after each operator.

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ops/region/region.h"
#include "ops/trial.h"

namespace fusible {

// How a register's elements lie in memory inside a plan.
enum class Form {
  dense,   // contiguous in its logical order
  nhwc,    // 3 to 5 dimensions, channels innermost: NLC, NHWC, NDHWC
  view,    // by strides: part of another register's memory, or memory of its own in another order of the dimensions
  tensor,  // a tensor of its own, any strides: inputs of the region and results of ATen
};

// Strides of `sizes` in dense or nhwc memory.
std::vector<std::int64_t> strides_in(const std::vector<std::int64_t>& sizes, Form form);
// Whether a tensor lies so; strides of dimensions of size 1 do not count.
bool lies_in(const at::Tensor& t, Form form);

// What a plan knows of a register.
struct Slot {
  std::vector<std::int64_t> sizes;
  at::ScalarType dtype = at::kFloat;  // inside of the plan
  Form form = Form::tensor;
  std::int64_t alias_of = -1;  // same memory as another register of the plan
  std::int64_t shift = 0;      // where in that register's memory it begins, in elements
  std::vector<std::int64_t> strides;  // of a view
  std::int64_t offset = -1;    // in the arena; -1: written straight into output `output`, or form tensor
  std::int64_t output = -1;

  std::int64_t numel() const { return c10::multiply_integers(sizes); }
  std::vector<std::int64_t> strides_in_memory() const { return form == Form::view ? strides : strides_in(sizes, form); }
  // From a pixel to its neighbour, where 3 to 5 dimensions lie as channels of pixels without gaps between lines, frames or images: nhwc,
  // and a part of the channels of nhwc. 0: they do not.
  std::int64_t pixel_stride() const;
};

class Frame;

class Step {
 public:
  virtual ~Step() = default;
  virtual void run(Frame& frame) const = 0;
  // The contractions that it runs and their inputs, for those who watch (trial.h).
  virtual std::vector<Trial::Met> contractions() const { return {}; }
  // Arena floats that only this step needs.
  virtual std::int64_t scratch_floats() const { return 0; }
  virtual const char* name() const { return "loop nest"; }
  // Whether it is ATen's or oneDNN's, whose loops meet the threads by themselves.
  virtual bool has_own_threads() const { return false; }
  // Whether an nhwc result may be part of the channels of another register.
  virtual bool writes_pixels() const { return false; }
  std::int64_t scratch_offset = 0;
};

class Plan {
 public:
  // `seen`: what each register held in one execution by the operators (Region::interpret). Null where no plan gives the same result: an output that is a
  // view of an input or of another output.
  static std::shared_ptr<const Plan> make(const Region& region, const std::vector<at::Tensor>& seen);

  std::vector<at::Tensor> run(at::TensorList inputs) const;
  std::vector<std::string> explain() const;

 private:
  friend class Frame;
  struct Output {
    std::int64_t reg;
    std::vector<std::int64_t> sizes, strides;
    at::ScalarType dtype;
    std::optional<std::int64_t> integer;
  };
  // Steps [begin, end), which all meet the threads in the same way.
  struct Stretch {
    Stretch(size_t first, bool own) : begin(first), end(first), own_threads(own) {}
    size_t begin, end;
    bool own_threads;
    mutable std::atomic<std::int64_t> loops{0};  // of its steps, that met the threads one by one when it last ran so
  };
  void place();
  void find_stretches();
  void run_steps(const Stretch& stretch, Frame& frame) const;
  bool is_narrow() const { return dtype_ == at::kBFloat16; }

  at::ScalarType dtype_ = at::kFloat;  // of registers outside of the plan, where they are all of one
  std::vector<Instruction> instructions_;  // the region's, with the integers of this signature
  std::vector<Slot> slots_;
  std::vector<std::unique_ptr<Step>> steps_;      // of each instruction; null for an alias and for what runs with a later one
  std::vector<std::int64_t> runs_at_;             // the step that runs each instruction
  std::vector<std::vector<std::int64_t>> dying_;  // tensors of their own that no later step reads
  std::vector<Output> outputs_;
  std::deque<Stretch> stretches_;
  size_t bytes_ = 0;
};

// One execution of a plan.
class Frame {
 public:
  Frame(const Plan& plan, at::TensorList inputs, char* arena, std::vector<at::Tensor>& outputs);

  const Slot& slot(std::int64_t reg) const { return plan_.slots_[reg]; }
  // The register's elements in `form` (dense or nhwc); converted where they lie otherwise.
  const float* read(std::int64_t reg, Form form);
  float* write(std::int64_t reg);
  // The channels of the first pixel, nhwc, and how far apart the pixels are.
  const float* read_pixels(std::int64_t reg, std::int64_t& pixel_stride);
  float* write_pixels(std::int64_t reg, std::int64_t& pixel_stride);
  // The register as a tensor with its logical shape, widened.
  at::Tensor tensor(std::int64_t reg);
  // What the operator would find in the register; contiguous where it is narrowed: oneDNN's convolutions of bfloat16 in channels_last spread a NaN to
  // results that do not read it.
  at::Tensor narrow_tensor(std::int64_t reg);
  void hold(std::int64_t reg, at::Tensor tensor) { held_[reg] = std::move(tensor); }
  void drop(std::int64_t reg) { held_[reg] = at::Tensor(); }
  float* scratch(const Step& step) { return reinterpret_cast<float*>(arena_ + step.scratch_offset); }

 private:
  float* address(std::int64_t reg);

  const Plan& plan_;
  char* arena_;
  std::vector<at::Tensor>& outputs_;
  std::vector<at::Tensor> held_;
};

// What a step maker may look at. `made_form` is where it says how the result lies; false from a maker: it does not take this instruction.
struct Making {
  const Instruction& instruction;
  const std::vector<Instruction>& before;  // and with this one; register r is made by before[r - inputs]
  const std::vector<Slot>& slots;
  const std::vector<at::Tensor>& registers;  // results of the operators, without values, widened
  const Instruction& outside;                // the instruction with constants that are not widened
  Form made_form = Form::tensor;
  std::vector<std::int64_t> made_strides;  // where made_form is view: memory of its own, in another order of the dimensions

  const Slot& slot(size_t argument) const { return slots[instruction.arguments[argument].registers[0]]; }
  bool is_register(size_t argument) const { return instruction.arguments[argument].kind == Argument::Kind::one; }
  // The instruction that makes a register; null: an input.
  const Instruction* maker(std::int64_t reg) const {
    const std::int64_t index = reg - (instruction.result - static_cast<std::int64_t>(before.size()) + 1);
    return index < 0 ? nullptr : &before[index];
  }
  const c10::IValue& value(size_t argument) const { return instruction.arguments[argument].value; }
};

// Null where the loop nests do not take the instruction.
std::unique_ptr<Step> make_contraction(Making& making);
std::unique_ptr<Step> make_pool(Making& making);
std::unique_ptr<Step> make_elementwise(Making& making);
// "aten::relu", "aten::relu_" and their like; "aten::add" and its like.
bool is_activation(const std::string& op);
bool is_arithmetic(const std::string& op);
std::unique_ptr<Step> make_concat(Making& making);
std::unique_ptr<Step> make_shuffle(Making& making);
std::unique_ptr<Step> make_layer_norm(Making& making);
std::unique_ptr<Step> make_attention(Making& making);
// ATen's FlashAttention, which is taken where the elements of a row lie together, loses the NaN of a query that meets fewer keys than a vector holds and
// no mask; ATen's other way keeps it. So the operator is ATen's there, and given the strides that it would be given. `registers`: for their sizes.
bool attention_looks_at_strides(const Instruction& instruction, const std::vector<at::Tensor>& registers);
// Lets parts of a concatenation be made where they will lie, and shorter concatenations be seen in longer ones: slots become views.
void join_concats(std::int64_t inputs, std::vector<Slot>& slots, std::vector<std::unique_ptr<Step>>& steps);
// The joins below replace runs of steps by one step at the last one's place. `reads`: how often each register is read; `runs_at`: the step that
// runs each instruction. No memory is needed for what is passed on inside of a step.
// Elementwise operators on the result of another.
void join_elementwise(std::int64_t inputs, const std::vector<std::int64_t>& reads, const std::vector<Slot>& slots, std::vector<std::unique_ptr<Step>>& steps,
                      std::vector<std::int64_t>& runs_at);
// Contractions whose results between them leave the cache.
void join_lines(const std::vector<std::int64_t>& reads, const std::vector<Slot>& slots, std::vector<std::unique_ptr<Step>>& steps,
                std::vector<std::int64_t>& runs_at);
// Any instruction, through the dispatcher.
std::unique_ptr<Step> make_aten(Making& making);
// A result that is memory of another register: fills its slot; false where it is none.
bool make_alias(const Making& making, Slot& slot);

}  // namespace fusible
