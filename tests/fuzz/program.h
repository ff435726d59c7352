#pragma once

// A random module as text: attributes, calls and TorchScript sources. The text is what is printed, stored in cases/ and shrunk.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <torch/csrc/jit/api/module.h>

namespace fuzz {

using Sizes = std::vector<std::int64_t>;

struct TensorSpec {
  std::string name;                   // attribute "blk.w0" or input "x0"
  std::string dtype = "float32";
  Sizes sizes;
  std::string layout = "contiguous";  // channels_last, transposed, expanded, sliced, or an earlier name of the same call to share its memory
  std::string fill = "normal";        // positive, zero, nan, inf, big, integers
  std::uint64_t seed = 0;
};

struct Attribute {
  std::string kind;  // "parameter", "buffer", "number"
  TensorSpec tensor;
  std::int64_t number = 0;
};

struct Program {
  std::string note;                                         // first line, a comment
  std::vector<Attribute> attributes;                        // "owner.name": of submodule owner
  std::vector<std::vector<TensorSpec>> calls;               // inputs of forward, call by call
  std::map<std::string, std::vector<std::string>> sources;  // owner ("" is the root) -> lines

  std::string text() const;
  static Program parse(const std::string& text);  // throws std::runtime_error with the line
};

torch::jit::Module build(const Program& program);  // fresh types: nothing is shared with an earlier build
std::vector<c10::IValue> inputs_of(const std::vector<TensorSpec>& call);

}  // namespace fuzz
