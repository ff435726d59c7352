#pragma once

// A pattern set as data: what the parser reads from *.fus files (patterns/README.md) and what the matcher and the passes work with.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/core/interned_strings.h>
#include <ATen/core/ivalue.h>

namespace torch::jit {
struct Graph;
struct Node;
struct Value;
}  // namespace torch::jit

namespace fusible::patterns {

using torch::jit::Node;
using torch::jit::Value;

// None, bool, int, float, string, int list. Numbers compare by value: 0 equals 0.0.
using Literal = std::variant<std::monostate, bool, std::int64_t, double, std::string, std::vector<std::int64_t>>;

// The compile-time constant of a value (prim::Constant, a list of constants, a folded expression), or null.
using ConstantOf = std::function<const c10::IValue*(const Value*)>;

// One argument of an operation in a pattern, at its place in the operator's schema.
struct Arg {
  std::string name;               // role or variable; "" when the argument is only compared or ignored ("_")
  std::optional<Literal> equals;  // the argument must be this constant
  double tolerance = 0;           // for floats: 0.7978845 ~1e-4
  std::string role;               // of an operation of the vocabulary: the role meant; "" for an operator's argument
};

// `out = op(args)`. `op` is an operator ("aten::add", any overload of that arity; "aten::add.Tensor", that one; "aten::relu.default", the
// overload without a name) or the name of a contraction or post-op of the vocabulary, which stands for any of its spellings.
struct Operation {
  std::string out;
  std::vector<std::string> others;  // second and further outputs
  std::string op;
  std::vector<Arg> args;
  bool commutative = false;         // the first two arguments may change places
  int line = 0, column = 0;         // of `op` in its file
};

// One way the same thing is written in TorchScript. Several operations: a composite, the last one is its root.
struct Spelling {
  std::vector<Operation> operations;
  std::string file;
  bool is_composite() const { return operations.size() > 1; }
};

// One argument of a case's function: a tensor filled with random numbers.
struct CaseArgument {
  std::string name;
  std::vector<std::int64_t> sizes;
  bool constant = false;  // a weight: known when the pattern is applied
  bool positive = false;  // a variance
};

struct Case {
  bool fuses = true;
  std::string code;    // declines CODE
  std::vector<CaseArgument> arguments;
  std::string source;  // TorchScript function text, dedented
  int line = 0;        // of the `case` line
};

// A member of the vocabulary: one contraction or one post-op, one file.
struct Entry {
  enum class Kind { contraction, activation, binary, normalization, transparent };
  Kind kind;
  std::string name;               // "conv", "relu"
  std::string algebra, doc, gradient, onednn;
  std::string numerics = "exact"; // "exact" or "ulp(n)"
  bool onednn_keeps_nan = true;
  std::string step;               // post-op step of the emitted chain: "hardtanh"; with fixed arguments: "gelu(tanh)"
  std::vector<std::string> step_args;  // roles of its scalar arguments in order: {"lo", "hi"}; a role that the spelling lacks is none
  std::vector<Spelling> spellings;
  std::vector<Case> cases;
  std::string file;

  // A post-op of one value: what else it reads belongs to it.
  bool is_unary() const { return kind == Kind::activation || kind == Kind::normalization; }
};

// A free-form rule: what a user's file adds beside the vocabulary.
struct Need {
  std::string condition;             // name registered with fusible::register_condition
  std::vector<std::string> args;     // variables or literals as written
  std::string code;                  // code it declines with
  int line = 0;
};
struct Rule {
  std::string name, doc, file;
  bool exact = false;                // gives the same bits, NaN and the sign of zero included: strict=True applies it
  std::vector<Operation> match;      // the last one is the root
  std::vector<Need> needs;
  std::vector<Operation> emit;       // the last one replaces the root's output; "c.stride" names an argument of a matched operation
  std::vector<Case> cases;
};

struct Library {
  std::vector<Entry> entries;
  std::vector<Rule> rules;

  const Entry* entry(const std::string& name) const;
};

// Reads one file; `name` is for messages. Throws fusible::Error "name:line:column: needed ..., found ..." and leaves `library` as it was.
void parse_into(Library& library, const std::string& text, const std::string& name);
// The embedded files and what load_patterns() added, parsed once. Thread-safe.
std::shared_ptr<const Library> library();

// A node, or a composite of nodes, seen as a member of the vocabulary.
struct View {
  const Entry* entry = nullptr;
  Node* root = nullptr;                        // its first output is the result
  std::vector<Node*> nodes;                    // all of them, root last
  std::vector<std::pair<std::string, Value*>> roles;
  bool in_place = false;                       // the root is an in-place operator on role x

  Value* operator[](const char* role) const;   // null when the spelling has no such argument
};

// Where a rule's variables stand in the nodes of its matches.
struct Reading;

// A match of a free-form rule. Lives no longer than its Matcher.
struct Match {
  const Rule* rule = nullptr;                       // the first of `rules`
  const std::vector<const Rule*>* rules = nullptr;  // all that share this structure and differ in needs or emit, in file order
  Node* root = nullptr;
  std::vector<Node*> nodes;                         // in the order of the rule's operations, root last
  const Reading* reading = nullptr;

  // A variable, a result, or the "c.stride" that the rule's needs or emit speak of; null for another name.
  Value* operator[](std::string_view variable) const;
};

// How far a rule got at a root before it failed, with the operation that was expected and the node found in its place.
struct NearMiss {
  const Rule* rule = nullptr;
  Node* root = nullptr;
  Node* found = nullptr;
  int matched = 0;                // operations
  std::string_view expected;      // "aten::conv2d as input 0 of aten::relu"; lives as long as the Matcher
};

// All patterns of a library as one automaton; immutable, thread-safe.
class Matcher {
 public:
  explicit Matcher(std::shared_ptr<const Library> library);
  ~Matcher();

  // The single-node reading of `node`, if the vocabulary has one. Of several, the one with most compared constants, then file order.
  std::optional<View> view(Node* node, const ConstantOf& constant) const;

  struct Result {
    std::vector<View> composites;   // decomposed post-ops: x * sigmoid(x)
    std::vector<Match> matches;
    std::vector<NearMiss> near_misses;
  };
  // One walk over all blocks; structure and constants only, no aliasing, no use counts: decide proves those.
  Result match(torch::jit::Graph& graph, const ConstantOf& constant) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The matcher of library(), built once per state of it (20 ms).
std::shared_ptr<const Matcher> matcher();

}  // namespace fusible::patterns
