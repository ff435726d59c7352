#include "passes/benefit.h"
#include "passes/provenance.h"

namespace fusible {

namespace {

// FNV-1a: the same on every machine and in every release.
std::string fingerprint_of(const std::string& text) {
  std::uint64_t hash = 1469598103934665603ull;
  for (unsigned char c : text) hash = (hash ^ c) * 1099511628211ull;
  char printed[17];
  std::snprintf(printed, sizeof printed, "%016llx", static_cast<unsigned long long>(hash));
  return printed;
}

Diagnostic from_finding(const Finding& finding, const std::string& method) {
  Diagnostic diagnostic;
  diagnostic.code = finding.code.id;
  diagnostic.name = finding.code.name;
  diagnostic.severity = finding.code.severity;
  diagnostic.kind = finding.code.severity == Severity::note ? "analysis" : "missed";
  diagnostic.message = finding.message;
  diagnostic.needed = finding.needed;
  diagnostic.found = finding.found;
  diagnostic.did = finding.did;
  diagnostic.help = finding.help;
  diagnostic.fix = finding.fix;
  diagnostic.pattern = finding.pattern;
  diagnostic.matched = finding.matched;
  diagnostic.steps = finding.steps;
  for (const auto& [label, node] : finding.related) diagnostic.related.push_back({label, site_of(node, method)});
  return diagnostic;
}

}  // namespace

// Sites with the same code, sequence and source line have one cause: a line of a block that is instantiated sixteen times.
std::string cause_of(const Finding& finding, const Site& site) {
  std::string key = std::string(finding.code.id) + "\n" + finding.pattern + "\n" + finding.found + "\n";
  if (site.location.known()) return key + site.location.file + ":" + std::to_string(site.location.line) + ":" + std::to_string(site.location.column);
  return key;
}

Site site_of(const Node* node, const std::string& method) {
  return {method, module_path_of(node), node->kind().toQualString(), 0, location_of(node)};
}

std::vector<Diagnostic> group(const Model& model, const std::vector<std::vector<Finding>>& findings_per_method) {
  std::vector<Diagnostic> diagnostics;
  std::map<std::string, std::size_t> by_cause;
  std::map<std::size_t, std::map<int, int>> sites_of;  // diagnostic -> candidate -> index of its site
  for (std::size_t m = 0; m < findings_per_method.size(); ++m) {
    const auto& method = model.methods[m];
    for (const auto& finding : findings_per_method[m]) {
      Site site = finding.candidate >= 0 && !finding.producer ? model.candidates[finding.candidate].site : site_of(finding.producer, method.name);
      if (auto it = method.candidate_of.find(finding.producer); it != method.candidate_of.end()) site.ordinal = model.candidates[it->second].site.ordinal;
      const auto [it, fresh] = by_cause.emplace(cause_of(finding, site), diagnostics.size());
      if (fresh) diagnostics.push_back(from_finding(finding, method.name));
      auto& diagnostic = diagnostics[it->second];
      diagnostic.sites.push_back(std::move(site));
      diagnostic.benefit = sum_of(diagnostic.benefit, finding.benefit);
      const int site_index = static_cast<int>(diagnostic.sites.size()) - 1;
      auto& spoken_of = sites_of[it->second];
      if (finding.candidate >= 0) spoken_of.emplace(finding.candidate, site_index);
      for (const Node* blocked : finding.blocked) {
        if (auto it = method.candidate_of.find(blocked); it != method.candidate_of.end()) spoken_of.emplace(it->second, site_index);
      }
    }
  }
  for (std::size_t i = 0; i < diagnostics.size(); ++i) {
    auto& diagnostic = diagnostics[i];
    for (const auto& [candidate, site] : sites_of[i]) {
      diagnostic.candidates.push_back(candidate);
      diagnostic.candidate_sites.push_back(site);
    }
    std::string identity = diagnostic.code + "|" + diagnostic.pattern;
    for (const auto& site : diagnostic.sites) identity += "|" + site.method + ":" + site.module_path + ":" + site.op;
    diagnostic.fingerprint = fingerprint_of(identity);
  }
  std::stable_sort(diagnostics.begin(), diagnostics.end(), [](const Diagnostic& a, const Diagnostic& b) {
    const auto rank = [](const Diagnostic& d) { return std::make_tuple(-static_cast<int>(d.severity), -d.benefit.ns, -d.benefit.bytes, -static_cast<int>(d.sites.size())); };
    return rank(a) < rank(b);
  });
  return diagnostics;
}

Diagnostic module_note(const Code& code, std::string message, std::string needed, std::string found, std::string help) {
  Diagnostic diagnostic;
  diagnostic.code = code.id;
  diagnostic.name = code.name;
  diagnostic.severity = code.severity;
  diagnostic.kind = "analysis";
  diagnostic.message = std::move(message);
  diagnostic.needed = std::move(needed);
  diagnostic.found = std::move(found);
  diagnostic.help = std::move(help);
  diagnostic.fingerprint = fingerprint_of(std::string(code.id) + "|module");
  return diagnostic;
}

}  // namespace fusible
