// States of regions as a damaged or forged archive may hold them: loaded or refused by an exception, and what was loaded runs or raises.

#include <cstdlib>
#include <random>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ops/region/region.h"
#include "tests/region/pointwise.h"

namespace fusible {
namespace {

using Lines = std::vector<std::string>;

// A channel shuffle between two convolutions, a concatenation, a pool and a gate.
Region::State network() {
  return {Region::kVersion, 1,
          {"%1 = fusible::conv %0 #0 'relu' []", "%2 = aten::size.int %1 0", "%3 = aten::size.int %1 1", "%4 = aten::floordiv.int %3 2",
           "%5 = aten::view %1 (%2 2 %4 6 6)", "%6 = aten::transpose.int %5 1 2", "%7 = aten::contiguous %6 0", "%8 = aten::view %7 (%2 %3 6 6)",
           "%9 = fusible::conv %8 #1 'add|hardtanh(0.0, 6.0)' [%1]", "%10 = aten::cat [%9 %8] 1", "%11 = fusible::chunk %10 2 1 0 2",
           "%12 = aten::max_pool2d %11 (3 3) (2 2) (1 1) (1 1) false", "%13 = aten::adaptive_avg_pool2d %12 (1 1)", "%14 = aten::sigmoid %13",
           "%15 = aten::mul.Tensor %12 %14", "%16 = aten::add.Tensor %15 $0 1", "%17 = aten::slice.Tensor %16 1 0 3 1",
           "%18 = aten::narrow %17 2 1 2", "%19 = aten::permute %18 (0 2 3 1)", "%20 = aten::layer_norm %19 (3) none none 1e-05 true"},
          {20, 9},
          {pointwise(4, 8), pointwise(8, 8)},
          {at::randn({8, 1, 1})}};
}

// Whatever it throws: the process goes on, and a region that was loaded is written as it was read.
bool runs(const Region::State& state) {
  try {
    const auto region = Region::load(state);
    EXPECT_EQ(Region::load(region->save())->print(), region->print());
    const std::vector<at::Tensor> inputs(static_cast<std::size_t>(region->inputs()), at::ones({2, 4, 6, 6}));
    for (int call = 0; call < 2; ++call) region->run(inputs);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

class Damage {
 public:
  explicit Damage(unsigned seed) : random_(seed) {}

  void apply(Lines& lines) {
    std::string& line = lines[pick(lines.size())];
    std::vector<std::pair<std::size_t, std::size_t>> words;
    for (std::size_t at = 0; (at = line.find_first_not_of(" ()[]", at)) != std::string::npos;) {
      const std::size_t end = std::min(line.find_first_of(" ()[]", at), line.size());
      words.emplace_back(at, end - at);
      at = end;
    }
    const auto [at, length] = words[pick(words.size())];
    switch (pick(5)) {
      case 0: line.replace(at, length, kNumbers[pick(kNumbers.size())]); break;
      case 1: line.replace(at, length, "%" + std::to_string(pick(lines.size() + 2))); break;
      case 2: line.erase(at, length); break;
      case 3: std::swap(line, lines[pick(lines.size())]); break;
      default: line[at + pick(length)] = static_cast<char>(' ' + pick(95));
    }
  }

 private:
  std::size_t pick(std::size_t count) { return random_() % count; }

  const Lines kNumbers = {"-1", "0", "1", "2", "3", "5", "64", "-9223372036854775808", "9223372036854775807", "none", "true", "nan", "0.5", "#0", "$0"};
  std::mt19937 random_;
};

TEST(Hostile, ANetworkThatIsNotDamagedRuns) { EXPECT_TRUE(runs(network())); }

TEST(Hostile, DamagedStatesAreReadOrRefused) {
  const unsigned first = std::getenv("FUSIBLE_TEST_SEED") ? static_cast<unsigned>(std::strtoul(std::getenv("FUSIBLE_TEST_SEED"), nullptr, 10)) : 0;
  const Region::State whole = network();
  int ran = 0;
  constexpr unsigned kRounds = 3000;
  for (unsigned seed = first; seed < first + kRounds; ++seed) {
    SCOPED_TRACE(seed);
    Region::State state = whole;
    Damage damage(seed);
    for (unsigned edits = 1 + seed % 3; edits > 0; --edits) damage.apply(std::get<2>(state));
    ran += runs(state);
  }
  EXPECT_GT(ran, 10);  // 42 of those that start with 0: most damage raises while the state is read, or in the call
}

Region::State one(const char* line, std::int64_t inputs = 1) { return {Region::kVersion, inputs, {line}, {inputs}, {}, {}}; }

// The least integer marks the entries of a list that registers hold.
TEST(Hostile, ANumberThatStandsForARegister) {
  for (const char* line : {"%1 = aten::view %0 (-9223372036854775808 %0)", "%1 = aten::view %0 (%0 -9223372036854775808 -9223372036854775808)"})
    EXPECT_THROW(Region::load(one(line)), c10::Error) << line;
  EXPECT_THROW(Region(1, {{{"aten::view", ""}, {Argument::reg(0), Argument::integers({Argument::kHeld, Argument::kHeld}, {0})}, 1}}, {1}), c10::Error);
}

TEST(Hostile, ANumberOfInputsThatNoMemoryHolds) {
  for (const std::int64_t inputs : {std::int64_t{-1}, std::int64_t{1} << 31, std::numeric_limits<std::int64_t>::max()})
    EXPECT_THROW(Region::load(one("%1 = aten::relu %0", inputs)), c10::Error) << inputs;
}

TEST(Hostile, ArithmeticThatOverflowsWraps) {
  const std::int64_t least = std::numeric_limits<std::int64_t>::min(), most = std::numeric_limits<std::int64_t>::max();
  const auto result = [](const std::string& op, std::int64_t a, std::int64_t b) {
    const auto region = Region::load({Region::kVersion, 1, {"%1 = aten::" + op + ".int " + std::to_string(a) + " " + std::to_string(b)}, {1}, {}, {}});
    return region->run({at::ones({1})})[0].item<std::int64_t>();
  };
  EXPECT_EQ(result("floordiv", least, -1), least);
  EXPECT_EQ(result("floordiv", -7, 2), -4);
  EXPECT_EQ(result("floordiv", 7, -1), -7);
  EXPECT_EQ(result("add", most, 1), least);
  EXPECT_EQ(result("sub", least, 1), most);
  EXPECT_EQ(result("mul", most, 2), -2);
  EXPECT_THROW(result("floordiv", 1, 0), c10::Error);
}

}  // namespace
}  // namespace fusible
