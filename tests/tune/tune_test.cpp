// What tuning makes of measurements: the figures are given, so that no test depends on the machine's mood. One test runs the real clock.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include "ops/packed_state.h"
#include "passes/marks.h"
#include "passes/tune.h"
#include "tests/graph_matchers.h"
#include "tests/script.h"
#include "tests/tensor_matchers.h"

namespace fusible::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Layout = CallShape::Layout;

constexpr int kRounds = 9;

// Two fused operators that no region holds: another operator of the first's result stands between them.
Module two_blocks() {
  return script("def forward(self, x):\n    y = torch.relu(torch.conv2d(x, self.w, self.b))\n    z = y.sum([2, 3]).softmax(1).cumprod(1)\n"
                "    return torch.sigmoid(torch.linear(z, self.v, self.c))",
                {{"w", seeded({6, 4, 3, 3}, 1)}, {"b", seeded({6}, 2)}, {"v", seeded({5, 6}, 3)}, {"c", seeded({5}, 4)}});
}
at::Tensor image() { return seeded({2, 4, 7, 7}, 9); }

Options tuned() {
  Options options;
  options.example_inputs = std::vector<c10::IValue>{image()};
  options.tune = true;
  return options;
}

std::vector<c10::intrusive_ptr<PackedContraction>> contractions_of(const Module& fused) {
  std::vector<c10::intrusive_ptr<PackedContraction>> found;
  for (const auto& attribute : fused.named_attributes(/*recurse=*/false))
    if (attribute.value.isCustomClass()) found.push_back(attribute.value.toCustomClass<PackedContraction>());
  return found;
}

// Gives each block of each race, and the whole model, a ratio original / fused.
class Given : public Timing {
 public:
  std::vector<double> blocks;
  double whole = 1.5;
  std::optional<Way> better;  // of the first contraction
  int races = 0;
  std::vector<std::size_t> choices;  // of the first contraction in each race

  std::vector<WayRound> ways(const Module& fused) override {
    if (!better) return {};
    const Trial::Met met{contractions_of(fused).at(0).get(), {{2, 4, 7, 7}, Layout::contiguous}};
    WayRound round;
    round.runs[0].push_back({{met}, Way::aten, 1.0});
    for (Way way : {Way::panels, Way::onednn, Way::aten}) round.runs[1 + static_cast<std::size_t>(way)].push_back({{met}, way, way == *better ? 0.5 : 1.0});
    return std::vector<WayRound>(kRounds, round);
  }
  std::vector<BlockRound> race(const Race& race) override {
    const bool first = races++ == 0;
    choices.push_back(contractions_of(race.fused).at(0)->spec().choices.size());
    BlockRound round;
    round.original_whole = first ? whole : 1.5;
    round.fused_whole = 1;
    for (std::size_t b = 0; b < race.blocks; ++b) {
      round.original.push_back(first && b < blocks.size() ? blocks[b] : 1.2);
      round.fused.push_back(1);
    }
    return std::vector<BlockRound>(kRounds, round);
  }
};

TEST(Tune, ABlockThatLosesIsLeftAsTheOriginalWithItsFigures) {
  Given given;
  given.blocks = {1.3, 0.8};
  const auto [fused, report] = fuse(two_blocks(), tuned(), &given);
  ASSERT_THAT(report.verdicts, SizeIs(2));
  EXPECT_EQ(report.verdicts[0].status, Status::fused);
  EXPECT_EQ(report.verdicts[1].status, Status::declined);
  EXPECT_EQ(report.verdicts[1].code, codes::unprofitable.id);
  const auto finding = std::find_if(report.diagnostics.begin(), report.diagnostics.end(), [](const auto& d) { return d.code == codes::unprofitable.id; });
  ASSERT_NE(finding, report.diagnostics.end());
  EXPECT_THAT(finding->found, HasSubstr("0.80 of their speed, 10th percentile 0.80 of 9 rounds"));
  EXPECT_THAT(finding->message, HasSubstr("0.80"));
  EXPECT_THAT(graph_of(fused), Has("fusible::conv", 1));
  EXPECT_THAT(graph_of(fused), Has("fusible::linear", 0));
  EXPECT_THAT(graph_of(fused), Has("aten::linear", 1));
  EXPECT_THAT(run(fused, {image()}), ComputesLike(run(two_blocks(), {image()})));
  EXPECT_EQ(given.races, 2);  // what is left was measured again
  ASSERT_TRUE(report.tuning);
  EXPECT_DOUBLE_EQ(report.tuning->ratio, 1.5);
}

TEST(Tune, ABlockThatIsNotSlowerStays) {
  Given given;
  given.blocks = {0.975, 1.0};
  const auto [fused, report] = fuse(two_blocks(), tuned(), &given);
  EXPECT_EQ(report.counts().fused, 2);
  EXPECT_EQ(given.races, 1);
}

