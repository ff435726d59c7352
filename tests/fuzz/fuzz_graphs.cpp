#include <ATen/Parallel.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "tests/fuzz/apart.h"
#include "tests/fuzz/generator.h"
#include "tests/fuzz/histogram.h"
#include "tests/fuzz/shrink.h"

namespace {

constexpr const char kHelp[] = R"(fuzz_graphs: random TorchScript modules, fused, against the original

  fuzz_graphs --count 3000 --minutes 2            modules of today's seed
  fuzz_graphs --seed 52 --count 1 --print         one module again
  fuzz_graphs --target freeze --count 2000        the same against torch.jit.freeze
  fuzz_graphs --case tests/fuzz/cases/*.fuzz      modules from files

  --count N          modules (2000)
  --minutes M        stop after so long (2)
  --seed S           of the first module; the next has S + 1 (today's date)
  --steer            modules steered to each code by which each step can be left, as often to the rare as to the frequent ones (quota.h)
  --target NAME      fusible, freeze, ofi (optimize_for_inference), llga (oneDNN Graph), rewriter (torch's passes FuseAddRelu, FuseLinear)
  --count-only       do not shrink and print differences
  --save FOLDER      write each difference, shrunk, as FOLDER/SEED.fuzz
  --statistics FILE  append a line of JSON for every 1,000 modules
  --print            print every module
  --case FILE...     check these instead; with --print: graph and report

Exit 0: no difference, 1: differences, 2: unusable arguments.
)";

struct Arguments {
  std::int64_t count = 2000;
  std::uint64_t seed = 0;
  double minutes = 2;
  fuzz::Target target = fuzz::Target::fusible;
  std::string save, statistics;
  bool print = false, help = false, count_only = false, steer = false;
  std::vector<std::string> cases;
};

// One seed a day: every day sees modules that no day saw before, and a failure of today can be repeated.
std::uint64_t seed_of_today() {
  const std::time_t now = std::time(nullptr);
  const std::tm* utc = std::gmtime(&now);
  return static_cast<std::uint64_t>((utc->tm_year + 1900) * 10000 + (utc->tm_mon + 1) * 100 + utc->tm_mday) * 1000000;
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  a.seed = seed_of_today();
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) throw std::runtime_error(word + " needs a value");
      return argv[++i];
    };
    if (word == "--count") a.count = std::stoll(value());
    else if (word == "--seed") a.seed = std::stoull(value());
    else if (word == "--minutes") a.minutes = std::stod(value());
    else if (word == "--save") a.save = value();
    else if (word == "--statistics") a.statistics = value();
    else if (word == "--count-only") a.count_only = true;
    else if (word == "--steer") a.steer = true;
    else if (word == "--print") a.print = true;
    else if (word == "--help") a.help = true;
    else if (word == "--target") {
      a.target = fuzz::target_of(value());
    } else if (word == "--case") {
      while (i + 1 < argc && argv[i + 1][0] != '-') a.cases.push_back(argv[++i]);
    } else throw std::runtime_error("unknown argument " + word + ", see --help");
  }
  return a;
}

int replay(const Arguments& arguments) {
  int failed = 0;
  for (const auto& path : arguments.cases) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    if (!file) throw std::runtime_error("no case at " + path);
    const auto checked = fuzz::check_apart(fuzz::Program::parse(text.str()), arguments.target);
    std::string why = checked.unusable + checked.difference;
    if (checked.executor_decides) why = "torch's executor decides whether it raises";
    std::cout << std::filesystem::path(path).filename().string() << ": " << (why.empty() ? "same" : why) << "\n";
    if (arguments.print) std::cout << checked.graph << (checked.report ? checked.report->to_string() : "") << "\n";
    failed += !why.empty();
  }
  return failed ? 1 : 0;
}

void append(const std::string& path, const std::string& line) {
  if (!(std::ofstream(path, std::ios::app) << line << std::flush)) throw std::runtime_error("--statistics: cannot write " + path);
}

void show(const fuzz::Program& program, std::uint64_t seed, const Arguments& arguments) {
  const auto small = fuzz::shrink(program, [&](const fuzz::Program& p) { return !fuzz::check_apart(p, arguments.target).difference.empty(); });
  std::cout << "DIFFERENT seed " << seed << ": " << fuzz::check_apart(small, arguments.target).difference << "\n" << small.text() << std::endl;
  if (!arguments.save.empty()) std::ofstream(std::filesystem::path(arguments.save) / (std::to_string(seed) + ".fuzz")) << small.text();
}

int fuzz_all(const Arguments& arguments) {
  constexpr std::int64_t kBatch = 1000;  // a line of statistics each: a run that is stopped loses no more
  const auto start = std::chrono::steady_clock::now();
  const auto minutes = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / 60; };
  std::cout << "seed " << arguments.seed << std::endl;
  bool different = false;
  for (std::int64_t done = 0; done < arguments.count && minutes() < arguments.minutes; done += kBatch) {
    fuzz::Histogram histogram;
    const auto first = arguments.seed + static_cast<std::uint64_t>(done);
    const auto program = [&](std::int64_t i) { return fuzz::Generator(first + static_cast<std::uint64_t>(i), arguments.steer).program(); };
    fuzz::check_apart(std::min(kBatch, arguments.count - done), program, arguments.target, [&](std::int64_t i, const fuzz::Checked& checked) {
      histogram.add(checked);
      if (arguments.print) std::cout << program(i).text() << std::endl;
      if (arguments.print && !checked.unusable.empty()) std::cout << "unusable: " << checked.unusable << "\n";
      if (!checked.difference.empty() && !arguments.count_only) show(program(i), first + static_cast<std::uint64_t>(i), arguments);
      return minutes() < arguments.minutes;
    });
    std::cout << histogram.text() << std::flush;
    if (!arguments.statistics.empty()) append(arguments.statistics, histogram.json(first, fuzz::name_of(arguments.target), arguments.steer));
    different |= histogram.different() > 0;
  }
  return different ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments = parse(argc, argv);
  if (arguments.help) {
    std::cout << kHelp;
    return 0;
  }
  at::set_num_threads(1);
  return arguments.cases.empty() ? fuzz_all(arguments) : replay(arguments);
} catch (const std::exception& error) {
  std::cerr << "fuzz_graphs: " << error.what() << "\n";
  return 2;
}
