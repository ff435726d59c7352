#include "tests/fuzz/check.h"

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/frontend/error_report.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <sstream>

#include "fusible/fusible.h"
#include "tests/fuzz/session.h"

namespace fuzz {

namespace {

bool is_candidate(const torch::jit::Node* node) {
  const std::string kind = node->kind().toQualString();
  static const std::set<std::string> kinds{"aten::linear", "aten::matmul", "aten::addmm", "aten::bmm", "aten::batch_norm"};
  return kinds.count(kind) != 0 || kind.rfind("aten::conv", 0) == 0 || kind.rfind("aten::_convolution", 0) == 0;
}

int candidates(const torch::jit::Block* block) {
  int count = 0;
  for (const auto* node : block->nodes()) {
    count += is_candidate(node);
    for (const auto* inner : node->blocks()) count += candidates(inner);
  }
  return count;
}

// Law 2: fused + declined + suppressed is the number of candidates, counted here without fusible.
std::string verdicts_missing(const torch::jit::Module& original, const fusible::Report& report) {
  int expected = 0;
  for (const auto& method : report.methods) {
    const auto graph = original.get_method(method).graph()->copy();
    torch::jit::Inline(*graph);
    expected += candidates(graph->block());
  }
  const auto counts = report.counts();
  if (counts.fused + counts.declined + counts.suppressed != expected || counts.candidates != expected)
    return "verdicts: " + std::to_string(counts.fused) + " fused, " + std::to_string(counts.declined) + " declined, " + std::to_string(counts.suppressed) +
           " suppressed of " + std::to_string(expected) + " candidates";
  for (const auto& verdict : report.verdicts) {
    if ((verdict.status == fusible::Status::fused) != verdict.code.empty()) return "verdict " + std::to_string(verdict.candidate) + " has no single outcome";
  }
  return "";
}

void forward_dropouts(torch::jit::Block* block) {
  for (auto* node : block->nodes()) {
    for (auto* inner : node->blocks()) forward_dropouts(inner);
    if (node->kind() == torch::jit::aten::dropout && torch::jit::toIValue(node->input(2)) == c10::IValue(false))
      node->output()->replaceAllUsesWith(node->input(0));
  }
}

// As the executor runs it from the second call on: results that nothing reads are not computed, and raise nothing. The executor does not know
// that `training` is False; who fuses does, and so which branches never run. Both take a convolution's rank for that of its weight, so that the
// check of it (Generator::batch_norm) reads nothing. A dropout that drops nothing is no reader either: the executor keeps it in a loop, with what
// it would be given.
torch::jit::Module without_dead_code(Program program) {
  const std::string mode = "self.training";
  for (auto& [owner, lines] : program.sources) {
    for (auto& line : lines)
      for (std::size_t at; (at = line.find(mode)) != std::string::npos;) line.replace(at, mode.size(), "False");
    for (std::size_t i = 1; i < lines.size();)
      if (lines[i].find("expected other dimensions") != std::string::npos) lines.erase(lines.begin() + i - 1, lines.begin() + i + 1);
      else ++i;
  }
  torch::jit::Module module = build(program);
  for (const auto& method : module.get_methods()) {
    auto graph = torch::jit::toGraphFunction(method.function()).graph();
    torch::jit::Inline(*graph);
    torch::jit::ConstantPropagation(graph);
    forward_dropouts(graph->block());
    torch::jit::EliminateDeadCode(graph);
  }
  return module;
}

bool is_bfloat16(const Program& program) {
  const auto is = [](const TensorSpec& t) { return t.dtype != "float32" && t.dtype != "float64" && t.dtype != "float16"; };
  return epsilon_of(program) > 2e-3 && std::all_of(program.attributes.begin(), program.attributes.end(), [&](const auto& a) { return is(a.tensor); }) &&
         std::all_of(program.calls.begin(), program.calls.end(), [&](const auto& call) { return std::all_of(call.begin(), call.end(), is); });
}

// As ATen computes it where oneDNN does not take part, which depends on layouts: oneDNN's gelu makes NaN of +inf, ATen's own keeps it.
Session without_onednn(const std::function<Session()>& session) {
  at::globalContext().setUserEnabledMkldnn(false);
  const Session seen = session();
  at::globalContext().setUserEnabledMkldnn(true);
  return seen;
}

// "" when the fused module does what the original does, with all that may count as the original (law 1): as the executor optimizes it,
// in its first call or in later ones, with or without oneDNN, and as Python runs it, operator by operator, or what of it is not dead. Torch's
// executor drops a dead training batch_norm once it has simplified something else, and takes the rank of a convolution's result for granted.
// Values may differ by what one rounding of inputs and weights does to the original.
std::string differs_from_original(const Program& program, const Session& expected, const Session& found, std::vector<Session> wide) {
  Tolerance tolerance{.epsilon = epsilon_of(program), .references = std::move(wide)};
  if (differ(expected, found, tolerance).empty()) return "";
  constexpr int kPerturbed = 8;
  for (int i = 0; i < kPerturbed; ++i) tolerance.references.push_back(run(build(program), program, As::perturbed, i));
  auto why = differ(expected, found, tolerance);
  if (why.empty()) return why;
  if (differ(run(without_dead_code(program), program), found, tolerance).empty()) return "";
  // oneDNN's convolutions of bfloat16 spread NaN, and whether padding is multiplied by an infinity is each implementation's own.
  if (is_bfloat16(program) && differ(run(build(program), program, As::float32), found, tolerance).empty()) return "";
  const Session by_aten = without_onednn([&] { return run(build(program), program); });
  if (differ(by_aten, found, tolerance).empty()) return "";
  const torch::jit::GraphOptimizerEnabledGuard operator_by_operator(false);
  const auto plain = run(build(program), program);
  Tolerance by_operator{.epsilon = tolerance.epsilon, .references = {run(build(program), program, As::float64)}};
  for (int i = 0; i < kPerturbed; ++i) by_operator.references.push_back(run(build(program), program, As::perturbed, i));
  if (differ(plain, found, by_operator).empty() || differ(run(without_dead_code(program), program), found, by_operator).empty()) return "";
  // Each call by itself: of dead code that raises for some calls the executor may drop less in the fused module, and layouts, which decide whether
  // oneDNN takes part, depend on the call.
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto at = [&](const Session& session) { return Session{session[i]}; };
    const auto differs = [&](const Session& accepted, const Tolerance& all) {
      Tolerance one{.epsilon = all.epsilon, .references = {}};
      for (const Session& reference : all.references) one.references.push_back(at(reference));
      return !differ(at(accepted), at(found), one).empty();
    };
    if (differs(expected, tolerance) && differs(plain, by_operator) && differs(by_aten, tolerance)) return why;
  }
  return "";
}

// "" when `module`, which `program` gives, has its tensors bit for bit and computes what it did: to rounding, since the last bits of MKL's products
// depend on where their memory begins.
std::string touched(const torch::jit::Module& module, const Program& program, const Session& expected, std::vector<Session> wide) {
  const torch::jit::Module fresh = build(program);
  auto other = fresh.named_attributes().begin();
  for (const auto& attribute : module.named_attributes()) {
    const auto counterpart = *other;
    ++other;
    if (!attribute.value.isTensor()) continue;
    const at::Tensor is = attribute.value.toTensor().contiguous(), was = counterpart.value.toTensor().contiguous();
    if (is.sizes() != was.sizes() || is.dtype() != was.dtype() || std::memcmp(is.const_data_ptr(), was.const_data_ptr(), is.nbytes()) != 0)
      return "another " + attribute.name;
  }
  const Session after = run(module, program);
  if (differ(expected, after, {.bits = true}).empty()) return "";
  return differ(expected, after, {.epsilon = epsilon_of(program), .references = std::move(wide)});
}

// ATen's convolutions of a channels_last image of one channel read memory that nobody wrote: such an original gives other numbers now and then.
bool differs_from_itself_at_times(const Program& program, const Session& expected, std::vector<Session> wide) {
  constexpr int kTimes = 16;
  const Tolerance rounding{.epsilon = epsilon_of(program), .references = std::move(wide)};
  for (int i = 0; i < kTimes; ++i)
    if (!differ(expected, run(build(program), program), rounding).empty()) return true;
  return false;
}

// Torch's executor loses a tensor that a loop over `x.dim()` writes to, in modules that were never fused, too: cases/executor_loses_a_tensor.
bool executor_lost_a_tensor(const std::string& why) { return why.find("Expected Tensor but got None") != std::string::npos; }

// What raises and is read by checks and by writes that nothing reads alone is kept by the executor in one of the two modules and dropped in the other.
bool one_raises(const std::string& why) { return why.find("where the original") != std::string::npos; }

void compare(const Program& program, Target target, const torch::jit::Module& source, const Session& expected, const std::vector<Session>& wide, Checked& checked) {
  const std::uint64_t which = program.calls.empty() || program.calls[0].empty() ? 0 : program.calls[0][0].seed;
  try {
    const auto ours = rewritten(source, target);
    const Session found = run_rewritten(ours, target, program);
    checked.graph = ours.get_method("forward").graph()->toString();
    if (target == Target::fusible) checked.report = fusible::report(ours);
    checked.difference = differs_from_original(program, expected, found, wide);
    const bool lost = executor_lost_a_tensor(checked.difference);
    if (lost || one_raises(checked.difference)) {
      const torch::jit::GraphOptimizerEnabledGuard operator_by_operator(false);
      const auto why = differs_from_original(program, run(build(program), program), run_rewritten(rewritten(source, target), target, program), wide);
      checked.executor_decides = !lost && why.empty();
      if (lost || why.empty()) checked.difference = why;
    }
    const auto only_another_exception = [&] {
      const bool only = checked.difference == kAnotherException;
      checked.another_exception |= only;
      if (only) checked.difference.clear();
    };
    only_another_exception();
    if (!checked.difference.empty()) return;
    if (target != Target::fusible) {
      checked.missed = !has_fused(source, ours) && fusible::lint(source).counts().fused > 0;
      return;
    }
    checked.difference = verdicts_missing(source, *checked.report);
    if (!checked.difference.empty()) return;
    // Fusing must not have touched the original, whose weights it shares.
    if (which % 4 == 0) {
      if (auto why = touched(source, program, expected, wide); !why.empty()) checked.difference = "the original after fuse: " + why;
    }
    if (which % 4 == 1) {
      std::stringstream archive;
      ours.save(archive);
      if (auto why = differ(found, run(torch::jit::load(archive), program), {.bits = true}); !why.empty()) checked.difference = why == kAnotherException ? why : "after save and load: " + why;
      only_another_exception();
    }
    if (which % 4 == 2) {
      if (auto why = differ(found, run(fusible::fuse(build(program)).module, program), {.bits = true}); !why.empty()) checked.difference = "fused again: " + why;
    }
  } catch (const std::exception& error) {
    checked.difference = std::string("the rewriter or its module raises: ") + error.what();
  }
}

}  // namespace

Checked check(const Program& program, Target target) {
  Checked checked;
  std::optional<torch::jit::Module> source;
  Session expected;
  std::vector<Session> wide;
  try {
    source = build(program);
    expected = run(build(program), program);
    if (auto why = differ(expected, run(build(program), program), {.bits = true}); !why.empty()) {
      checked.unusable = "differs from itself: " + why;
      return checked;
    }
    wide = {run(build(program), program, As::float64)};
  } catch (const std::exception& error) {
    checked.unusable = std::string("does not compile: ") + error.what();
    return checked;
  }
  checked.raises_everywhere = std::all_of(expected.begin(), expected.end(), [](const Outcome& o) { return !o.exception.empty(); });
  compare(program, target, *source, expected, wide, checked);
  if (!checked.difference.empty() && differs_from_itself_at_times(program, expected, wide)) {
    checked.unusable = "differs from itself at times: " + checked.difference;
    checked.difference.clear();
  }
  return checked;
}

}  // namespace fuzz