TEST(Tune, AModelThatLosesAsAWholeIsLeftAsTheOriginal) {
  Given given;
  given.whole = 0.9;
  const auto [fused, report] = fuse(two_blocks(), tuned(), &given);
  EXPECT_EQ(report.counts().fused, 0);
  for (const auto& verdict : report.verdicts) EXPECT_EQ(verdict.code, codes::unprofitable.id);
  EXPECT_THAT(graph_of(fused), Has("aten::conv2d", 1));
}

TEST(Tune, TheFasterWayIsKeptAndTold) {
  Given given;
  given.better = Way::onednn;
  const auto [fused, report] = fuse(two_blocks(), tuned(), &given);
  const std::vector<Choice> wanted{{this_machine(), at::get_num_threads(), {{2, 4, 7, 7}, Layout::contiguous}, Way::onednn}};
  EXPECT_EQ(contractions_of(fused).at(0)->spec().choices, wanted);
  EXPECT_THAT(contractions_of(fused).at(1)->spec().choices, IsEmpty());
  ASSERT_TRUE(report.tuning);
  ASSERT_THAT(report.tuning->sequences, SizeIs(1));
  const auto& told = report.tuning->sequences[0];
  EXPECT_EQ(told.pattern, "conv+relu");
  EXPECT_EQ(told.way, "onednn");
  EXPECT_EQ(told.instead_of, "aten");
  EXPECT_DOUBLE_EQ(told.gain, 2);
  EXPECT_EQ(Report::from_json(report.to_json()).tuning->sequences[0].shape, "2x4x7x7 contiguous");
}

TEST(Tune, WhatIsLeftIsMeasuredWithItsChoices) {
  Given given;
  given.blocks = {1.3, 0.8};
  given.better = Way::onednn;
  const auto report = fuse(two_blocks(), tuned(), &given).report;
  EXPECT_THAT(given.choices, ElementsAre(1, 1));
  EXPECT_THAT(report.tuning->sequences, SizeIs(1));
}

TEST(Tune, TheChoiceOfWhatIsLeftAsTheOriginalIsNotTold) {
  Given given;
  given.blocks = {0.8, 1.3};
  given.better = Way::onednn;
  EXPECT_THAT(fuse(two_blocks(), tuned(), &given).report.tuning->sequences, IsEmpty());
}

TEST(Tune, AFusedModuleIsTunedForThisMachineToo) {
  Options options = tuned();
  options.tune = false;
  const auto before = fuse(two_blocks(), options).module;
  const Choice elsewhere{"another machine", 1, {{1, 4, 9, 9}, Layout::contiguous}, Way::aten};
  const Choice former{this_machine(), at::get_num_threads(), {{2, 4, 7, 7}, Layout::contiguous}, Way::aten};
  contractions_of(before).at(0)->choose({elsewhere, former});
  Given given;
  given.better = Way::onednn;
  const auto [after, report] = fuse(before, tuned(), &given);
  EXPECT_THAT(contractions_of(before).at(0)->spec().choices, ElementsAre(elsewhere, former));  // the module that was given is as it was
  ASSERT_THAT(contractions_of(after).at(0)->spec().choices, SizeIs(2));
  EXPECT_EQ(contractions_of(after).at(0)->spec().choices[0], elsewhere);
  EXPECT_EQ(contractions_of(after).at(0)->spec().choices[1].way, Way::onednn);
  ASSERT_TRUE(report.tuning);
  EXPECT_THAT(report.tuning->sequences, SizeIs(1));
}

TEST(Tune, NeedsInputsAndOperatorsOfItsOwn) {
  Options options = tuned();
  options.target = "aten";
  EXPECT_THROW(fuse(two_blocks(), options), Error);
  options = tuned();
  options.example_inputs.reset();
  try {
    fuse(two_blocks(), options);
    ADD_FAILURE() << "was tuned without inputs";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("tune: example_inputs"));
  }
  options = tuned();
  options.verify = false;
  options.example_inputs = std::vector<c10::IValue>{seeded({2, 3, 7, 7}, 1)};
  try {
    fuse(two_blocks(), options);
    ADD_FAILURE() << "was tuned on inputs that raise";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("on which the model runs"));
  }
}

TEST(Tune, WithTheRealClockGivesTheOriginalsResult) {
  const auto state = at::detail::getDefaultCPUGenerator().get_state();
  const auto [fused, report] = fuse(two_blocks(), tuned());
  EXPECT_TRUE(at::equal(state, at::detail::getDefaultCPUGenerator().get_state()));
  ASSERT_TRUE(report.tuning);
  EXPECT_EQ(report.tuning->machine, this_machine());
  EXPECT_GE(report.tuning->rounds, 7);
  EXPECT_EQ(report.verdicts.size(), 2u);
  for (const auto& verdict : report.verdicts) EXPECT_TRUE(verdict.status == Status::fused || verdict.code == codes::unprofitable.id) << verdict.code;
  EXPECT_THAT(run(fused, {image()}), ComputesLike(run(two_blocks(), {image()})));
}

