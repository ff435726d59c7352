#pragma once

#include <unordered_map>

#include "passes/model.h"
#include "passes/patterns/library.h"

namespace fusible {

// Brings every method to the canonical form, scripted and traced alike: immutable attributes are constants, scalar expressions are
// folded, constant branches are spliced, shape queries ask the producer's input, what is transparent in eval is gone.
void normalize(Model& model, const patterns::Matcher& matcher);

// attributes.cpp: fills Model::assigned and Model::mutated, and replaces attributes that nothing assigns by constants.
void resolve_attributes(Model& model);
// fold.cpp: the value of a pure scalar node with constant inputs, from our own list of operators; null when it is not one.
std::optional<c10::IValue> folded(Node* node);
// trace_integers.cpp: what a trace computes from sizes on tensors is computed on integers.
void compute_with_integers(const std::shared_ptr<Graph>& graph);
// attention.cpp: the operators that torch.nn's attention and encoder layers become, as linear, scaled_dot_product_attention and layer_norm.
void spell_out_attention(Block* block);
// shape_queries.cpp: what the executor gives for `dim` of a convolution's result where it does not ask. Of a graph that nothing was done to: the
// executor sees through no operator, and a container is for it written by what may write to any attribute.
std::unordered_map<const Node*, std::int64_t> ranks_taken_for_granted(const std::shared_ptr<Graph>& graph);
// `dim` with a known rank is a constant. True when the node is gone.
bool fold_rank_query(Node* node, const std::unordered_map<const Node*, std::int64_t>& ranks);
// dim of what a contraction computes asks the contraction's input. After dead code is gone: what reads a value then is alive.
void forward_rank_queries(Block* block);

}  // namespace fusible
