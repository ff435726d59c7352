#include "tests/fuzz/histogram.h"

#include <sstream>

#include "tests/fuzz/quota.h"

namespace fuzz {

namespace {

std::string last_step(const std::string& pattern) { return pattern.substr(pattern.rfind('+') + 1); }

}  // namespace

void Histogram::add(const Checked& checked) {
  if (!checked.unusable.empty()) {
    ++counts_["unusable"];
    return;
  }
  ++counts_["modules"];
  counts_["raising"] += checked.raises_everywhere;
  counts_["different"] += !checked.difference.empty();
  counts_["crashed"] += checked.crashed;
  counts_["missed"] += checked.missed;
  counts_["another exception"] += checked.another_exception;
  counts_["executor decides"] += checked.executor_decides;
  if (!checked.report) return;
  bool fusion = false, decline = false;
  for (const auto& verdict : checked.report->verdicts) {
    fusion |= verdict.status == fusible::Status::fused;
    decline |= verdict.status == fusible::Status::declined;
    if (verdict.status != fusible::Status::fused) continue;
    std::istringstream steps(verdict.pattern);
    for (std::string step; std::getline(steps, step, '+');) ++counts_["fused " + step];
  }
  for (const auto& diagnostic : checked.report->diagnostics) {
    if (diagnostic.kind != "missed") continue;
    decline = true;
    counts_["declined " + last_step(diagnostic.pattern) + " " + diagnostic.code] += static_cast<std::int64_t>(std::max<std::size_t>(1, diagnostic.sites.size()));
  }
  counts_["with_fusion"] += fusion;
  counts_["with_decline"] += decline;
}

std::string Histogram::json(std::uint64_t first_seed, const std::string& target, bool steered) const {
  std::ostringstream out;
  out << "{\"target\": \"" << target << "\", \"steered\": " << (steered ? "true" : "false") << ", \"first seed\": " << first_seed;
  auto counts = counts_;
  for (const auto& [step, code] : cells()) {
    if (steered) counts.try_emplace("declined " + step + " " + code, 0);
  }
  for (const auto& [name, count] : counts) out << ", \"" << name << "\": " << count;
  out << "}\n";
  return out.str();
}

std::string Histogram::text() const {
  const double all = std::max<double>(1, at("modules"));
  std::ostringstream out;
  out.precision(1);
  out << std::fixed << at("modules") << " modules compared, " << at("different") << " different, " << at("another exception") << " raise another exception, " << at("executor decides")
      << " raise where torch's executor decides, " << 100 * at("with_fusion") / all
      << " % with an accepted fusion, " << 100 * at("with_decline") / all << " % with a decline, " << 100 * at("raising") / all
      << " % raise in every call; " << at("unusable") << " do not compile or differ from themselves\n";
  return out.str();
}

}  // namespace fuzz
