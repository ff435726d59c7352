#pragma once

// A contraction and the post-ops that follow it: the unit that is decided on, and rewritten to one operator.

#include <string>
#include <unordered_set>
#include <vector>

#include "ops/packed.h"
#include "passes/facts.h"
#include "passes/findings.h"

namespace fusible {

// An affine step y = scale * x + shift per channel, foldable into weight and bias, with its original form for Contraction::folded_ops.
struct Affine {
  at::Tensor scale, shift;           // [O] float64
  std::string text;                  // "batch_norm(1e-05)", "mul(0.5)", "add"
  std::vector<at::Tensor> operands;
};

struct Step {
  std::string name;                  // vocabulary entry: "batch_norm", "add", "relu"
  std::vector<Node*> nodes;          // the step's root is last
  std::optional<Affine> affine;      // set: folded into the weights
  std::string text;                  // post-op chain step when not folded: "add_", "hardtanh(0, 6)"
  std::vector<Value*> operands;      // tensors that the step takes
};

struct Chain {
  Node* anchor = nullptr;
  const patterns::Entry* entry = nullptr;
  ContractionSpec spec;              // as in the graph, nothing folded yet
  Value* input = nullptr;
  std::vector<Step> steps;

  Node* root() const { return steps.empty() ? anchor : steps.back().nodes.back(); }
  std::vector<Node*> nodes() const;
  std::string pattern() const;       // "conv+batch_norm+relu"
};

struct Decline {
  Code code;
  std::string needed, found, help;
  Fix fix = {};
};

template <typename T>
struct Decided {
  std::optional<T> value;
  std::optional<Decline> decline;
  Decided(T v) : value(std::move(v)) {}
  Decided(Decline d) : decline(std::move(d)) {}
};

// contraction.cpp: the weights and attributes of an anchor as constants.
Decided<Chain> read_contraction(const patterns::View& view, const Facts& facts);
// Axis of the output channels counted from the right: -1 for linear, -(spatial + 1) for convolutions.
std::int64_t channel_axis(const ContractionSpec& spec);

// affine.cpp: batch_norm in eval, and add, sub, mul, div with a constant, as one affine step. nullopt: not affine, go on as a binary step.
Decided<Affine> batch_norm_affine(const patterns::View& view, const ContractionSpec& spec, const Facts& facts);
Decided<std::optional<Affine>> binary_affine(const patterns::View& view, bool chain_on_left, const ContractionSpec& spec, const Facts& facts);
// weight' = scale * weight, bias' = scale * bias + shift, in float64, rounded once (S15).
ContractionSpec fold(ContractionSpec spec, const std::vector<Affine>& affines);

// What walks start from, and what they may take in several nodes at once, by the value it starts from.
std::vector<patterns::View> contractions_of(Graph& graph, const patterns::Matcher& matcher, const Facts& facts);
using Composites = std::unordered_multimap<const Value*, const patterns::View*>;
Composites by_start(const std::vector<patterns::View>& composites);

struct WalkContext {
  const Facts& facts;
  const patterns::Matcher& matcher;
  const Composites& composites;
  const std::unordered_set<const Node*>& claimed;
  bool strict = false;
};

// walk.cpp: extends the chain as far as it is provably right; the finding says why it ended, when there was more to fuse.
std::optional<Finding> extend(Chain& chain, const WalkContext& context);

// Text of a scalar constant in a post-op chain: shortest form that reads back to the same number.
std::string scalar_text(const c10::IValue& value);
// Whether the fused operators take the text as one step of so many operands: a constant may be None or a string where a user's entry says that
// it is a number.
bool is_step(const std::string& text, int operands);

// Whether behind one pixel or channel, whose strides are those of contiguous and of channels_last at once, an activation leaves them, as `step` does
// in place and not out of place. Of several operators it is found by running them.
bool leaves_strides_of_a_pixel(const patterns::View& view, const std::string& step, const Facts& facts);

}  // namespace fusible
