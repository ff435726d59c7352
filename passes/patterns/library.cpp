#include "passes/patterns/library.h"

#include <mutex>

#include "fusible/fusible.h"
#include "passes/embedded.h"
#include "passes/patterns/check.h"
#include "passes/patterns/parser.h"

namespace fusible {

namespace patterns {

namespace {

struct Loaded {
  std::mutex mutex;
  std::shared_ptr<const Library> library;
};

Loaded& loaded() {
  static Loaded state;
  return state;
}

std::shared_ptr<const Library> embedded() {
  auto library = std::make_shared<Library>();
  for (auto* file = kPatternFiles; file->name; ++file) parse_blocks(*library, file->text, file->name);
  check_vocabulary(*library);
  return library;
}

}  // namespace

const Entry* Library::entry(const std::string& name) const {
  for (auto& entry : entries) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

std::shared_ptr<const Library> library() {
  auto& state = loaded();
  std::lock_guard lock(state.mutex);
  if (!state.library) state.library = embedded();
  return state.library;
}

}  // namespace patterns

void load_patterns(const std::string& text, const std::string& name) {
  auto& state = patterns::loaded();
  std::lock_guard lock(state.mutex);
  if (!state.library) state.library = patterns::embedded();
  auto grown = std::make_shared<patterns::Library>(*state.library);
  patterns::parse_into(*grown, text, name);
  patterns::Matcher compiles(grown);  // throws for a pattern with too many spellings
  state.library = std::move(grown);
}

}  // namespace fusible
