#include "ops/packed.h"

#include <algorithm>
#include <sstream>

#include <ATen/ATen.h>

#include "ops/packed_state.h"
#include "ops/post_op.h"

namespace fusible {
namespace {

const char* name_of(Contraction kind) {
  switch (kind) {
    case Contraction::conv: return "conv";
    case Contraction::conv_transpose: return "conv_transpose";
    default: return "linear";
  }
}

Contraction kind_from(const std::string& name) {
  for (Contraction kind : {Contraction::conv, Contraction::conv_transpose, Contraction::linear})
    if (name == name_of(kind)) return kind;
  TORCH_CHECK_VALUE(false, "fusible.Contraction needs kind conv, conv_transpose or linear, found \"", name, "\"");
}

void check_tensor(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK(tensor.layout() == at::kStrided && !tensor.is_quantized(), "fusible.Contraction needs a dense ", name, ", found layout ",
              tensor.layout(), " of ", tensor.scalar_type());
}

void check_channels(const at::Tensor& tensor, const char* name, std::int64_t channels) {
  if (!tensor.defined()) return;
  check_tensor(tensor, name);
  TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == channels, "fusible.Contraction needs ", name, " of shape [", channels, "], found ",
              tensor.sizes());
}

void check_list(const std::vector<std::int64_t>& list, const char* name, size_t length, std::int64_t least) {
  TORCH_CHECK(list.size() == length, "fusible.Contraction needs ", length, " entries in ", name, ", found ", list.size());
  for (std::int64_t entry : list) TORCH_CHECK(entry >= least, "fusible.Contraction needs ", name, " of at least ", least, ", found ", entry);
}

void check(const ContractionSpec& spec) {
  TORCH_CHECK(spec.weight.defined(), "fusible.Contraction needs a weight, found none");
  check_tensor(spec.weight, "weight");
  TORCH_CHECK(!spec.weight.is_meta(), "fusible.Contraction needs a weight with values, found one on the meta device");
  const std::int64_t rank = spec.weight.dim();
  const bool linear = spec.kind == Contraction::linear;
  TORCH_CHECK(linear ? rank == 2 : rank >= 3 && rank <= 5, "fusible.Contraction needs a weight of ", linear ? "2" : "3 to 5", " dimensions for ",
              name_of(spec.kind), ", found shape ", spec.weight.sizes());
  TORCH_CHECK(spec.groups > 0 && (!linear || spec.groups == 1) && spec.weight.size(0) % spec.groups == 0,
              "fusible.Contraction needs groups that divide the weight's first dimension, found groups ", spec.groups, " for shape ",
              spec.weight.sizes());
  TORCH_CHECK(spec.expected_rank >= 0, "fusible.Contraction needs expected_rank of at least 0, found ", spec.expected_rank);
  TORCH_CHECK(spec.padding_mode.empty() || (spec.kind == Contraction::conv && (spec.padding_mode == "same" || spec.padding_mode == "valid")),
              "fusible.Contraction needs padding_mode same or valid (conv only) or none, found \"", spec.padding_mode, "\" for ",
              name_of(spec.kind));
  const auto spatial = static_cast<size_t>(spec.spatial_dims());
  check_list(spec.stride, "stride", spatial, 1);
  check_list(spec.padding, "padding", spatial, 0);
  check_list(spec.dilation, "dilation", spatial, 1);
  check_list(spec.output_padding, "output_padding", spatial, 0);
  const std::int64_t channels = spec.out_channels();
  check_channels(spec.bias, "bias", channels);
  check_channels(spec.fold_scale, "fold_scale", channels);
  check_channels(spec.fold_shift, "fold_shift", channels);
  check_channels(spec.unfolded_bias, "unfolded_bias", channels);
  if (spec.unfolded_weight.defined()) {
    check_tensor(spec.unfolded_weight, "unfolded_weight");
    TORCH_CHECK(spec.unfolded_weight.sizes() == spec.weight.sizes(), "fusible.Contraction needs unfolded_weight of the weight's shape ",
                spec.weight.sizes(), ", found ", spec.unfolded_weight.sizes());
  }
  size_t operands = 0;
  for (const PostOp& step : parse_post_ops(spec.folded_ops)) operands += step.operands;
  TORCH_CHECK(operands == spec.folded_operands.size(), "fusible.Contraction needs ", operands, " operands for folded_ops \"", spec.folded_ops,
              "\", found ", spec.folded_operands.size());
  TORCH_CHECK(spec.folded_ops.empty() || spec.unfolded_weight.defined() || (spec.fold_scale.defined() && spec.fold_shift.defined()),
              "fusible.Contraction needs fold_scale and fold_shift with folded_ops \"", spec.folded_ops, "\", found none");
}

}  // namespace

bool ContractionSpec::has_usable_attributes() const {
  if (kind == Contraction::linear) return true;
  constexpr std::int64_t kMost = 1 << 16;
  const std::int64_t spatial = spatial_dims();
  const auto is_usable = [&](const std::vector<std::int64_t>& list, std::int64_t least) {
    return static_cast<std::int64_t>(list.size()) == spatial &&
           std::all_of(list.begin(), list.end(), [&](std::int64_t entry) { return entry >= least && entry <= kMost; });
  };
  return spatial >= 1 && spatial <= 3 && groups >= 1 && weight.size(0) % groups == 0 && is_usable(stride, 1) && is_usable(padding, 0) &&
         is_usable(dilation, 1) && is_usable(output_padding, 0);
}

