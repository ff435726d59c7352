// Choices of a contraction: how they are kept, when they hold, and that whatever is chosen the result is the original's.

#include <chrono>
#include <sstream>
#include <thread>

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/jit/serialization/import.h>

#include "ops/packed_state.h"
#include "ops/region/region.h"
#include "ops/trial.h"
#include "tests/script.h"
#include "tests/tensor_matchers.h"

namespace fusible::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Layout = CallShape::Layout;

Choice here(Way way, std::vector<std::int64_t> sizes, Layout layout) {
  return {this_machine(), at::get_num_threads(), {std::move(sizes), layout}, way};
}

ContractionSpec conv_3x3(std::vector<Choice> choices = {}) {
  ContractionSpec spec;
  spec.weight = seeded({24, 16, 3, 3}, 1) / 12;
  spec.bias = seeded({24}, 2);
  spec.stride = spec.padding = spec.dilation = {1, 1};
  spec.choices = std::move(choices);
  return spec;
}

at::Tensor image(std::int64_t size = 16) { return seeded({1, 16, size, size}, 3).contiguous(at::MemoryFormat::ChannelsLast); }

at::Tensor call(const c10::intrusive_ptr<PackedContraction>& packed, const at::Tensor& x, const std::string& post_ops = "silu") {
  std::vector<c10::IValue> stack{x, packed, post_ops, std::vector<at::Tensor>{}};
  c10::Dispatcher::singleton().findSchemaOrThrow("fusible::conv", "").callBoxed(stack);
  return stack.at(0).toTensor();
}

Way taken(const ContractionSpec& spec, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  Trial trial(std::nullopt);
  call(make_packed(spec), x);
  EXPECT_EQ(trial.seen.size(), 1u);
  return trial.seen.at(0).way;
}

TEST(Choices, AreReadAsTheyWereWritten) {
  const std::vector<Choice> choices{{"GenuineIntel Some Processor 6-1-2 AVX512", 2, {{1, 3, 224, 224}, Layout::channels_last}, Way::onednn},
                                    {"other", 1, {{7}, Layout::contiguous}, Way::aten},
                                    {"other", 64, {{2, 5}, Layout::region}, Way::panels}};
  EXPECT_EQ(parse_choices(print_choices(choices)), choices);
}

TEST(Choices, LinesThatCannotBeReadAreLeftOut) {
  for (const char* line : {"", "aten", "aten 2", "aten 2 1x3", "aten 2 1x3 contiguous", "aten 2 1x3 contiguous ", "quick 2 1x3 contiguous cpu",
                           "aten two 1x3 contiguous cpu", "aten 0 1x3 contiguous cpu", "aten -1 1x3 contiguous cpu", "aten 2 1x-3 contiguous cpu",
                           "aten 2 x contiguous cpu", "aten 2 99999999999999999999x1 contiguous cpu", "aten 2 1x1x1x1x1x1x1x1x1 contiguous cpu",
                           "aten 2 1x3 sideways cpu", "aten 99999999999999999999 1x3 contiguous cpu"}) {
    EXPECT_TRUE(parse_choices(line).empty()) << line;
    EXPECT_EQ(parse_choices(std::string(line) + "\naten 2 1x3 contiguous cpu\n").size(), 1u) << line;
  }
}

TEST(Choices, HoldForTheirMachineThreadsAndShape) {
  const Choice right = here(Way::aten, {1, 16, 16, 16}, Layout::channels_last);
  EXPECT_EQ(taken(conv_3x3(), image()), Way::panels);
  EXPECT_EQ(taken(conv_3x3({right}), image()), Way::aten);
  EXPECT_EQ(taken(conv_3x3({right}), image(18)), Way::panels);
  Choice other = right;
  other.machine = "another machine";
  EXPECT_EQ(taken(conv_3x3({other}), image()), Way::panels);
  other = right;
  other.threads += 1;
  EXPECT_EQ(taken(conv_3x3({other}), image()), Way::panels);
  other = right;
  other.shape.layout = Layout::contiguous;
  EXPECT_EQ(taken(conv_3x3({other}), image()), Way::panels);
  EXPECT_EQ(taken(conv_3x3({here(Way::onednn, {1, 16, 16, 16}, Layout::channels_last)}), image()), Way::onednn);
}

TEST(Choices, AnImageThatLiesInNeitherLayoutHasNone) {
  EXPECT_TRUE(call_shape(image()));
  EXPECT_FALSE(call_shape(image().slice(3, 0, 8)));
}

TEST(Choices, AWayThatCannotBeIsAtenWithTheSameResult) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = image().contiguous();
  const auto choice = here(Way::panels, {1, 16, 16, 16}, Layout::contiguous);  // the loop nests take channels_last images
  EXPECT_EQ(taken(conv_3x3({choice}), x), Way::aten);
  EXPECT_THAT(call(make_packed(conv_3x3({choice})), x), ComputesLike(call(make_packed(conv_3x3()), x)));
}

