// A pattern file of any bytes is a library, or an Error that names the place in it.

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>

#include "fusible/fusible.h"
#include "passes/patterns/library.h"

namespace {

const fusible::patterns::Library& builtin() {
  static const auto held = fusible::patterns::library();
  return *held;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  // Alone, and beside the built-in files, whose entries it may extend.
  for (const bool beside : {false, true}) {
    fusible::patterns::Library library;
    if (beside) library = builtin();
    const std::size_t entries = library.entries.size(), rules = library.rules.size();
    try {
      fusible::patterns::parse_into(library, text, "fuzzed.fus");
    } catch (const fusible::Error& error) {
      const std::string says = error.what();
      const bool whole = library.entries.size() == entries && library.rules.size() == rules;
      if (says.rfind("fuzzed.fus:", 0) == 0 && says.find('\n') == std::string::npos && whole) continue;
      std::cerr << "needed a sentence that begins with the place, and the library as it was, found: " << says << "\n";
      std::abort();
    }
  }
  return 0;
}
