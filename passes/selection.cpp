#include "passes/selection.h"

#include <algorithm>
#include <sstream>

#include "passes/embedded.h"

namespace fusible {

namespace {

using Prefixes = std::vector<std::string>;

bool begins(const std::string& prefix, const std::string& text) { return text.compare(0, prefix.size(), prefix) == 0; }

bool begins_any(const Prefixes& prefixes, const std::string& text) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const std::string& prefix) { return begins(prefix, text); });
}

bool is_code(const std::string& entry) { return begins("FUS", entry); }

// Those entries that speak of codes, or those that speak of patterns.
Prefixes of_kind(const Prefixes& entries, bool codes) {
  Prefixes kept;
  std::copy_if(entries.begin(), entries.end(), std::back_inserter(kept), [&](const std::string& entry) { return is_code(entry) == codes; });
  return kept;
}

// All of nothing, else those that an entry begins.
bool is_selected(const Prefixes& selected, const std::string& text) { return selected.empty() || begins_any(selected, text); }

// "conv+batch_no": words of the vocabulary, the last one as far as it was written.
bool begins_pattern(const std::string& entry, const patterns::Library& library) {
  if (std::any_of(library.rules.begin(), library.rules.end(), [&](const patterns::Rule& rule) { return begins(entry, rule.name); })) return true;
  Prefixes words{"lstm", "gru"};
  for (const patterns::Entry& known : library.entries) words.push_back(known.name);
  std::istringstream steps(entry);
  std::string step;
  while (std::getline(steps, step, '+')) {
    const bool last = steps.eof();
    if (std::none_of(words.begin(), words.end(), [&](const std::string& word) { return last ? begins(step, word) : step == word; })) return false;
  }
  return true;
}

bool begins_code(const std::string& entry, const patterns::Library& library) {
  for (const EmbeddedText* page = kRulePages; page->name; ++page)
    if (begins(entry, page->name)) return true;
  // A user's rule may decline with a code of its own.
  return std::any_of(library.rules.begin(), library.rules.end(), [&](const patterns::Rule& rule) {
    return std::any_of(rule.needs.begin(), rule.needs.end(), [&](const patterns::Need& need) { return begins(entry, need.code); });
  });
}

void check(const char* option, const Prefixes& entries, const patterns::Library& library) {
  for (const std::string& entry : entries) {
    const bool known = !entry.empty() && (begins_code(entry, library) || begins_pattern(entry, library));
    if (!known)
      throw Error(std::string(option) + ": the beginning of a code (\"FUS2\") or of a pattern (\"conv+batch_norm\") was needed, found \"" + entry +
                  "\": `fusible patterns` lists the words of patterns");
  }
}

}  // namespace

void check_selection(const Options& options, const patterns::Library& library) {
  check("select", options.select, library);
  check("ignore", options.ignore, library);
}

bool is_suppressed(const std::string& pattern, const Options& options) {
  return !is_selected(of_kind(options.select, false), pattern) || begins_any(of_kind(options.ignore, false), pattern);
}

void suppress_codes(Report& report, const Options& options) {
  const Prefixes selected = of_kind(options.select, true);
  const auto leaves = [&](const std::string& code) { return !code.empty() && (!is_selected(selected, code) || begins_any(options.ignore, code)); };
  for (auto& diagnostic : report.diagnostics) diagnostic.suppressed |= leaves(diagnostic.code);
  for (auto& verdict : report.verdicts) {
    if (verdict.status == Status::declined && leaves(verdict.code)) verdict.status = Status::suppressed;
  }
}

}  // namespace fusible
