#include "passes/chain.h"
#include "passes/dependence.h"

namespace fusible {

namespace {

Decline not_constant(const char* what, const Value* value, const Facts& facts) {
  const Node* producer = value->node();
  if (producer->kind() == torch::jit::prim::ListUnpack || producer->kind() == torch::jit::prim::TupleUnpack) producer = producer->input()->node();
  const std::string op = producer->kind().toQualString();
  const std::string subject = what + 2;  // without its article
  if (facts.is_written(value) && value->node()->kind() == torch::jit::prim::Constant)
    return {codes::weight_written, std::string(what) + " that nothing writes to", "the model writes to its " + subject + " in place",
            "keep the written tensor and the " + std::string(what) + " apart, or exclude the writing method with methods=[...]", {}};
  if (facts.is_not_dense(value))
    return {codes::device_or_layout, std::string(what) + " that is dense", "its " + subject + " is a sparse, quantized or opaque tensor",
            "store it dense (.to_dense(), .dequantize()) before the model is scripted", {}};
  if (value->node()->kind() == torch::jit::prim::GetAttr)
    return {codes::weight_written, std::string(what) + " that no method assigns", "attribute '" + value->node()->s(torch::jit::attr::name) +
            "' is assigned by the model", "register it as a parameter that no method assigns", {}};
  const bool input = value->node()->kind() == torch::jit::prim::Param;
  if (producer->kind() == torch::jit::prim::Uninitialized)
    return {codes::weight_not_constant, std::string(what) + " known when the model is fused", "its " + subject + " is never set: the model raises before",
            "script or trace the module in the state in which it runs", {}};
  return {codes::weight_not_constant, std::string(what) + " known when the model is fused",
          input ? "its " + subject + " is an input of the method" : "its " + subject + " is computed by " + op + " at run time",
          depends_on_inputs(value) ? "accept it: a product of two activations has nothing to fold or pack"
                                   : "store the result as a parameter or buffer before export (remove_parametrizations does it for weight_norm)", {}};
}

// An int list of `n` entries; one entry stands for all (as ATen expands it).
std::optional<std::vector<std::int64_t>> int_list(const Value* value, const Facts& facts, std::int64_t n) {
  const auto* found = value ? facts.constant(value) : nullptr;
  if (!found) return std::nullopt;
  std::vector<std::int64_t> list;
  if (found->isIntList()) list = found->toIntVector();
  else if (found->isInt()) list = {found->toInt()};
  else return std::nullopt;
  if (list.size() == 1) list.resize(n, list[0]);
  if (static_cast<std::int64_t>(list.size()) != n) return std::nullopt;
  return list;
}

std::optional<Decline> read_conv_attributes(const patterns::View& view, const Facts& facts, ContractionSpec& spec) {
  const std::int64_t spatial = spec.weight.dim() - 2;
  const auto dynamic = [](const char* what) {
    return Decline{codes::dynamic_attribute, std::string(what) + " known when the model is fused", std::string(what) + " computed at run time",
                   "give it as a number or as an attribute that no method assigns", {}};
  };
  auto stride = int_list(view["stride"], facts, spatial), dilation = int_list(view["dilation"], facts, spatial);
  if (!stride || !dilation) return dynamic("stride and dilation");
  spec.stride = *stride;
  spec.dilation = *dilation;
  const auto* padding = view["padding"] ? facts.constant(view["padding"]) : nullptr;
  if (padding && padding->isString()) {
    spec.padding_mode = padding->toStringRef();
    spec.padding.assign(spatial, 0);
  } else {
    auto list = int_list(view["padding"], facts, spatial);
    if (!list) return dynamic("padding");
    spec.padding = *list;
  }
  spec.output_padding.assign(spatial, 0);
  if (view["output_padding"]) {
    auto list = int_list(view["output_padding"], facts, spatial);
    if (!list) return dynamic("output_padding");
    spec.output_padding = *list;
  }
  const auto* groups = view["groups"] ? facts.constant(view["groups"]) : nullptr;
  if (!groups || !groups->isInt()) return dynamic("groups");
  spec.groups = groups->toInt();
  const auto below = [](const std::vector<std::int64_t>& list, std::int64_t least) {
    return std::any_of(list.begin(), list.end(), [&](auto v) { return v < least; });
  };
  if (below(spec.padding, 0) || spec.groups < 1 || spec.weight.size(0) % spec.groups != 0)
    return Decline{codes::unsupported_attribute, "padding >= 0 and groups that divide the channels", "its padding or groups are outside of that",
                   "pad with torch.nn.functional.pad before the convolution", {}};
  const bool named = spec.padding_mode.empty() || spec.padding_mode == "same" || spec.padding_mode == "valid";
  if (below(spec.stride, 1) || below(spec.dilation, 1) || below(spec.output_padding, 0) || !named)
    return Decline{codes::unsupported_attribute, "stride and dilation >= 1, output_padding >= 0, and padding of numbers, \"same\" or \"valid\"",
                   "an attribute that is outside of that", "nothing: the model raises here", {}};
  return std::nullopt;
}

int expected_spatial(const Node* node) {
  const std::string kind = node->kind().toQualString();
  return kind.find("1d") != std::string::npos ? 1 : kind.find("2d") != std::string::npos ? 2 : kind.find("3d") != std::string::npos ? 3 : 0;
}

}  // namespace

std::vector<Node*> Chain::nodes() const {
  std::vector<Node*> all{anchor};
  for (const auto& step : steps) all.insert(all.end(), step.nodes.begin(), step.nodes.end());
  return all;
}

std::string Chain::pattern() const {
  std::string text = entry->name;
  for (const auto& step : steps) text += "+" + step.name;
  return text;
}

std::int64_t channel_axis(const ContractionSpec& spec) { return spec.kind == Contraction::linear ? -1 : -(spec.weight.dim() - 1); }

Decided<Chain> read_contraction(const patterns::View& view, const Facts& facts) {
  Chain chain;
  chain.anchor = view.root;
  chain.entry = view.entry;
  chain.input = view["x"];
  auto& spec = chain.spec;
  const bool transposed_weight = view["weight_t"] != nullptr;
  Value* weight_value = transposed_weight ? view["weight_t"] : view["weight"];
  const auto* weight = facts.constant_tensor(weight_value);
  if (!weight) return not_constant("a weight", weight_value, facts);
  const bool linear = view.entry->name == "linear";
  if (linear ? weight->dim() != 2 : weight->dim() < 3 || weight->dim() > 5)
    return Decline{linear ? codes::weight_not_constant : codes::unsupported_attribute, linear ? "a constant matrix" : "1 to 3 spatial dimensions",
                   "its weight is a constant of rank " + std::to_string(weight->dim()), "nothing: products with vectors and batched constants are left as they are", {}};
  if (!at::isFloatingType(weight->scalar_type()))
    return Decline{codes::dtype, "a float weight", std::string("its weight is of ") + c10::toString(weight->scalar_type()), "nothing: only float weights are fused", {}};
  if (!weight->device().is_cpu() || weight->layout() != at::kStrided)
    return Decline{codes::device_or_layout, "a dense weight on the CPU", "its weight is on " + weight->device().str(), "load the model with map_location='cpu'", {}};
  spec.weight = transposed_weight ? weight->t().contiguous() : *weight;
  if (Value* bias_value = view["bias"]; bias_value && bias_value->type()->kind() != c10::TypeKind::NoneType) {
    const auto* constant = facts.constant(bias_value);
    if (!constant || !(constant->isNone() || facts.constant_tensor(bias_value))) return not_constant("a bias", bias_value, facts);
    if (constant->isTensor()) spec.bias = constant->toTensor();
  }
  if (linear) {
    spec.kind = Contraction::linear;
    const auto kind = chain.anchor->kind();
    if (kind == torch::jit::aten::addmm || kind == torch::jit::aten::mm) spec.expected_rank = 2;
  } else {
    spec.kind = view.entry->name == "conv_transpose" ? Contraction::conv_transpose : Contraction::conv;
    const int spatial = expected_spatial(chain.anchor);
    if (spatial && spatial != weight->dim() - 2)
      return Decline{codes::unsupported_attribute, "a weight of rank " + std::to_string(spatial + 2), "rank " + std::to_string(weight->dim()),
                     "nothing: the model raises here", {}};
    if (auto decline = read_conv_attributes(view, facts, spec)) return *decline;
    // conv2d takes an image without a batch; convolution and _convolution, which take any number of spatial dimensions, raise.
    if (!spatial) spec.expected_rank = weight->dim();
  }
  if (spec.bias.defined() && (spec.bias.dim() != 1 || spec.bias.size(0) != spec.out_channels() || spec.bias.scalar_type() != spec.weight.scalar_type()))
    return Decline{codes::dtype, "a bias of the weight's dtype with one entry per output channel",
                   std::string(c10::toString(spec.bias.scalar_type())) + " of rank " + std::to_string(spec.bias.dim()), "convert the bias", {}};
  return chain;
}

}  // namespace fusible
