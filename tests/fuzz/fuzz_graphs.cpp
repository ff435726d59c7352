// fuzz_graphs [--count N] [--seed S] [--minutes M] [--target fusible|freeze|ofi] [--save FOLDER] [--statistics FILE] [--print] | --case FILE...

#include <ATen/Parallel.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "tests/fuzz/check.h"
#include "tests/fuzz/generator.h"
#include "tests/fuzz/histogram.h"
#include "tests/fuzz/shrink.h"

namespace {

struct Arguments {
  std::int64_t count = 2000;
  std::uint64_t seed = 0;
  double minutes = 2;
  fuzz::Target target = fuzz::Target::fusible;
  std::string save, statistics;
  bool print = false;
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
    else if (word == "--print") a.print = true;
    else if (word == "--target") {
      const std::string name = value();
      if (name != "fusible" && name != "freeze" && name != "ofi") throw std::runtime_error("--target: fusible, freeze or ofi was needed, found " + name);
      a.target = name == "fusible" ? fuzz::Target::fusible : name == "freeze" ? fuzz::Target::freeze : fuzz::Target::optimize_for_inference;
    } else if (word == "--case") {
      while (i + 1 < argc && argv[i + 1][0] != '-') a.cases.push_back(argv[++i]);
    } else throw std::runtime_error("unknown argument " + word);
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
    const auto checked = fuzz::check(fuzz::Program::parse(text.str()), arguments.target);
    const std::string why = checked.unusable + checked.difference;
    std::cout << std::filesystem::path(path).filename().string() << ": " << (why.empty() ? "same" : why) << "\n";
    if (arguments.print && checked.report) std::cout << checked.report->to_string() << "\n";
    failed += !why.empty();
  }
  return failed ? 1 : 0;
}

int fuzz_all(const Arguments& arguments) {
  fuzz::Histogram histogram;
  const auto start = std::chrono::steady_clock::now();
  const auto minutes = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / 60; };
  std::cout << "seed " << arguments.seed << "\n";
  for (std::int64_t i = 0; i < arguments.count && minutes() < arguments.minutes; ++i) {
    const std::uint64_t seed = arguments.seed + static_cast<std::uint64_t>(i);
    const fuzz::Program program = fuzz::Generator(seed).program();
    if (arguments.print) std::cout << program.text() << std::endl;
    const auto checked = fuzz::check(program, arguments.target);
    histogram.add(checked);
    if (arguments.print && !checked.unusable.empty()) std::cout << "unusable: " << checked.unusable << "\n";
    if (checked.difference.empty()) continue;
    const auto small = fuzz::shrink(program, [&](const fuzz::Program& p) { return !fuzz::check(p, arguments.target).difference.empty(); });
    std::cout << "DIFFERENT seed " << seed << ": " << fuzz::check(small, arguments.target).difference << "\n" << small.text() << std::endl;
    if (!arguments.save.empty()) std::ofstream(std::filesystem::path(arguments.save) / (std::to_string(seed) + ".fuzz")) << small.text();
  }
  const std::string statistics = histogram.markdown(arguments.seed, minutes());
  std::cout << statistics;
  if (!arguments.statistics.empty()) std::ofstream(arguments.statistics) << statistics;
  return histogram.different() ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments arguments = parse(argc, argv);
  at::set_num_threads(1);
  return arguments.cases.empty() ? fuzz_all(arguments) : replay(arguments);
} catch (const std::exception& error) {
  std::cerr << "fuzz_graphs: " << error.what() << "\n";
  return 2;
}
