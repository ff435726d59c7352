#pragma once

// One model taken through the stages of passes/pipeline.cpp up to the one that a test speaks of.

#include "passes/decide.h"
#include "passes/install.h"
#include "passes/layout.h"
#include "passes/normalize/normalize.h"
#include "passes/rewrite.h"
#include "tests/graph_matchers.h"
#include "tests/script.h"
#include "tests/tensor_matchers.h"

namespace fusible::testing {

// Parameters of a convolution of 4 to 6 channels and of a batch_norm behind it, with statistics that are not those of a new network.
inline Weights conv_and_norm() {
  return {{"w", seeded({6, 4, 3, 3}, 1)}, {"b", seeded({6}, 2)}, {"g", seeded({6}, 3)}, {"h", seeded({6}, 4)},
          {"m", seeded({6}, 5)}, {"v", seeded({6}, 6).abs() + 0.3}};
}
inline at::Tensor image() { return seeded({2, 4, 7, 7}, 9); }

// Each member brings the model one stage further, all before it included.
class Stages {
 public:
  explicit Stages(const torch::jit::Module& module, Options options = {}) : options_(std::move(options)), model_(load(module, options_)) {}

  Model& loaded() { return model_; }
  Model& normalized() {
    normalize(model_, *matcher_);
    return model_;
  }
  const Facts& facts() {
    normalized();
    facts_ = std::make_unique<Facts>(model_.methods[0], model_.written_storages);
    return *facts_;
  }
  const Decision& decided(const Declined& declined = {}) {
    facts();
    for (std::size_t i = 0; i < model_.candidates.size(); ++i) {
      verdicts_.emplace_back();
      verdicts_.back().candidate = static_cast<int>(i);
      verdicts_.back().site = model_.candidates[i].site;
    }
    decision_ = decide(model_, model_.methods[0], *facts_, *matcher_, options_, declined, verdicts_);
    return decision_;
  }
  Graph& rewritten() {
    decided();
    rewrite(model_.methods[0], decision_, options_, store_);
    forget_dead(model_, model_.methods[0]);
    return *model_.methods[0].graph;
  }
  Graph& laid_out() {
    rewritten();
    choose_layout(model_.methods[0], store_.objects());
    return *model_.methods[0].graph;
  }
  Module installed() {
    laid_out();
    return install(model_, store_, {});
  }

  Graph& graph() { return *model_.methods[0].graph; }
  const std::vector<Verdict>& verdicts() const { return verdicts_; }
  const PackedStore& store() const { return store_; }
  // The only node of that operator; fails the test when there is another number of them.
  Node* only(const std::string& op) {
    std::vector<Node*> found;
    for_each_node(graph().block(), [&](Node* node) {
      if (op == node->kind().toQualString()) found.push_back(node);
    });
    EXPECT_EQ(found.size(), 1u) << op << "\n" << graph();
    return found.at(0);
  }

 private:
  Options options_;
  Model model_;
  std::shared_ptr<const patterns::Matcher> matcher_ = patterns::matcher();
  std::unique_ptr<Facts> facts_;
  Decision decision_;
  std::vector<Verdict> verdicts_;
  PackedStore store_;
};

}  // namespace fusible::testing
