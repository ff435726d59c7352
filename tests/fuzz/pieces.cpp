// What models do with a result beside computing on it: parts of it put together, pooled, resized, attended to.

#include "tests/fuzz/generator.h"

#include <algorithm>
#include <functional>

namespace fuzz {

namespace {

std::string number(std::int64_t n) { return std::to_string(n); }

// With the same rank in every call.
bool is_even(const Variable& v, std::int64_t rank) {
  return std::all_of(v.shapes.begin(), v.shapes.end(), [&](const Sizes& s) { return static_cast<std::int64_t>(s.size()) == rank; });
}

bool all(const Variable& v, std::size_t from, const std::function<bool(std::int64_t)>& holds) {
  return std::all_of(v.shapes.begin(), v.shapes.end(), [&](const Sizes& s) { return std::all_of(s.begin() + from, s.end(), holds); });
}

}  // namespace

void Generator::pieces() {
  const Variable v = current();
  if (v.rank() < 3 || !is_even(v, v.rank()) || v.sizes()[1] < 2) return other_operator();
  const auto roll = random_.below(10);
  if (roll < 5) return concatenation();
  if (roll < 7) return split_block();
  if (v.rank() == 4 && roll < 9) return resampling();
  const std::string& n = v.name;
  const std::string width = number(v.sizes().back());
  if (random_.chance(40)) {
    const bool affine = random_.chance(70);
    const std::string w = affine ? weight({v.sizes().back()}, "normal") : "None", b = affine && random_.chance(70) ? weight({v.sizes().back()}, "normal") : "None";
    return assign("torch.layer_norm(" + n + ", [" + width + "], " + w + ", " + b + ")", v.shapes);
  }
  assign("torch.scaled_dot_product_attention(" + n + ", " + random_.pick<std::string>({n, n + ".flip(-2)", "torch.relu(" + n + ")"}) + ", " + n + ", None, 0.0, " +
             (random_.chance(40) ? "True" : "False") + ")",
         v.shapes);
}

// A part of a result, along its channels or whole; its number of channels goes to `channels`.
std::string Generator::part(const Variable& v, std::int64_t& channels) {
  const std::string& n = v.name;
  const std::int64_t all = v.sizes()[1], half = (all + 1) / 2;
  const std::int64_t k = 1 + random_.below(all - 1);
  switch (random_.below(9)) {
    case 0: return channels = k, n + "[:, :" + number(k) + "]";
    case 1: return channels = all - k, n + "[:, " + number(k) + ":]";
    case 2: return channels = half, n + "[:, ::2]";
    case 3: return channels = all - half, "torch.chunk(" + n + ", 2, 1)[1]";
    case 4: return channels = k, "torch.narrow(" + n + ", 1, " + number(all - k) + ", " + number(k) + ")";
    case 5: return channels = all, "torch.relu(" + n + ")";
    case 6: return channels = all, n + random_.pick<std::string>({".flip(1)", ".contiguous()", ".transpose(-1, -2).contiguous().transpose(-1, -2)", ".unsqueeze(0).select(0, 0)"});
    case 7: return channels = all, n + ".mean(-1, keepdim=True).expand_as(" + n + ")";
    default: return channels = all, n;
  }
}

void Generator::concatenation() {
  const Variable v = current();
  auto shapes = v.shapes;
  const bool halves = random_.chance(10) && all(v, v.rank() - 1, [](std::int64_t size) { return size % 2 == 0 && size > 0; });
  if (halves) {
    for (auto& shape : shapes) shape[1] *= 2, shape.back() /= 2;
    return assign("torch.cat([" + v.name + "[..., ::2], " + v.name + "[..., 1::2]], 1)", shapes);
  }
  const bool square = random_.chance(15) && std::all_of(v.shapes.begin(), v.shapes.end(), [](const Sizes& s) { return s.back() == s[s.size() - 2]; });
  std::vector<std::string> parts;
  std::int64_t total = 0;
  for (auto count = 1 + random_.below(3); count > 0; --count) {
    const Variable from = random_.chance(70) ? v : random_.pick(variables_);
    const bool fits = is_even(from, v.rank()) && std::equal(from.shapes.begin(), from.shapes.end(), v.shapes.begin(), v.shapes.end(), [](const Sizes& a, const Sizes& b) {
      return a[0] == b[0] && std::equal(a.begin() + 2, a.end(), b.begin() + 2, b.end());
    }) && from.sizes()[1] >= 2;
    std::int64_t channels = 0;
    parts.push_back(part(fits ? from : v, channels) + (square ? ".transpose(-1, -2)" : ""));
    total += channels;
  }
  std::string list;
  for (const auto& p : parts) list += (list.empty() ? "" : ", ") + p;
  for (auto& shape : shapes) shape[1] = total;
  assign("torch.cat([" + list + "], 1)", shapes);
}

// cat([x, f(part of x)]), as cross-stage partial, dense and Ghost blocks have it: f keeps the sizes where it can.
void Generator::split_block() {
  const Variable v = current();
  std::int64_t channels = 0;
  const std::string p = part(v, channels);
  auto shapes = v.shapes;
  for (auto& shape : shapes) shape[1] = channels;
  assign(p, shapes);
  const std::string piece = current().name, rank = number(v.rank() - 2);
  const std::int64_t out = 1 + random_.below(6);
  for (auto& shape : shapes) shape[1] = out;
  assign("torch.conv" + rank + "d(" + piece + ", " + weight([&] {
           Sizes sizes(v.rank(), 3);
           sizes[0] = out, sizes[1] = channels;
           return sizes;
         }(), "small") + ", None, 1, 1)", shapes);
  if (random_.chance(50)) activation();
  const std::string made = current().name;
  const bool piece_too = random_.chance(40);
  for (auto& shape : shapes) shape[1] = v.sizes()[1] + out + (piece_too ? channels : 0);
  assign("torch.cat([" + v.name + (piece_too ? ", " + piece : "") + ", " + made + "], 1)", shapes);
}

void Generator::resampling() {
  const Variable v = current();
  auto shapes = v.shapes;
  const std::string& n = v.name;
  const auto spatial = [&](const std::function<std::int64_t(std::int64_t)>& f) {
    for (auto& shape : shapes) shape[2] = f(shape[2]), shape[3] = f(shape[3]);
  };
  if (random_.chance(35) && depth_ == 0 && all(v, 2, [](std::int64_t size) { return size < 20; })) {
    spatial([](std::int64_t size) { return size * 2; });
    const std::string how = random_.pick<std::string>({"torch.upsample_nearest2d(" + n + ", None, [2.0, 2.0])", "torch.upsample_bilinear2d(" + n + ", None, False, [2.0, 2.0])"});
    return assign(how, shapes);
  }
  if (!all(v, 2, [](std::int64_t size) { return size >= 3; })) {
    spatial([](std::int64_t) { return 1; });
    return assign("torch.adaptive_avg_pool2d(" + n + ", [1, 1])", shapes);
  }
  const bool up = random_.chance(40);
  spatial([&](std::int64_t size) { return (size - 3 + 2 + (up ? 1 : 0)) / 2 + 1; });
  const std::string window = "(" + n + ", [3, 3], [2, 2], [1, 1], ", ceil = up ? "True" : "False";
  assign(random_.chance(60) ? "torch.max_pool2d" + window + "[1, 1], " + ceil + ")"
                            : "torch.avg_pool2d" + window + ceil + ", " + (random_.chance(50) ? "True" : "False") + ")",
         shapes);
}

}  // namespace fuzz