at::Tensor own_constant(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  const at::Tensor constant = tensor.detach();
  const bool whole = constant.is_non_overlapping_and_dense() && constant.storage().nbytes() == constant.nbytes();
  return whole ? constant : constant.clone(at::MemoryFormat::Preserve);
}

PackedContraction::PackedContraction(ContractionSpec spec) : spec_(std::move(spec)) {
  if (spec_.kind == Contraction::linear) spec_.stride = spec_.padding = spec_.dilation = spec_.output_padding = {};
  const auto spatial = spec_.weight.defined() && spec_.weight.dim() > 2 ? static_cast<size_t>(spec_.weight.dim() - 2) : 0;
  if (spec_.output_padding.empty()) spec_.output_padding.assign(spatial, 0);
  if (spec_.padding.empty() && !spec_.padding_mode.empty()) spec_.padding.assign(spatial, 0);
  check(spec_);
  spec_.weight = own_constant(spec_.weight);
  values_ = std::make_shared<WeightValues>(spec_.weight);
  if (spec_.weight.device().is_cpu()) spec_.weight = without_values(spec_.weight);
  for (at::Tensor* tensor : {&spec_.bias, &spec_.fold_scale, &spec_.fold_shift, &spec_.unfolded_weight, &spec_.unfolded_bias})
    *tensor = own_constant(*tensor);
  for (at::Tensor& operand : spec_.folded_operands) operand = own_constant(operand);
  choose(std::move(spec_.choices));
}

const PackedState& PackedContraction::packed(PackedFor kernel, const std::function<std::unique_ptr<PackedState>()>& make) const {
  Slot& slot = slots_[static_cast<size_t>(kernel)];
  std::call_once(slot.once, [&] { slot.state = make(); });
  return *slot.state;
}

std::string PackedContraction::describe() const {
  std::ostringstream text;
  text << name_of(spec_.kind) << " weight=" << spec_.weight.sizes() << ' ' << spec_.weight.scalar_type() << " strides=" << spec_.weight.strides()
       << " bias=" << (spec_.bias.defined() ? "yes" : "no");
  if (spec_.kind != Contraction::linear) {
    text << " stride=" << at::IntArrayRef(spec_.stride) << " padding=";
    if (spec_.padding_mode.empty())
      text << at::IntArrayRef(spec_.padding);
    else
      text << spec_.padding_mode;
    text << " dilation=" << at::IntArrayRef(spec_.dilation) << " groups=" << spec_.groups;
    if (spec_.kind == Contraction::conv_transpose) text << " output_padding=" << at::IntArrayRef(spec_.output_padding);
  }
  if (!spec_.folded_ops.empty()) text << " folded=" << spec_.folded_ops;
  for (const Choice& choice : here_) text << ' ' << name_of(choice.way) << '@' << choice.threads << " threads " << to_string(choice.shape);
  return text.str();
}

c10::intrusive_ptr<PackedContraction> make_packed(ContractionSpec spec) { return c10::make_intrusive<PackedContraction>(std::move(spec)); }

void register_contraction_class() {
  using Self = c10::intrusive_ptr<PackedContraction>;
  static const auto registered =
      torch::class_<PackedContraction>("fusible", "Contraction")
          .def(torch::init([](const std::string& kind, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                              std::vector<std::int64_t> stride, std::vector<std::int64_t> padding, std::vector<std::int64_t> dilation,
                              std::vector<std::int64_t> output_padding, std::int64_t groups, std::string padding_mode) {
                 ContractionSpec spec;
                 spec.kind = kind_from(kind);
                 spec.weight = weight;
                 spec.bias = bias.value_or(at::Tensor());
                 spec.stride = std::move(stride);
                 spec.padding = std::move(padding);
                 spec.dilation = std::move(dilation);
                 spec.output_padding = std::move(output_padding);
                 spec.groups = groups;
                 spec.padding_mode = std::move(padding_mode);
                 return make_packed(std::move(spec));
               }),
               "kind conv, conv_transpose or linear; lists have one entry per spatial dimension and are empty for linear",
               {torch::arg("kind"), torch::arg("weight"), torch::arg("bias") = c10::IValue(),
                torch::arg("stride") = std::vector<std::int64_t>{}, torch::arg("padding") = std::vector<std::int64_t>{},
                torch::arg("dilation") = std::vector<std::int64_t>{}, torch::arg("output_padding") = std::vector<std::int64_t>{},
                torch::arg("groups") = 1, torch::arg("padding_mode") = std::string()})
          .def("weight", [](const Self& self) { return self->values()->dense(); })
          .def("bias", [](const Self& self) {
            return self->spec().bias.defined() ? std::optional<at::Tensor>(self->spec().bias) : std::nullopt;
          })
          .def("describe", [](const Self& self) { return self->describe(); })
          .def("bytes", [](const Self& self) { return bytes_held({self->values()}); }, "of the weight: dense, and packed for this machine")
          .def("__repr__", [](const Self& self) { return "fusible.Contraction(" + self->describe() + ")"; })
          .def_pickle(
              [](const Self& self) {
                ContractionSpec spec = self->spec();
                spec.weight = self->values()->dense();
                return save_state(spec);
              },
              [](const SavedState& state) { return make_packed(load_state(state)); });
}

}  // namespace fusible