TEST(Tune, DrawsNothingFromTheUsersGenerator) {
  Options options = tuned();
  options.verify = false;
  const auto module = script("def forward(self, x):\n    return torch.relu(torch.conv2d(x, self.w)) + torch.rand([1])", {{"w", seeded({6, 4, 3, 3}, 1)}});
  const auto state = at::detail::getDefaultCPUGenerator().get_state();
  fuse(module, options);
  EXPECT_TRUE(at::equal(state, at::detail::getDefaultCPUGenerator().get_state()));
}

// One contraction `first` and two that run as one where nothing is asked for.
std::vector<WayRound> rounds_with(const std::array<double, 4>& first, const std::array<double, 4>& joined) {
  static const std::array<c10::intrusive_ptr<PackedContraction>, 3> contractions = [] {
    std::array<c10::intrusive_ptr<PackedContraction>, 3> made;
    for (auto& contraction : made) {
      ContractionSpec spec;
      spec.kind = Contraction::linear;
      spec.weight = at::ones({2, 2});
      contraction = make_packed(spec);
    }
    return made;
  }();
  const auto met = [&](int i) { return Trial::Met{contractions[i].get(), {{2, 2}, Layout::region}}; };
  const std::array ways{Way::panels, Way::panels, Way::onednn, Way::aten};
  WayRound round;
  for (std::size_t run = 0; run < 4; ++run) {
    round.runs[run].push_back({{met(0)}, ways[run], first[run]});
    if (run < 2) {
      round.runs[run].push_back({{met(1), met(2)}, ways[run], joined[run]});
    } else {
      round.runs[run].push_back({{met(1)}, ways[run], joined[run] / 4});
      round.runs[run].push_back({{met(2)}, ways[run], joined[run] * 3 / 4});
    }
  }
  return std::vector<WayRound>(kRounds, round);
}

TEST(Pick, TakesTheFastestWayThatIsClearlyFaster) {
  const auto picks = pick(rounds_with({1, 1, 0.9, 0.8}, {1, 1, 1.01, 0.99}));
  ASSERT_THAT(picks, SizeIs(1));
  EXPECT_EQ(picks.begin()->second.way, Way::aten);
  EXPECT_EQ(picks.begin()->second.instead_of, Way::panels);
  EXPECT_DOUBLE_EQ(picks.begin()->second.gain, 1.25);
}

TEST(Pick, ContractionsThatRunAsOneAreJudgedAsOne) {
  const auto picks = pick(rounds_with({1, 1, 2, 2}, {1, 1, 0.5, 2}));
  ASSERT_THAT(picks, SizeIs(2));
  for (const auto& [met, picked] : picks) EXPECT_EQ(picked.way, Way::onednn);
}

TEST(Pick, AGainThatOneRoundInFiveDeniesIsNone) {
  auto rounds = rounds_with({1, 1, 0.5, 2}, {1, 1, 1, 1});
  for (int i = 0; i < 2; ++i) rounds[i].runs[2][0].seconds = 1.1;
  EXPECT_THAT(pick(rounds), IsEmpty());
  EXPECT_FALSE(is_clear(rounds));
  EXPECT_TRUE(is_clear(rounds_with({1, 1, 0.5, 2}, {1, 1, 1, 1})));
}

TEST(Pick, AWayThatWasNotTakenIsNoWay) {
  auto rounds = rounds_with({1, 1, 0.5, 0.5}, {1, 1, 1, 1});
  for (auto& round : rounds) {
    round.runs[2][0].way = Way::aten;
    round.runs[3][0].way = Way::panels;
  }
  for (int i = 0; i < 2; ++i) rounds[i].runs[2][0].seconds = 2;
  EXPECT_THAT(pick(rounds), IsEmpty());
  EXPECT_TRUE(is_clear(rounds));  // more rounds would not make it one
}

TEST(Pick, AContractionThatOneRoundMissesHasNoChoice) {
  auto rounds = rounds_with({1, 1, 0.5, 2}, {1, 1, 1, 1});
  rounds[3].runs[2].erase(rounds[3].runs[2].begin());
  EXPECT_THAT(pick(rounds), IsEmpty());
}

TEST(Marks, TellWhoseNodesRun) {
  Module module = script("def forward(self, x):\n    for i in range(3):\n        x = torch.tanh(x)\n    return torch.relu(x.exp())");
  mark(*module.get_method("forward").graph(), [](const Node* node) {
    return node->kind() == torch::jit::aten::tanh ? 0 : node->kind() == torch::jit::aten::relu ? 1 : kNobody;
  });
  const at::Tensor x = at::rand({50, 50});
  for (int i = 0; i < 4; ++i) module.forward({x});  // without a watch nothing is told
  const Stopwatches watches(3);
  EXPECT_TRUE(at::equal(module.forward({x}).toTensor(), x.tanh().tanh().tanh().exp().relu()));
  EXPECT_GT(watches.seconds()[0], 0);
  EXPECT_GT(watches.seconds()[1], 0);
  EXPECT_EQ(watches.seconds()[2], 0);
}

}  // namespace
}  // namespace fusible::testing
