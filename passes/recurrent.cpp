#include "passes/recurrent.h"

namespace fusible {

namespace {

namespace aten = torch::jit::aten;

// Arguments of aten::lstm.input and aten::gru.input: input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first.
constexpr std::size_t kParams = 2, kBiases = 3, kLayers = 4, kTrain = 6, kBidirectional = 7, kBatchFirst = 8, kArguments = 9;

Decline of_flag(const Node* node, const std::string& name) {
  return {codes::dynamic_attribute, "a constant as " + name + " of " + node->kind().toQualString(), "a value that is computed at run time",
          "fix it where the module is built"};
}

// A list of constants that nothing writes to; empty: it is none.
std::vector<at::Tensor> constant_tensors(const Value* list, const Facts& facts) {
  std::vector<at::Tensor> tensors;
  if (list->node()->kind() == torch::jit::prim::ListConstruct) {
    for (const Value* element : list->node()->inputs()) {
      const auto* tensor = facts.constant_tensor(element);
      if (!tensor) return {};
      tensors.push_back(*tensor);
    }
  }
  // One literal, as torch.jit.freeze leaves it: where these operators alone read it, nobody can get at the tensors in it.
  const bool only_here = std::all_of(list->uses().begin(), list->uses().end(),
                                     [](const torch::jit::Use& use) { return is_recurrent(use.user) && use.offset == kParams; });
  if (const auto* literal = facts.constant(list); tensors.empty() && literal && literal->isTensorList() && only_here) tensors = literal->toTensorVector();
  return tensors;
}

std::optional<Decline> check_weights(const RecurrentSpec& spec) {
  if (spec.weights.empty())
    return Decline{codes::weight_not_constant, "constant weights", "weights that are computed or written at run time",
                   "keep the weights as parameters of torch.nn.LSTM or torch.nn.GRU, which nothing writes to"};
  for (const auto& tensor : spec.weights)
    if (!tensor.defined() || tensor.scalar_type() != at::kFloat || !tensor.device().is_cpu() || tensor.layout() != at::kStrided)
      return Decline{codes::dtype, "float32 weights on the CPU", tensor.defined() ? std::string(c10::toString(tensor.scalar_type())) + " weights" : "none",
                     "accept it: torch's operator computes this dtype"};
  const auto per_layer = static_cast<std::size_t>(spec.layers * spec.directions());
  if (spec.weights.size() != per_layer * spec.per_layer())
    return Decline{codes::unsupported_attribute, std::to_string(spec.per_layer()) + " weights for each layer and direction",
                   std::to_string(spec.weights.size() / std::max<std::size_t>(per_layer, 1)) + " weights for each layer and direction: projections (proj_size)",
                   "accept it: torch's operator computes projections"};
  return std::nullopt;
}

}  // namespace

bool is_recurrent(const Node* node) { return node->kind() == aten::lstm || node->kind() == aten::gru; }

Decided<AcceptedRecurrence> read_recurrence(Node* node, const Facts& facts) {
  const auto* schema = node->maybeSchema();
  if (!schema || schema->overload_name() != "input" || node->inputs().size() != kArguments)
    return Decline{codes::unsupported_attribute, "a tensor with all sequences of one length", "a packed sequence (pack_padded_sequence)",
                   "pad the sequences where their lengths are alike, or accept it: torch's operator computes packed ones"};
  const auto flag = [&](std::size_t i) -> std::optional<bool> {
    const auto* value = facts.constant(node->input(i));
    return value && value->isBool() ? std::optional(value->toBool()) : std::nullopt;
  };
  const auto biases = flag(kBiases), train = flag(kTrain), bidirectional = flag(kBidirectional), batch_first = flag(kBatchFirst);
  const auto* layers = facts.constant(node->input(kLayers));
  if (!biases) return of_flag(node, "has_biases");
  if (!layers || !layers->isInt()) return of_flag(node, "num_layers");
  if (!train) return of_flag(node, "train");
  if (!bidirectional) return of_flag(node, "bidirectional");
  if (!batch_first) return of_flag(node, "batch_first");
  if (*train)
    return Decline{codes::unsupported_attribute, "train=False", "train=True, with which dropout between the layers draws random numbers",
                   "call eval() on the module before it is scripted or saved", {Fix::Kind::call, "eval()", false}};
  RecurrentSpec spec;
  spec.cell = node->kind() == aten::lstm ? kernels::CellKind::lstm : kernels::CellKind::gru;
  spec.biases = *biases;
  spec.layers = layers->toInt();
  spec.bidirectional = *bidirectional;
  spec.batch_first = *batch_first;
  spec.weights = constant_tensors(node->input(kParams), facts);
  if (auto decline = check_weights(spec)) return std::move(*decline);
  try {
    return AcceptedRecurrence{node, c10::make_intrusive<Recurrent>(std::move(spec))};
  } catch (const c10::Error& error) {
    return Decline{codes::unsupported_attribute, "weights with the shapes of torch's documentation", error.what_without_backtrace(),
                   "mend the weights: torch's operator raises, too"};
  }
}

}  // namespace fusible
