// Interleaved runs of a model's variants.

#include <chrono>

#include <ATen/CPUGeneratorImpl.h>

#include "passes/install.h"
#include "passes/marks.h"
#include "passes/tune.h"
#include "passes/verify.h"

namespace fusible {

namespace {

using Seconds = std::chrono::duration<double>;
using Steady = std::chrono::steady_clock;

// A profiled run, one that optimises the plan, one in the steady state.
constexpr int kWarmups = 3;
constexpr std::size_t kFewestRounds = 7, kMostRounds = 21;
constexpr Seconds kBudget{20};  // beyond the fewest rounds

constexpr std::array<std::optional<Way>, 4> kAsked{std::nullopt, Way::panels, Way::onednn, Way::aten};

// What the user's generator gives next is not ours to change.
class KeptRandomState {
 public:
  ~KeptRandomState() { generator_.set_state(state_); }

 private:
  at::Generator generator_ = at::detail::getDefaultCPUGenerator();
  at::Tensor state_ = generator_.get_state();
};

// The last line is the operator's own; those before it are the way there.
Error raised(std::string reason) {
  reason.erase(reason.find_last_not_of(" \n") + 1);
  return Error("tune: example_inputs on which the model runs were needed, found that it raised: " + reason.substr(reason.rfind('\n') + 1));
}

template <typename Round>
std::vector<Round> rounds(const std::function<Round()>& one, const std::function<bool(const std::vector<Round>&)>& is_clear) {
  std::vector<Round> all;
  const auto begin = Steady::now();
  while (all.size() < kFewestRounds || (all.size() < kMostRounds && Steady::now() - begin < kBudget && !is_clear(all))) all.push_back(one());
  return all;
}

}  // namespace

double Clock::run(Module& module) const {
  auto inputs = cloned(inputs_);
  try {
    const auto begin = Steady::now();
    module.forward(std::move(inputs));
    return Seconds(Steady::now() - begin).count();
  } catch (const c10::Error& error) {
    throw raised(error.what_without_backtrace());
  } catch (const std::exception& error) {
    throw raised(error.what());
  }
}

std::vector<WayRound> Clock::ways(const Module& fused) {
  const at::NoGradGuard no_grad;
  const KeptRandomState kept;
  Module module = copy_whole(fused);
  for (int i = 0; i < kWarmups; ++i)
    for (const auto& asked : kAsked) {
      const Trial trial(asked);
      heartbeat_();
      run(module);
    }
  return rounds<WayRound>(
      [&] {
        WayRound round;
        heartbeat_();
        for (std::size_t i = 0; i < kAsked.size(); ++i) {
          Trial trial(kAsked[i]);
          run(module);
          round.runs[i] = std::move(trial.seen);
        }
        return round;
      },
      is_clear);
}

std::vector<BlockRound> Clock::race(const Race& race) {
  const at::NoGradGuard no_grad;
  const KeptRandomState kept;
  Module original = copy_whole(race.original), original_marked = copy_whole(race.original_marked);
  Module fused = copy_whole(race.fused), fused_marked = copy_whole(race.fused_marked);
  const auto one = [&] {
    BlockRound round;
    heartbeat_();
    round.original_whole = run(original);
    round.fused_whole = run(fused);
    {
      const Stopwatches watches(race.blocks);
      run(original_marked);
      round.original = watches.seconds();
    }
    const Trial trial(std::nullopt);
    const Stopwatches watches(race.blocks);
    run(fused_marked);
    round.fused = watches.seconds();
    return round;
  };
  for (int i = 0; i < kWarmups; ++i) one();
  return rounds<BlockRound>(one, [&](const std::vector<BlockRound>& so_far) {
    const auto clear = [](const Ratio& ratio) { return !ratio.loses() || ratio.clearly_loses(); };
    for (std::size_t b = 0; b < race.blocks; ++b)
      if (!clear(ratio_of_block(so_far, b))) return false;
    return clear(ratio_of_whole(so_far));
  });
}

}  // namespace fusible
