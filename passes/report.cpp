#include "fusible/report.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "fusible/fusible.h"

namespace fusible {

using json = nlohmann::json;

NLOHMANN_JSON_SERIALIZE_ENUM(Status, {{Status::fused, "fused"}, {Status::declined, "declined"}, {Status::suppressed, "suppressed"}})
NLOHMANN_JSON_SERIALIZE_ENUM(Severity, {{Severity::note, "note"}, {Severity::warning, "warning"}, {Severity::error, "error"}})
NLOHMANN_JSON_SERIALIZE_ENUM(Fix::Kind, {{Fix::Kind::none, "none"}, {Fix::Kind::model_edit, "model_edit"}, {Fix::Kind::call, "call"}, {Fix::Kind::option, "option"}})
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Location, file, line, column, end_column, function, excerpt)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Site, method, module_path, op, ordinal, location)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Verdict, candidate, site, status, pattern, emitted, code, absorbed)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Related, label, site)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Fix, kind, text, verified)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Benefit, bytes, flops, ns, basis)
// With defaults: reports of an older version have no candidate_sites.
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Diagnostic, code, name, severity, kind, message, needed, found, did, help, pattern, matched, steps, fix,
                                                sites, related, candidates, candidate_sites, fingerprint, benefit, suppressed)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TunedSequence, site, pattern, shape, way, instead_of, gain, low)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Tuning, machine, threads, rounds, ratio, low, sequences)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Counts, candidates, fused, declined, suppressed)

namespace {

constexpr int kSchema = 1;

}  // namespace

Counts Report::counts() const {
  Counts counts;
  counts.candidates = static_cast<int>(verdicts.size());
  for (const auto& verdict : verdicts) {
    ++(verdict.status == Status::fused ? counts.fused : verdict.status == Status::declined ? counts.declined : counts.suppressed);
  }
  return counts;
}

std::string Report::to_json() const {
  json document{{"schema", kSchema},
                {"tool", {{"name", "fusible"}, {"version", version()}}},
                {"torch", torch_version},
                {"model", {{"path", model}, {"origin", origin}, {"methods", methods}}},
                {"counts", counts()},
                {"diagnostics", diagnostics},
                {"timings_ms", timings_ms}};
  if (tuning) document["tuning"] = *tuning;
  // A path or an excerpt may hold bytes that are no UTF-8: they are replaced, never thrown.
  const auto text_of = [](const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); };
  // "verdicts" is the last key by the alphabet. There may be thousands: one at a time is in memory as JSON.
  std::string text = text_of(document);
  text.back() = ',';
  text += "\"verdicts\":[";
  for (const auto& verdict : verdicts) text += text_of(verdict) + ",";
  if (!verdicts.empty()) text.pop_back();
  return text + "]}";
}

Report Report::from_json(const std::string& text) {
  try {
    const json document = json::parse(text);
    const int schema = document.at("schema").get<int>();
    if (schema > kSchema)
      throw Error("a report of schema " + std::to_string(kSchema) + " or older was needed, found " + std::to_string(schema) + ": update fusible");
    Report report;
    document.at("torch").get_to(report.torch_version);
    document.at("model").at("path").get_to(report.model);
    document.at("model").at("origin").get_to(report.origin);
    document.at("model").at("methods").get_to(report.methods);
    document.at("verdicts").get_to(report.verdicts);
    document.at("diagnostics").get_to(report.diagnostics);
    document.at("timings_ms").get_to(report.timings_ms);
    if (document.contains("tuning")) report.tuning = document.at("tuning").get<Tuning>();
    return report;
  } catch (const json::exception& error) {
    throw Error(std::string("a fusible report in JSON was needed, found text that is none: ") + error.what());
  }
}

std::string Report::to_string() const {
  const Counts n = counts();
  std::ostringstream text;
  for (const auto& diagnostic : diagnostics) {
    if (diagnostic.suppressed) continue;
    text << diagnostic.code << ' ' << diagnostic.name << ": " << diagnostic.message;
    if (diagnostic.sites.size() > 1) text << " (" << diagnostic.sites.size() << " places)";
    if (!diagnostic.sites.empty() && diagnostic.sites[0].location.known())
      text << " at " << diagnostic.sites[0].location.file << ':' << diagnostic.sites[0].location.line;
    text << '\n';
  }
  text << n.candidates << " candidates: " << n.fused << " fused, " << n.declined << " declined, " << n.suppressed << " suppressed\n";
  if (tuning) text << "tuned for " << tuning->machine << ", " << tuning->threads << " threads: " << tuning->sequences.size() << " kernels chosen by measurement\n";
  return text.str();
}

}  // namespace fusible
