#include <fstream>
#include <sstream>

#include "passes/patterns/library.h"

namespace fusible::patterns {
namespace {

// The examples of patterns/README.md are read by the parser: indented blocks that begin with a block's keyword or a comment.
TEST(Readme, ExamplesAreRead) {
  std::ifstream file(FUSIBLE_SOURCE_DIR "/patterns/README.md");
  ASSERT_TRUE(file);
  std::vector<std::string> examples;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("    ", 0) == 0) {
      if (!inside) examples.emplace_back();
      inside = true;
      examples.back() += line.substr(4) + "\n";
    } else {
      inside = false;
    }
  }
  ASSERT_EQ(examples.size(), 3u);
  Library library = *fusible::patterns::library();
  std::erase_if(library.entries, [](const Entry& entry) { return entry.name == "hardswish"; });
  for (auto& example : examples) EXPECT_NO_THROW(parse_into(library, example, "README.md")) << example;
  EXPECT_NE(library.entry("hardswish"), nullptr);
  EXPECT_GE(library.rules.size(), 2u);
}

}  // namespace
}  // namespace fusible::patterns
