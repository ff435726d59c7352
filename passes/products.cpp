#include "passes/products.h"

#include <sstream>

namespace fusible {

namespace {

namespace aten = torch::jit::aten;

// addmm(bias, x, matrix, beta, alpha) = beta bias + alpha x matrix
Decline of_factors(const torch::jit::Node* addmm, const Facts& facts) {
  std::ostringstream found;
  for (const auto& [name, input] : {std::pair("beta", addmm->input(3)), std::pair("alpha", addmm->input(4))}) {
    const auto* factor = facts.constant(input);
    if (!factor || !factor->isScalar())
      return {codes::dynamic_attribute, std::string("a constant as ") + name + " of aten::addmm", "a value that is computed at run time",
              "fix it where the module is built"};
    found << (found.tellp() ? " and " : "") << name << "=" << factor->toScalar();
  }
  return {codes::alpha_not_one, "beta=1 and alpha=1", found.str(), "scale the bias by beta and the weight by alpha where the module is built"};
}

}  // namespace

Decline of_product(const torch::jit::Node* product, const Facts& facts) {
  const auto constant = [&](std::size_t i) { return facts.constant_tensor(product->input(i)) != nullptr; };
  if (product->kind() == aten::addmm && product->inputs().size() == 5 && constant(2)) return of_factors(product, facts);
  if (product->kind() == aten::bmm && (constant(0) || constant(1)))
    return {codes::weight_not_constant, "one constant matrix", "a batch of constant matrices",
            "accept it: a product with a matrix of its own for each image has no fused operator"};
  return {codes::weight_not_constant, "a constant weight", "a product of two values that are computed at run time",
          "accept it: a product of two activations has nothing to fold or pack"};
}

}  // namespace fusible
