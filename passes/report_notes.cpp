#include "passes/report_notes.h"

namespace fusible {

namespace {

bool lost_provenance(const Model& model) {
  return model.origin == "frozen" && !model.candidates.empty() &&
         std::all_of(model.candidates.begin(), model.candidates.end(), [](const Candidate& c) { return c.site.module_path.empty(); });
}

// One note for all candidates with this code.
void add_note_for(Report& report, const Code& code, const std::string& message, const std::string& needed, const std::string& found, const std::string& help) {
  Diagnostic note = module_note(code, message, needed, found, help);
  for (const auto& verdict : report.verdicts) {
    if (verdict.code != code.id) continue;
    note.sites.push_back(verdict.site);
    note.candidates.push_back(verdict.candidate);
    note.candidate_sites.push_back(static_cast<int>(note.sites.size()) - 1);
  }
  if (!note.candidates.empty()) report.diagnostics.push_back(std::move(note));
}

}  // namespace

void add_module_notes(Report& report, const Model& model) {
  add_note_for(report, codes::unreachable, "operators that never run in eval mode, or whose result nothing uses, were removed",
               "an operator on a path that can run", "a branch on a constant that is False, or an unused result", "nothing to do");
  if (!model.opaque.empty()) {
    add_note_for(report, codes::foreign_region, "the module was left as it is: " + model.opaque, "modules that are only asked for attributes and called",
                 model.opaque, "wait for futures where they are made, and do not pass modules around as values");
  }
  if (lost_provenance(model)) {
    report.diagnostics.push_back(module_note(codes::frozen_without_provenance,
        "the archive was frozen before it was saved: module paths and source lines are lost", "an archive saved before torch.jit.freeze",
        "graphs with constants and no call stacks", "fuse or lint the archive that was saved before freezing"));
  }
  if (model.on_cuda) {
    report.diagnostics.push_back(module_note(codes::cuda_archive, "the archive was saved on CUDA and is treated on the CPU", "a model saved on the CPU",
        "tensors or device constants of cuda", "call model.cpu() before it is scripted or saved"));
  }
  if (model.source.parameters().size() != 0) {
    report.diagnostics.push_back(module_note(codes::parameters_are_constants,
        "parameters are taken as inference constants, as torch.jit.freeze does", "a model that is not trained any more",
        std::to_string(model.source.parameters().size()) + " parameters", "fuse again after the weights change"));
  }
}

void add_verify_notes(Report& report, const std::string& unverifiable, const std::string& difference) {
  if (!unverifiable.empty()) {
    report.diagnostics.push_back(module_note(codes::unverifiable, "the result could not be verified: " + unverifiable,
        "inputs on which the original gives the same result twice", unverifiable, "verify with inputs that the model takes, and on which it is deterministic"));
  }
  for (auto& diagnostic : report.diagnostics) {
    if (diagnostic.code == codes::verification_failed.id && !difference.empty()) diagnostic.found = difference;
  }
}

void add_already_fused(Report& report, const Options& options) {
  if (!options.model_path.empty()) report.model = options.model_path;  // the file at hand, not the one that was fused
  for (const auto& diagnostic : report.diagnostics)
    if (diagnostic.code == codes::already_fused.id) return;
  report.diagnostics.push_back(module_note(codes::already_fused, "the module was made by fuse already: it is left as it is, whatever the options, and this is the report of that fuse",
                                           "a module that was not fused yet", "a stored report", "fuse the original again after it changes, or for other options"));
}

}  // namespace fusible
