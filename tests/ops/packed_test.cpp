#include <atomic>
#include <functional>
#include <map>
#include <sstream>
#include <thread>

#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/import.h>

#include "ops/packed_state.h"
#include "tests/ops/support.h"

namespace fusible::testing {
namespace {

// forward(x) = fusible::conv(x, self.packed, "silu|mul(2)", [])
torch::jit::Module holder(const c10::intrusive_ptr<PackedContraction>& packed) {
  torch::jit::Module module("__torch__.Holder");
  module.register_attribute("packed", c10::getCustomClassType<c10::intrusive_ptr<PackedContraction>>(), packed);
  auto graph = std::make_shared<torch::jit::Graph>();
  auto* self = graph->addInput("self")->setType(module.type());
  auto* x = graph->addInput("x");
  auto* weight = graph->insertGetAttr(self, "packed");
  auto* operands = graph->insertNode(graph->createList(c10::TensorType::get(), {}))->output();
  graph->registerOutput(graph->insert(c10::Symbol::fromQualString("fusible::conv"), {x, weight, "silu|mul(2)", operands}));
  module.type()->addMethod(module._ivalue()->compilation_unit()->create_function(c10::QualifiedName(*module.type()->name(), "forward"), graph));
  return module;
}

std::string saved(const torch::jit::Module& module) {
  std::ostringstream archive;
  module.save(archive);
  return archive.str();
}

torch::jit::Module loaded(const std::string& archive) {
  std::istringstream stream(archive);
  return torch::jit::load(stream);
}

ContractionSpec rich_spec() {
  at::manual_seed(9);
  ContractionSpec spec = conv_spec(16, 24, {3, 3}, 1, 1, 1);
  spec.weight = spec.weight.contiguous(at::MemoryFormat::ChannelsLast);
  spec.folded_ops = "batch_norm(0.001)";
  spec.folded_operands = {at::Tensor(), at::randn({24}), at::randn({24}), at::rand({24}) + 0.5};
  spec.fold_scale = at::rand({24}, at::kDouble) + 0.5;
  spec.fold_shift = at::randn({24}, at::kDouble);
  return spec;
}

TEST(Packed, SurvivesSaveAndLoadWithItsStrides) {
  const at::NoGradGuard no_grad;
  const auto x = at::randn({2, 16, 24, 20});
  auto before = holder(make_packed(rich_spec()));
  auto after = loaded(saved(before));
  const auto& spec = after.attr("packed").toCustomClass<PackedContraction>()->spec();
  const ContractionSpec wanted = rich_spec();
  EXPECT_EQ(spec.weight.strides(), wanted.weight.strides());
  EXPECT_TRUE(at::equal(after.attr("packed").toCustomClass<PackedContraction>()->values()->dense(), wanted.weight) && at::equal(spec.bias, wanted.bias) && at::equal(spec.fold_scale, wanted.fold_scale));
  EXPECT_EQ(spec.folded_ops, wanted.folded_ops);
  ASSERT_EQ(spec.folded_operands.size(), 4u);
  EXPECT_FALSE(spec.folded_operands[0].defined());
  EXPECT_TRUE(at::equal(spec.folded_operands[3], wanted.folded_operands[3]));
  EXPECT_TRUE(at::equal(before.forward({x}).toTensor(), after.forward({x}).toTensor()));
  EXPECT_TRUE(same(after.forward({x}).toTensor(), expected(wanted, x, "silu|mul(2)")));
}

TEST(Packed, KeepsTheStridesOf1x1Weights) {
  for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
    ContractionSpec spec = conv_spec(16, 24, {1, 1});
    spec.weight = spec.weight.clone(format);
    const auto after = loaded(saved(holder(make_packed(spec))));
    EXPECT_EQ(after.attr("packed").toCustomClass<PackedContraction>()->spec().weight.strides(), spec.weight.strides());
  }
}

TEST(Packed, SavesNothingBesidesItsElements) {
  ContractionSpec spec = conv_spec(16, 24, {1, 1});
  const auto large = at::randn({1000, 16, 1, 1});
  spec.weight = large.slice(0, 0, 24);
  EXPECT_LT(saved(holder(make_packed(spec))).size(), 20000u);
}

// Name and bytes of each tensor's record. (The pickle around them also tells who else holds a tensor while it is written.)
std::map<std::string, std::string> tensors_in(const std::string& archive) {
  std::istringstream stream(archive);
  caffe2::serialize::PyTorchStreamReader reader(&stream);
  std::map<std::string, std::string> tensors;
  for (const std::string& name : reader.getAllRecords()) {
    if (name.rfind("data/", 0) != 0) continue;
    const auto [data, size] = reader.getRecord(name);
    tensors[name] = std::string(static_cast<const char*>(data.get()), size);
  }
  return tensors;
}

TEST(Packed, ArchivesHoldTheSameBitsBeforeAndAfterTheFirstForward) {
  const at::NoGradGuard no_grad;
  auto module = holder(make_packed(rich_spec()));
  const std::string before = saved(module);
  module.forward({at::randn({2, 16, 24, 20}).contiguous(at::MemoryFormat::ChannelsLast)});
  ASSERT_EQ(module.attr("packed").toCustomClass<PackedContraction>()->values()->dense_bytes(), 0);
  ASSERT_FALSE(tensors_in(before).empty());
  EXPECT_TRUE(tensors_in(saved(module)) == tensors_in(before));
  EXPECT_TRUE(tensors_in(saved(module.deepcopy())) == tensors_in(before));
}

// Two attributes, one of them inside of a list: the archive holds the weight's elements once.
TEST(Packed, ArchivesHoldAWeightOnceAfterTheFirstForward) {
  const at::NoGradGuard no_grad;
  const auto packed = make_packed(conv_spec(64, 64, {3, 3}, 1, 1, 1));
  auto module = holder(packed);
  module.register_attribute("again", c10::ListType::create(c10::getCustomClassType<c10::intrusive_ptr<PackedContraction>>()),
                            c10::List<c10::intrusive_ptr<PackedContraction>>({packed}));
  const size_t before = saved(module).size();
  module.forward({at::randn({1, 64, 24, 20}).contiguous(at::MemoryFormat::ChannelsLast)});
  EXPECT_EQ(saved(module).size(), before);
}

TEST(Packed, RefusesWhatCannotBe) {
  const ContractionSpec good = rich_spec();
  const auto refuses = [&](const std::function<void(ContractionSpec&)>& edit) {
    ContractionSpec spec = good;
    edit(spec);
    EXPECT_THROW(make_packed(spec), c10::Error);
  };
  EXPECT_NO_THROW(make_packed(good));
  refuses([](auto& s) { s.weight = at::Tensor(); });
  refuses([](auto& s) { s.weight = at::randn({24}); });
  refuses([](auto& s) { s.kind = Contraction::linear; });
  refuses([](auto& s) { s.groups = 0; });
  refuses([](auto& s) { s.groups = -1; });
  refuses([](auto& s) { s.groups = 7; });
  refuses([](auto& s) { s.stride = {0, 1}; });
  refuses([](auto& s) { s.stride = {1}; });
  refuses([](auto& s) { s.padding = {-1, 0}; });
  refuses([](auto& s) { s.dilation = {}; });
  refuses([](auto& s) { s.padding_mode = "reflect"; });
  refuses([](auto& s) { s.bias = at::randn({23}); });
  refuses([](auto& s) { s.fold_scale = at::randn({24, 1}); });
  refuses([](auto& s) { s.fold_scale = at::Tensor(); });
  refuses([](auto& s) { s.folded_ops = "nothing known"; });
  refuses([](auto& s) { s.folded_operands.pop_back(); });
  refuses([](auto& s) { s.expected_rank = -2; });
  refuses([](auto& s) { s.unfolded_weight = at::randn({1}); });
  refuses([](auto& s) { s.weight = s.weight.to_sparse(); });
}

TEST(Packed, RefusesStatesOfLaterFormatsAndBrokenOnes) {
  const auto state = save_state(rich_spec());
  const auto refuses = [&](const std::function<void(SavedState&)>& edit, const char* said) {
    SavedState changed{std::get<0>(state), std::get<1>(state).copy(), std::get<2>(state).copy(), std::get<3>(state).copy()};
    edit(changed);
    try {
      make_packed(load_state(changed));
      ADD_FAILURE() << "accepted, wanted: " << said;
    } catch (const c10::Error& error) {
      EXPECT_THAT(error.what_without_backtrace(), ::testing::HasSubstr(said));
    }
  };
  const auto list = [](SavedState& s, const char* key, std::vector<std::int64_t> value) { std::get<2>(s).insert_or_assign(key, std::move(value)); };
  EXPECT_NO_THROW(make_packed(load_state(state)));
  refuses([](SavedState& s) { std::get<0>(s) = kStateVersion + 1; }, "later one");
  refuses([](SavedState& s) { std::get<0>(s) = -1; }, "found -1");
  refuses([](SavedState& s) { (void)std::get<1>(s).erase("weight"); }, "needs a weight");
  refuses([&](SavedState& s) { list(s, "kind", {9}); }, "kind of 0 to 2");
  refuses([&](SavedState& s) { list(s, "kind", {0, 0}); }, "one number");
  refuses([&](SavedState& s) { list(s, "stride", {-4, 1}); }, "stride");
  refuses([&](SavedState& s) { list(s, "folded_operands", {1, 1, 1, 1}); }, "folded_operand0");
  refuses([&](SavedState& s) { list(s, "folded_operands", {}); }, "4 operands");
}

TEST(Packed, ForwardSaveAndCopyMayRunAtOnce) {
  const at::NoGradGuard outer;
  const auto module = holder(make_packed(rich_spec()));
  const auto x = at::randn({2, 16, 24, 20});
  const auto wanted = torch::jit::Module(module).forward({x}).toTensor();
  std::atomic<int> different{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i)
    threads.emplace_back([&, i] {
      const at::NoGradGuard no_grad;
      for (int round = 0; round < 20; ++round) {
        torch::jit::Module own = i % 3 == 0 ? module : i % 3 == 1 ? module.deepcopy() : loaded(saved(module));
        different += !at::equal(own.forward({x}).toTensor(), wanted);
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(different, 0);
}

}  // namespace
}  // namespace fusible::testing
