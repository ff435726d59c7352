#include "ops/choice.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <sstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "ops/kernels/isa.h"
#include "ops/packed.h"

namespace fusible {
namespace {

using Layout = CallShape::Layout;
constexpr std::array kWays{Way::panels, Way::onednn, Way::aten};
constexpr std::array kLayouts{Layout::contiguous, Layout::channels_last, Layout::region};
constexpr size_t kMostDimensions = 8;

const char* name_of(Layout layout) {
  switch (layout) {
    case Layout::contiguous: return "contiguous";
    case Layout::channels_last: return "channels_last";
    default: return "region";
  }
}

#if defined(__x86_64__)
std::string processor() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  std::ostringstream text;
  if (!__get_cpuid(0, &a, &b, &c, &d)) return "x86-64";
  for (unsigned part : {b, d, c}) text.write(reinterpret_cast<const char*>(&part), sizeof part);
  std::string brand;
  for (unsigned leaf = 0x80000002; leaf <= 0x80000004 && __get_cpuid(leaf, &a, &b, &c, &d); ++leaf)
    for (unsigned part : {a, b, c, d}) brand.append(reinterpret_cast<const char*>(&part), sizeof part);
  std::istringstream words(brand.substr(0, brand.find('\0')));
  for (std::string word; words >> word;) text << ' ' << word;
  __get_cpuid(1, &a, &b, &c, &d);
  const unsigned family = (a >> 8 & 15) + (a >> 20 & 255), model = (a >> 4 & 15) | (a >> 12 & 240), stepping = a & 15;
  text << ' ' << family << '-' << model << '-' << stepping;
  return text.str();
}
#else
std::string processor() { return "other processor"; }
#endif

template <typename Enum, size_t N>
std::optional<Enum> named(const std::array<Enum, N>& list, const std::string& name) {
  const auto found = std::find_if(list.begin(), list.end(), [&](Enum entry) { return name == name_of(entry); });
  return found == list.end() ? std::nullopt : std::optional(*found);
}

std::optional<std::vector<std::int64_t>> parse_sizes(const std::string& text) {
  std::vector<std::int64_t> sizes;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, 'x');) {
    if (part.empty() || part.size() > 12 || part.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
    sizes.push_back(std::stoll(part));
  }
  return sizes.empty() || sizes.size() > kMostDimensions ? std::nullopt : std::optional(sizes);
}

std::optional<Choice> parse_choice(const std::string& line) {
  std::istringstream words(line);
  std::string way, sizes, layout;
  Choice choice;
  if (!(words >> way >> choice.threads >> sizes >> layout) || words.get() != ' ' || !std::getline(words, choice.machine)) return std::nullopt;
  const auto known = named(kWays, way);
  const auto lies = named(kLayouts, layout);
  const auto numbers = parse_sizes(sizes);
  if (!known || !lies || !numbers || choice.threads < 1) return std::nullopt;
  choice.way = *known;
  choice.shape = {*numbers, *lies};
  return choice;
}

}  // namespace

const char* name_of(Way way) {
  switch (way) {
    case Way::panels: return "panels";
    case Way::onednn: return "onednn";
    default: return "aten";
  }
}

std::optional<CallShape> call_shape(const at::Tensor& x) {
  if (x.layout() != at::kStrided) return std::nullopt;
  const auto format = x.suggest_memory_format();
  if (!x.is_contiguous(format)) return std::nullopt;
  return CallShape{x.sizes().vec(), format == at::MemoryFormat::Contiguous ? Layout::contiguous : Layout::channels_last};
}

std::string to_string(const CallShape& shape) {
  std::ostringstream text;
  for (size_t i = 0; i < shape.sizes.size(); ++i) text << (i ? "x" : "") << shape.sizes[i];
  text << ' ' << name_of(shape.layout);
  return text.str();
}

const std::string& this_machine() {
  static const std::string machine = processor() + ' ' + kernels::isa().name;
  return machine;
}

std::string print_choices(const std::vector<Choice>& choices) {
  std::string text;
  for (const Choice& choice : choices)
    text += std::string(name_of(choice.way)) + ' ' + std::to_string(choice.threads) + ' ' + to_string(choice.shape) + ' ' + choice.machine + '\n';
  return text;
}

std::vector<Choice> parse_choices(const std::string& text) {
  std::vector<Choice> choices;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (auto choice = parse_choice(line)) choices.push_back(std::move(*choice));
  return choices;
}

void PackedContraction::choose(std::vector<Choice> choices) {
  spec_.choices = std::move(choices);
  here_.clear();
  for (const Choice& choice : spec_.choices)
    if (choice.machine == this_machine()) here_.push_back(choice);
}

std::optional<Way> PackedContraction::choice(const CallShape& shape) const {
  const std::int64_t threads = here_.empty() ? 0 : at::get_num_threads();
  for (const Choice& choice : here_)
    if (choice.threads == threads && choice.shape == shape) return choice.way;
  return std::nullopt;
}

std::optional<Way> PackedContraction::choice(const at::Tensor& x) const {
  if (here_.empty()) return std::nullopt;
  const auto shape = call_shape(x);
  return shape ? choice(*shape) : std::nullopt;
}

}  // namespace fusible
