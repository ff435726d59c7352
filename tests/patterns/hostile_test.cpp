#include <cstdlib>
#include <random>

#include "fusible/fusible.h"
#include "passes/embedded.h"
#include "passes/patterns/library.h"

namespace fusible::patterns {
namespace {

// Whatever stands in a file, reading it ends with a library or with an Error that names the place.
TEST(Hostile, DamagedFilesAreReadOrRefused) {
  std::mt19937 random(std::getenv("FUSIBLE_TEST_SEED") ? std::strtoul(std::getenv("FUSIBLE_TEST_SEED"), nullptr, 10) : 5);
  std::vector<std::string> texts;
  for (auto* file = kPatternFiles; file->name; ++file) texts.emplace_back(file->text);
  texts.emplace_back(
      "pattern p\ngraph(%a, %b):\n  %one : int = prim::Constant[value=1]()\n  %r = aten::add(%a, %b, %one)\n  return (%r)\n=>\n"
      "graph(%a, %b):\n  %one : int = prim::Constant[value=1]()\n  %r = aten::add(%b, %a, %one)\n  return (%r)\n");
  texts.emplace_back(
      "rule r\n  match c = conv(x, w, b, groups=1); y = mul(c, s) commutative\n  need rank(s, 3) else FUS404\n"
      "  emit w2, b2 = fold_affine(w, b, s, none)\n  emit z = aten::conv2d(x, w2, b2, c.stride, c.padding, c.dilation, 1)\n");
  const std::string alphabet("ax1_,;:=()[]{}~.\"#%-> \n\t\xff\0", 26);
  int refused = 0;
  for (int round = 0; round < 10000; ++round) {
    auto text = texts[random() % texts.size()];
    for (unsigned edits = 1 + random() % 3; edits > 0 && !text.empty(); --edits) {
      auto at = random() % text.size();
      switch (random() % 4) {
        case 0: text.erase(at, 1 + random() % 9); break;
        case 1: text.insert(at, 1, alphabet[random() % alphabet.size()]); break;
        case 2: text[at] = alphabet[random() % alphabet.size()]; break;
        default: text.resize(at);
      }
    }
    Library fresh;
    try {
      parse_into(fresh, text, "damaged.fus");
    } catch (const Error& e) {
      ++refused;
      EXPECT_EQ(std::string(e.what()).rfind("damaged.fus:", 0), 0u) << e.what() << "\n" << text;
      EXPECT_TRUE(fresh.entries.empty() && fresh.rules.empty());
    }
  }
  EXPECT_GT(refused, 1000);
}

// torch's parser of IR would overflow the stack.
TEST(Hostile, BracketsThatNestDeeplyAreRefused) {
  for (const char* brackets : {"(", "[", "<"}) {
    std::string deep;
    for (int i = 0; i < 200000; ++i) deep += brackets;
    Library library;
    try {
      parse_into(library, "pattern p\ngraph(%a : " + deep + "Tensor):\n  return (%a)\n=>\ngraph(%a):\n  return (%a)\n", "deep.fus");
      FAIL() << "it was read";
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(), "deep.fus:2:1: needed brackets that nest at most 100 deep, found more");
    }
  }
}

TEST(Hostile, LongPatternsAreRefused) {
  std::string text = "activation long_one\n  step relu\n  spelling a0 = aten::relu(x)";
  for (int i = 1; i < 100; ++i) text += ";\n    a" + std::to_string(i) + " = aten::relu(a" + std::to_string(i - 1) + ")";
  Library library;
  EXPECT_THROW(parse_into(library, text + "\n", "long.fus"), Error);
}

}  // namespace
}  // namespace fusible::patterns
