#pragma once

// The report of a fuse or a lint: pure data, no torch types. Every writer (text, JSON, SARIF, HTML) reads only this.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fusible/export.h"

namespace fusible {

// A place in the user's Python source, as the archive knows it. `line` 0: unknown.
struct Location {
  std::string file;      // path on the machine that exported the model
  int line = 0;          // 1-based
  int column = 0;        // 1-based; 0: unknown
  int end_column = 0;
  std::string function;  // the user's function, "" if unknown
  std::string excerpt;   // source text of the line, "" if the archive has none

  bool known() const { return line > 0; }
};

// A node of the model as a person names it.
struct Site {
  std::string method;       // method of the root module, "forward"
  std::string module_path;  // "layer1.0.conv1"; "" is the root itself or unknown
  std::string op;           // "aten::conv2d"
  int ordinal = 0;          // n-th node of this op in the method's raw inlined graph, from 1
  Location location;
};

enum class Status { fused, declined, suppressed };
enum class Severity { note, warning, error };

// Exactly one per candidate (conv*, linear, matmul, addmm, bmm, batch_norm of the raw inlined graph).
struct Verdict {
  int candidate = 0;            // index in the order of the raw graph, from 0 over all treated methods
  Site site;
  Status status = Status::declined;
  std::string pattern;          // "conv+batch_norm+relu": the fused sequence, or how far a declined one got
  std::string emitted;          // operator that replaced it ("fusible::conv"); "" when declined
  std::string code;             // "FUS201" when declined or suppressed; "" when fused
  std::vector<Site> absorbed;   // the other nodes that the fused operator computes, in order
};

// A second place that explains a finding: the use, the write, the block.
struct Related {
  std::string label;  // "second use: aten::add"
  Site site;
};

struct Fix {
  enum class Kind { none, model_edit, call, option };
  Kind kind = Kind::none;
  std::string text;
  bool verified = false;  // re-matching an edited clone fused the sequence
};

struct Benefit {
  std::int64_t bytes = -1;  // memory traffic saved per call; -1: unknown
  std::int64_t flops = -1;
  double ns = -1;           // measured time saved per call
  std::string basis;        // "shapes of example_inputs", "measured", "" when unknown
};

// One finding: one cause, all the sites that share it.
struct Diagnostic {
  std::string code;      // "FUS201"
  std::string name;      // "second-use"
  Severity severity = Severity::warning;
  std::string kind;      // LLVM's kinds: "missed" or "analysis"
  std::string message;   // one sentence
  std::string needed;
  std::string found;
  std::string did;       // what was done instead
  std::string help;
  std::string pattern;   // "conv+batch_norm+relu"
  int matched = 0;       // steps of the pattern that matched
  int steps = 0;         // steps of the pattern
  Fix fix;
  std::vector<Site> sites;         // sites[0] is the blocking value's producer
  std::vector<Related> related;    // of sites[0]
  std::vector<int> candidates;     // verdicts that it speaks of, ascending
  std::vector<int> candidate_sites;  // per candidate the index of its site
  std::string fingerprint;         // stable across re-export: no value numbers, no lines
  Benefit benefit;
  bool suppressed = false;
};

// A sequence that runs another way than the cost model would let it, for inputs of one shape.
struct TunedSequence {
  Site site;
  std::string pattern;
  std::string shape;       // "1x64x56x56 region"
  std::string way;         // "panels", "onednn" or "aten"
  std::string instead_of;
  double gain = 0;         // time of what the cost model takes / time of this way: median
  double low = 0;          // 10th percentile
};

struct Tuning {
  std::string machine;
  int threads = 0;
  int rounds = 0;
  double ratio = 0;        // of the whole model, original / fused: median; 0: not measured
  double low = 0;          // 10th percentile
  std::vector<TunedSequence> sequences;
};

struct Counts {
  int candidates = 0;
  int fused = 0;
  int declined = 0;
  int suppressed = 0;
};

struct Report {
  std::string torch_version;
  std::string model;                 // path or ""
  std::string origin;                // "scripted", "traced", "frozen", "mixed"
  std::vector<std::string> methods;  // treated ones
  std::vector<Verdict> verdicts;
  std::vector<Diagnostic> diagnostics;
  std::map<std::string, double> timings_ms;  // per stage
  std::optional<Tuning> tuning;              // when it was tuned

  FUSIBLE_API Counts counts() const;
  FUSIBLE_API std::string to_json() const;              // schema 1, docs/report-schema.md
  FUSIBLE_API static Report from_json(const std::string& text);  // throws fusible::Error
  FUSIBLE_API std::string to_string() const;            // short text for logs; the CLI's rendering is Python
};

}  // namespace fusible