TEST(Choices, EveryWayGivesTheSame) {
  const at::NoGradGuard no_grad;
  for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
    const at::Tensor x = image().contiguous(format);
    const at::Tensor wanted = at::silu(at::conv2d(x, conv_3x3().weight, conv_3x3().bias, 1, 1));
    const Layout layout = format == at::MemoryFormat::Contiguous ? Layout::contiguous : Layout::channels_last;
    for (Way way : {Way::panels, Way::onednn, Way::aten})
      EXPECT_THAT(call(make_packed(conv_3x3({here(way, {1, 16, 16, 16}, layout)})), x), ComputesLike(wanted)) << name_of(way);
  }
}

TEST(Choices, SurviveSaveLoadAndCopy) {
  const std::vector<Choice> choices{here(Way::aten, {1, 16, 16, 16}, Layout::channels_last), {"another machine", 3, {{1, 2}, Layout::region}, Way::onednn}};
  torch::jit::Module module("__torch__.Holder");
  module.register_attribute("packed", c10::getCustomClassType<c10::intrusive_ptr<PackedContraction>>(), make_packed(conv_3x3(choices)));
  std::ostringstream archive;
  module.save(archive);
  std::istringstream stream(archive.str());
  for (const auto& copy : {torch::jit::load(stream), module.deepcopy()}) {
    const auto packed = copy.attr("packed").toCustomClass<PackedContraction>();
    EXPECT_EQ(packed->spec().choices, choices);
    EXPECT_THAT(packed->describe(), HasSubstr("aten@" + std::to_string(at::get_num_threads()) + " threads 1x16x16x16 channels_last"));
    EXPECT_THAT(packed->describe(), ::testing::Not(HasSubstr("onednn")));
  }
}

TEST(Choices, AStateOfAnOlderReleaseHasNone) {
  SavedState state = save_state(conv_3x3({here(Way::aten, {1, 16, 16, 16}, Layout::channels_last)}));
  EXPECT_EQ(load_state(state).choices.size(), 1u);
  EXPECT_EQ(std::get<0>(state), 1);  // an older release may ignore them
  (void)std::get<3>(state).erase("choices");
  EXPECT_TRUE(load_state(state).choices.empty());
  EXPECT_FALSE(std::get<3>(save_state(conv_3x3())).contains("choices"));
}

TEST(Choices, APlanRunsAContractionAsChosen) {
  const at::NoGradGuard no_grad;
  const auto region_of = [](const std::vector<Choice>& choices) {
    ContractionSpec second;
    second.weight = seeded({8, 24, 1, 1}, 5) / 5;
    second.stride = second.dilation = {1, 1};
    second.padding = {0, 0};
    Region::Builder builder;
    const auto x = builder.input();
    const auto call = [&](const ContractionSpec& spec, std::int64_t from, const char* chain) {
      return builder.call({"fusible::conv", ""}, {Argument::reg(from), Argument::constant(make_packed(spec)), Argument::constant(chain), Argument::regs({})});
    };
    builder.output(call(second, call(conv_3x3(choices), x, "relu"), "silu"));
    return builder.finish();
  };
  const at::Tensor x = image().contiguous();
  const auto usual = region_of({}), chosen = region_of({here(Way::aten, {1, 16, 16, 16}, Layout::region)});
  EXPECT_THAT(usual->explain({x}), ElementsAre("loop nest", "loop nest"));
  EXPECT_THAT(chosen->explain({x}), ElementsAre("ATen", "loop nest"));
  EXPECT_THAT(chosen->run({x})[0], ComputesLike(usual->interpret({x})[0]));
  Trial trial(std::nullopt);
  chosen->run({x});
  ASSERT_EQ(trial.seen.size(), 2u);
  EXPECT_EQ(trial.seen[0].way, Way::aten);
  EXPECT_EQ(trial.seen[1].way, Way::panels);
}

TEST(Choices, ATrialAsksEveryContractionOfAPlan) {
  const at::NoGradGuard no_grad;
  Region::Builder builder;
  const auto x = builder.input();
  const auto packed = make_packed(conv_3x3());
  builder.output(builder.call({"fusible::conv", ""}, {Argument::reg(x), Argument::constant(packed), Argument::constant("silu"), Argument::regs({})}));
  const auto region = builder.finish();
  const at::Tensor wanted = region->interpret({image()})[0];
  for (Way way : {Way::panels, Way::onednn, Way::aten}) {
    Trial trial(way);
    EXPECT_THAT(region->run({image()})[0], ComputesLike(wanted)) << name_of(way);
    ASSERT_EQ(trial.seen.size(), 1u);
    EXPECT_EQ(trial.seen[0].way, way);
    EXPECT_EQ(trial.seen[0].met[0].contraction, packed.get());
    EXPECT_GT(trial.seen[0].seconds, 0);
  }
}

TEST(Trials, GoOnWhenOneInsideOfThemEnds) {
  const Trial outer(Way::aten);
  {
    const Trial inner(std::nullopt);
    EXPECT_EQ(Trial::current(), &inner);
  }
  EXPECT_EQ(Trial::current(), &outer);
}

TEST(Trials, TimeInAContractionIsNoTimeElsewhere) {
  Trial trial(std::nullopt);
  trial.watch({}, [&] { trial.watch({{nullptr, {}}}, [] { std::this_thread::sleep_for(std::chrono::milliseconds(50)); }); });
  ASSERT_EQ(trial.seen.size(), 1u);
  EXPECT_LT(trial.elsewhere, trial.seen[0].seconds);
}

}  // namespace
}  // namespace fusible::testing
