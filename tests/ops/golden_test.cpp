#include <filesystem>

#include <torch/csrc/jit/serialization/import.h>

#include "tests/ops/support.h"

namespace fusible::testing {
namespace {

// Archives of every saved-state format ever released load and compute what they computed.
TEST(Golden, ArchivesOfEveryFormatLoadAndGiveTheirOutputs) {
  const at::NoGradGuard no_grad;
  int archives = 0;
  for (const auto& entry : std::filesystem::directory_iterator(FUSIBLE_SOURCE_DIR "/tests/golden")) {
    if (entry.path().extension() != ".pt") continue;
    ++archives;
    auto module = torch::jit::load(entry.path().string());
    EXPECT_TRUE(same(module.forward({}).toTensor(), module.attr("expected").toTensor())) << entry.path();
  }
  EXPECT_GE(archives, 2);
}

}  // namespace
}  // namespace fusible::testing
