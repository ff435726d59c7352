// Report::to_json and from_json: what is written is read back, and what is no report is one clear error.

#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "fusible/fusible.h"

namespace fusible {
namespace {

using ::testing::HasSubstr;
using json = nlohmann::json;

std::string text_of(const std::string& name) {
  std::ifstream file(FUSIBLE_SOURCE_DIR "/tests/python/reports/" + name);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

class ReportJson : public ::testing::TestWithParam<const char*> {};

// The files are those that the Python tests read: one schema for both languages.
TEST_P(ReportJson, IsReadAndWrittenUnchanged) {
  json expected = json::parse(text_of(GetParam())), found = json::parse(Report::from_json(expected.dump()).to_json());
  expected["tool"]["version"] = version();
  EXPECT_EQ(found, expected);
}

INSTANTIATE_TEST_SUITE_P(Files, ReportJson, ::testing::Values("scripted.json", "frozen.json", "hostile.json"));

TEST(Report, CountsAddUpToTheCandidates) {
  const Counts counts = Report::from_json(text_of("scripted.json")).counts();
  EXPECT_EQ(counts.candidates, 9);
  EXPECT_EQ(counts.fused, 7);
  EXPECT_EQ(counts.declined, 2);
  EXPECT_EQ(counts.suppressed, 0);
}

TEST(Report, BytesThatAreNoUtf8AreReplaced) {
  Report report;
  report.model = "caf\xe9.pt";
  EXPECT_EQ(Report::from_json(report.to_json()).model, "caf\xef\xbf\xbd.pt");
}

TEST(Report, AnswersOfTextThatIsNoReportAreErrors) {
  for (const char* text : {"", "nonsense", "[]", "{}", R"({"schema": "1"})", R"({"schema": 1})", R"({"schema": 1, "torch": 2})"}) {
    EXPECT_THROW(Report::from_json(text), Error) << text;
  }
}

TEST(Report, OfANewerSchemaSaysToUpdate) {
  try {
    Report::from_json(R"({"schema": 2})");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("found 2: update fusible"));
  }
}

TEST(Report, TextNamesFindingsAndCountsAndLeavesOutSuppressedOnes) {
  const std::string text = Report::from_json(text_of("scripted.json")).to_string();
  EXPECT_THAT(text, HasSubstr("FUS201 second-use: conv -> batch_norm -> relu not fused"));
  EXPECT_THAT(text, HasSubstr("(3 places) at models/block.py:12"));
  EXPECT_THAT(text, HasSubstr("9 candidates: 7 fused, 2 declined, 0 suppressed"));
  EXPECT_THAT(Report::from_json(text_of("hostile.json")).to_string(), ::testing::Not(HasSubstr("FUS801")));
}

}  // namespace
}  // namespace fusible
