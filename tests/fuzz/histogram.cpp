#include "tests/fuzz/histogram.h"

#include <set>
#include <sstream>

namespace fuzz {

void Histogram::add(const Checked& checked) {
  if (!checked.unusable.empty()) {
    ++unusable_;
    return;
  }
  ++checked_;
  raising_ += checked.raises_everywhere;
  different_ += !checked.difference.empty();
  if (!checked.report) return;
  const auto counts = checked.report->counts();
  with_fusion_ += counts.fused > 0;
  std::set<std::string> codes;
  for (const auto& diagnostic : checked.report->diagnostics) {
    if (diagnostic.kind == "missed" || counts.declined > 0) codes.insert(diagnostic.code + " " + diagnostic.name);
  }
  bool declined = counts.declined > 0;
  for (const auto& diagnostic : checked.report->diagnostics) declined |= diagnostic.severity == fusible::Severity::warning;
  with_decline_ += declined;
  for (const auto& code : codes) ++codes_[code];
  for (const auto& verdict : checked.report->verdicts) {
    if (verdict.status != fusible::Status::fused) continue;
    ++operators_[verdict.emitted];
    std::istringstream steps(verdict.pattern);
    bool first = true;
    for (std::string step; std::getline(steps, step, '+'); first = false) {
      if (!first) ++steps_[step];
    }
  }
}

std::string Histogram::markdown(std::uint64_t seed, double minutes) const {
  std::ostringstream out;
  out.precision(1);
  out << std::fixed;
  const double all = checked_ ? checked_ : 1;
  out << "| | |\n|---|---|\n| first seed | " << seed << " |\n| minutes | " << minutes << " |\n| modules compared | " << checked_ << " |\n| differences | " << different_
      << " |\n| with an accepted fusion | " << 100 * with_fusion_ / all << " % |\n| with a decline | " << 100 * with_decline_ / all
      << " % |\n| that raise in every call | " << 100 * raising_ / all << " % |\n| not compared (do not compile, or differ from themselves) | " << unusable_ << " |\n\n";
  const auto table = [&](const char* title, const std::map<std::string, int>& rows) {
    out << "| " << title << " | count |\n|---|---|\n";
    for (const auto& [name, count] : rows) out << "| " << name << " | " << count << " |\n";
    out << "\n";
  };
  table("operator that replaced a candidate", operators_);
  table("fused step", steps_);
  table("code (modules)", codes_);
  return out.str();
}

}  // namespace fuzz
