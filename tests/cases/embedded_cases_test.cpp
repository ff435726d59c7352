// Every case of every embedded pattern file, through fuse and lint.

#include <algorithm>
#include <sstream>

#include "fusible/fusible.h"
#include "tests/patterns/cases.h"
#include "tests/tensor_matchers.h"

namespace fusible {
namespace {

using patterns::Case;
using patterns::Entry;
using testing::ComputesLike;
using testing::result_of;

template <typename F>
void for_each_case(const F& f) {
  const auto library = patterns::library();
  for (const auto& entry : library->entries) {
    for (const auto& one : entry.cases) {
      SCOPED_TRACE(entry.file + ":" + std::to_string(one.line) + "\n" + one.source);
      f(entry, one);
    }
  }
}

// The case's inputs as they are, channels_last, without a batch, as a view with gaps, with NaN, and one image alone.
std::vector<std::vector<c10::IValue>> variants_of(const std::vector<c10::IValue>& inputs) {
  const auto each = [&](const auto& change) {
    std::vector<c10::IValue> changed;
    for (const auto& input : inputs) changed.emplace_back(change(input.toTensor().clone()));
    return changed;
  };
  std::vector<std::vector<c10::IValue>> variants{inputs};
  variants.push_back(each([](at::Tensor t) { return t.dim() == 4 ? t.contiguous(at::MemoryFormat::ChannelsLast) : t; }));
  variants.push_back(each([](at::Tensor t) { return t.narrow(0, 0, 0); }));
  variants.push_back(each([](at::Tensor t) { return at::cat({t, t}, -1).narrow(-1, 0, t.size(-1)); }));
  variants.push_back(each([](at::Tensor t) {
    t.flatten()[1].fill_(std::numeric_limits<double>::quiet_NaN());
    return t;
  }));
  variants.push_back(each([](at::Tensor t) { return t.select(0, 0).clone(); }));
  return variants;
}

std::vector<c10::IValue> cloned(const std::vector<c10::IValue>& inputs) {
  std::vector<c10::IValue> copies;
  for (const auto& input : inputs) copies.emplace_back(input.toTensor().clone(at::MemoryFormat::Preserve));
  return copies;
}

void expect_same_results(const torch::jit::Module& original, const torch::jit::Module& fused, const std::vector<c10::IValue>& inputs) {
  for (const auto& variant : variants_of(inputs)) {
    at::manual_seed(3);
    const auto expected = result_of(original, cloned(variant));
    at::manual_seed(3);
    const auto found = result_of(fused, cloned(variant));
    ASSERT_EQ(found.has_value(), expected.has_value()) << "one raises, for an input of sizes " << variant[0].toTensor().sizes();
    if (expected) EXPECT_THAT(*found, ComputesLike(*expected)) << "for an input of sizes " << variant[0].toTensor().sizes();
  }
}

// At infinities a spelling of several operations may differ from the operator that it stands for: only strict=True promises the same.
void expect_same_at_infinities(const torch::jit::Module& original, const std::vector<c10::IValue>& inputs) {
  Options options;
  options.strict = true;
  const auto fused = fuse(original, options).module;
  auto unbounded = cloned(inputs);
  unbounded[0].toTensor().flatten()[2].fill_(-std::numeric_limits<double>::infinity());
  unbounded[0].toTensor().flatten()[-1].fill_(std::numeric_limits<double>::infinity());
  at::manual_seed(3);
  const at::Tensor expected = result_of(original, cloned(unbounded)).value();
  at::manual_seed(3);
  EXPECT_THAT(result_of(fused, cloned(unbounded)).value(), ComputesLike(expected)) << "strict";
}

bool names(const std::string& pattern, const std::string& step) { return ("+" + pattern + "+").find("+" + step + "+") != std::string::npos; }

std::string codes_in(const Report& report) {
  std::ostringstream text;
  for (const auto& verdict : report.verdicts) text << verdict.code << ' ';
  for (const auto& diagnostic : report.diagnostics) text << diagnostic.code << ' ';
  return text.str();
}

TEST(EmbeddedCases, ThatFuseAreFusedAndComputeTheSame) {
  int run = 0;
  for_each_case([&](const Entry& entry, const Case& one) {
    if (!one.fuses) return;
    const auto made = patterns::module_of(one, 11);
    const auto fused = fuse(made.module);
    ASSERT_FALSE(fused.report.verdicts.empty());
    const auto& anchor = fused.report.verdicts.front();
    EXPECT_EQ(anchor.status, Status::fused) << fused.report.to_string();
    EXPECT_EQ(lint(made.module).verdicts.front().status, Status::fused);
    const bool shown = entry.kind == Entry::Kind::transparent ? anchor.pattern.find('+') != std::string::npos : names(anchor.pattern, entry.name);
    EXPECT_TRUE(shown) << "fused as " << anchor.pattern << "\n" << fused.report.to_string();
    expect_same_results(made.module, fused.module, made.inputs);
    expect_same_at_infinities(made.module, made.inputs);
    ++run;
  });
  EXPECT_GT(run, 40);
}

TEST(EmbeddedCases, ThatDeclineGiveTheirCodeAndComputeTheSame) {
  int run = 0;
  for_each_case([&](const Entry&, const Case& one) {
    if (one.fuses) return;
    const auto made = patterns::module_of(one, 13);
    const auto fused = fuse(made.module);
    EXPECT_NE(codes_in(fused.report).find(one.code), std::string::npos) << "found " << codes_in(fused.report) << "\n" << fused.report.to_string();
    EXPECT_NE(codes_in(lint(made.module)).find(one.code), std::string::npos);
    expect_same_results(made.module, fused.module, made.inputs);
    expect_same_at_infinities(made.module, made.inputs);
    ++run;
  });
  EXPECT_GT(run, 20);
}

TEST(EmbeddedCases, OfEveryEntryAreAtLeastOneThatFusesAndOneThatDeclines) {
  for (const auto& entry : patterns::library()->entries) {
    const auto fuses = [](const Case& one) { return one.fuses; };
    EXPECT_TRUE(std::any_of(entry.cases.begin(), entry.cases.end(), fuses)) << entry.file;
    EXPECT_FALSE(std::all_of(entry.cases.begin(), entry.cases.end(), fuses)) << entry.file;
  }
}

}  // namespace
}  // namespace fusible
