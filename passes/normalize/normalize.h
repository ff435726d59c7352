#pragma once

#include <unordered_set>

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
// shape_queries.cpp: the results of convolutions that lie in a container through which the executor takes them for written. Of a graph whose
// attributes are not yet constants, which are memory of their own.
std::unordered_set<const Value*> written_in_containers(const std::shared_ptr<Graph>& graph);
// dim of a convolution's result, unless it is `written`, is a constant. True when the node is gone.
bool fold_rank_query(Node* node, const std::unordered_set<const Value*>& written);
// dim of what a contraction computes asks the contraction's input. After dead code is gone: what reads a value then is alive.
void forward_rank_queries(Block* block);

}  // namespace fusible
