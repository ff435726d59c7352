#pragma once

// Random programs over the operator classes of patterns/: text in, text out, and the shapes that keep most of them valid.

#include "tests/fuzz/program.h"
#include "tests/fuzz/quota.h"
#include "tests/fuzz/random.h"

namespace fuzz {

// A tensor variable of the program. `shapes[v]` is its shape when forward is called with the inputs of variant v.
struct Variable {
  std::string name;
  std::vector<Sizes> shapes;
  const Sizes& sizes() const { return shapes.front(); }
  std::int64_t rank() const { return static_cast<std::int64_t>(shapes.front().size()); }
};

class Generator {
 public:
  // `steers`: each contraction is followed by a step that is left by a code drawn from quota.h, or is left itself.
  explicit Generator(std::uint64_t seed, bool steers = false) : random_(seed), seed_(seed), steers_(steers) {}
  Program program();

 private:
  // generator.cpp: structure
  void inputs();
  void body(int steps);
  void step();
  void conditional();
  void loop();
  void raise();
  void submodule();
  void outputs();
  void layouts();
  // contractions.cpp
  void contraction();
  void convolution(bool transposed);
  void linear();
  void product_of_activations();
  bool same_width() const;
  void recurrent(const Cell& cell = {});
  void batch_norm();
  // steps.cpp
  void activation();
  void composite();
  void binary();
  void view();
  void write();
  void other_operator();
  std::string operand(const Variable& v, bool& scalar);
  std::string divisor(const std::string& name) const;
  // pieces.cpp
  void pieces();
  std::string part(const Variable& v, std::int64_t& channels);
  void concatenation();
  void split_block();
  void resampling();
  // quota.cpp
  void steered();
  void left_step(const Cell& cell);
  void left_contraction(const Cell& cell);
  std::string step_text(const Cell& cell, const Variable& v, const std::string& value);

  void line(const std::string& text) { lines_->push_back(std::string(4 * indent_, ' ') + text); }
  const Variable& current() const { return variables_.back(); }
  const Variable& any() { return random_.chance(80) ? current() : random_.pick(variables_); }
  // A new variable `name = text`; shapes as given, or those of `like`.
  void assign(const std::string& text, std::vector<Sizes> shapes);
  std::string tensor(const std::string& kind, const Sizes& sizes, const std::string& fill, const std::string& dtype = "");
  std::string input(const std::vector<Sizes>& shapes);
  std::string weight(const Sizes& sizes, const std::string& fill);
  bool is_root() const { return owner_.empty(); }

  Random random_;
  std::uint64_t seed_;
  bool steers_;
  Program program_;
  std::vector<std::vector<TensorSpec>> variants_;  // inputs by variant
  std::vector<Variable> variables_;
  std::vector<std::string>* lines_ = nullptr;
  std::string owner_, dtype_;
  int indent_ = 1, counter_ = 0, depth_ = 0;
  bool certain_ = true;  // shapes are those that are followed: false behind branches, and in a submodule, which is called with others too
  std::vector<std::string> written_;   // attributes that method `state` shows
  std::vector<std::string> returned_;  // variables that the method must return
};

}  // namespace fuzz
