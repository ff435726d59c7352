#pragma once

namespace fusible {

// A text file compiled into the library (cmake/Embed.cmake). Arrays end with {nullptr, nullptr}.
struct EmbeddedText {
  const char* name;
  const char* text;
};

extern const EmbeddedText kPatternFiles[];  // patterns/*.fus
extern const EmbeddedText kRulePages[];     // rules/*.md

}  // namespace fusible
