#include "tests/fuzz/generator.h"

#include <algorithm>
#include <utility>

namespace fuzz {

namespace {

std::int64_t elements(const Sizes& sizes) {
  std::int64_t n = 1;
  for (auto s : sizes) n *= s;
  return n;
}

}  // namespace

Program Generator::program() {
  program_.note = "seed " + std::to_string(seed_) + (steers_ ? " --steer" : "");
  const auto roll = random_.below(100);
  dtype_ = roll < 72 ? "float32" : roll < 86 ? "float64" : roll < 94 ? "bfloat16" : "float16";
  lines_ = &program_.sources[""];
  inputs();
  if (steers_) {
    for (auto n = 2 + random_.below(3); n > 0 && elements(current().sizes()) < 40000; --n) steered();
  } else {
    body(static_cast<int>(2 + random_.below(8)));
  }
  outputs();
  std::string header = "def forward(self";
  for (const auto& spec : variants_[0]) header += ", " + spec.name + ": Tensor";
  lines_->insert(lines_->begin(), header + "):");
  if (!written_.empty()) {
    lines_->push_back("def state(self):");
    std::string list;
    for (const auto& name : written_) list += (list.empty() ? "" : ", ") + name + ".clone()";
    lines_->push_back("    return [" + list + "]");
  }
  if (random_.chance(8)) {
    lines_->push_back("def second(self, x0: Tensor):");
    lines_->push_back("    return torch.relu(x0) + 1");
  }
  layouts();
  return program_;
}

void Generator::inputs() {
  const auto n = random_.below(100);
  const std::int64_t spatial = n < 50 ? 2 : n < 62 ? 1 : n < 70 ? 3 : 0;
  Sizes sizes{1 + random_.below(3)};
  const std::int64_t channels = random_.pick({1, 2, 3, 4, 6, 8, 16});
  if (spatial) {
    sizes.push_back(channels);
    for (std::int64_t d = 0; d < spatial; ++d) sizes.push_back(random_.chance(10) ? channels : 4 + random_.below(spatial == 3 ? 3 : 7));
  } else {
    for (std::int64_t d = random_.below(3); d > 0; --d) sizes.push_back(random_.chance(25) ? channels : 1 + random_.below(5));
    sizes.push_back(channels);
  }
  std::vector<Sizes> shapes{sizes};
  auto batch = sizes;
  batch[0] = random_.pick({0, 1, 3, 5});
  shapes.push_back(batch);
  if (spatial) {
    auto larger = sizes;
    for (std::size_t d = 2; d < larger.size(); ++d) larger[d] += 1 + random_.below(3);
    shapes.push_back(larger);
  }
  if (random_.chance(20) && sizes.size() > 1) shapes.push_back(Sizes(sizes.begin() + 1, sizes.end()));
  variants_.resize(shapes.size());
  variables_.push_back({input(shapes), shapes});
}

std::string Generator::input(const std::vector<Sizes>& shapes) {
  const std::string name = "x" + std::to_string(variants_[0].size());
  for (std::size_t v = 0; v < variants_.size(); ++v) {
    TensorSpec spec;
    spec.name = name;
    spec.dtype = dtype_;
    spec.sizes = shapes[v];
    spec.seed = static_cast<std::uint64_t>(random_.below(1 << 20));
    variants_[v].push_back(spec);
  }
  return name;
}

std::string Generator::tensor(const std::string& kind, const Sizes& sizes, const std::string& fill, const std::string& dtype) {
  const std::string name = "w" + std::to_string(counter_++);
  Attribute a;
  a.kind = kind;
  a.tensor.name = is_root() ? name : owner_ + "." + name;
  a.tensor.dtype = dtype.empty() ? dtype_ : dtype;
  a.tensor.sizes = sizes;
  a.tensor.fill = fill;
  a.tensor.seed = static_cast<std::uint64_t>(random_.below(1 << 20));
  program_.attributes.push_back(a);
  return "self." + name;
}

// Mostly a parameter of its own; also a shared, written, computed one, an input, or one of another dtype.
std::string Generator::weight(const Sizes& sizes, const std::string& fill) {
  const auto roll = random_.below(100);
  if (roll < 6) {
    for (const auto& a : program_.attributes) {
      const auto dot = a.tensor.name.find('.');
      const std::string owner = dot == std::string::npos ? "" : a.tensor.name.substr(0, dot);
      if (a.kind != "number" && a.tensor.sizes == sizes && owner == owner_ && a.tensor.dtype == dtype_)
        return "self." + (dot == std::string::npos ? a.tensor.name : a.tensor.name.substr(dot + 1));
    }
  }
  if (roll < 8 && is_root() && depth_ == 0) return input(std::vector<Sizes>(variants_.size(), sizes));
  const std::string name = tensor(random_.chance(80) ? "parameter" : "buffer", sizes, fill, roll == 8 ? random_.pick<std::string>({"float64", "float32", "bfloat16"}) : "");
  if (random_.chance(10)) program_.attributes.back().tensor.layout = sizes.size() > 3 ? "channels_last" : "transposed";
  if (roll == 9) return "(" + name + " * 1.5)";
  if (roll == 10) return name + ".detach()";
  if (roll == 11 && is_root() && sizes.size() > 0) {
    line(name + ".mul_(1.25)");
    if (depth_ == 0) written_.push_back(name);
  }
  return name;
}

void Generator::assign(const std::string& text, std::vector<Sizes> shapes) {
  const std::string name = "y" + std::to_string(counter_++);
  line(name + " = " + text);
  variables_.push_back({name, std::move(shapes)});
}

void Generator::body(int steps) {
  for (int i = 0; i < steps && elements(current().sizes()) < 40000; ++i) step();
}

void Generator::step() {
  const auto roll = random_.below(100);
  if (roll < 26) contraction();
  else if (roll < 37) batch_norm();
  else if (roll < 57) activation();
  else if (roll < 61) composite();
  else if (roll < 76) binary();
  else if (roll < 81) pieces();
  else if (roll < 86) view();
  else if (roll < 89) write();
  else if (roll < 92) other_operator();
  else if (roll < 94) conditional();
  else if (roll < 96) loop();
  else if (roll < 97) raise();
  else submodule();
}

void Generator::conditional() {
  if (depth_ > 1) return;
  const Variable before = current();
  const std::string result = "y" + std::to_string(counter_++);
  line(result + " = " + before.name);
  line("if " + random_.pick<std::string>({"x0.size(0) > 1", "x0.dim() == 4", "bool((x0.sum() > 0).item())", "self.training", before.name + ".dim() > 2"}) + ":");
  if (!is_root()) lines_->back() = std::string(4 * indent_, ' ') + "if x0.size(0) > 1:";
  ++indent_, ++depth_;
  const auto count = variables_.size();
  body(static_cast<int>(1 + random_.below(3)));
  line(result + " = " + current().name);
  auto shapes = random_.chance(50) ? current().shapes : before.shapes;
  --indent_, --depth_;
  variables_.resize(count);
  variables_.push_back({result, std::move(shapes)});
  certain_ = false;
}

void Generator::loop() {
  if (depth_ > 1) return;
  const Variable before = current();
  const std::string result = "y" + std::to_string(counter_++);
  line(result + " = " + before.name);
  line("for i in range(" + random_.pick<std::string>({"2", "3", "x0.dim()"}) + "):");
  ++indent_, ++depth_;
  const auto count = variables_.size();
  variables_.push_back({result, before.shapes});
  certain_ = false;  // the second round begins with what the first one made
  body(static_cast<int>(1 + random_.below(2)));
  line(result + " = " + current().name);
  --indent_, --depth_;
  variables_.resize(count);
  variables_.push_back({result, before.shapes});
}

void Generator::raise() {
  const std::string condition = random_.pick<std::string>({"x0.size(0) == 3", "x0.size(0) == 0", current().name + ".dim() == 3"});
  if (random_.chance(50)) {
    line("if " + condition + ":");
    line("    raise Exception(\"on purpose\")");
  } else {
    line("assert not (" + condition + "), \"on purpose\"");
  }
}

void Generator::submodule() {
  if (!is_root() || depth_ > 0) return;
  const auto saved = variables_;
  const bool certain = std::exchange(certain_, false);
  const Variable given = current();
  owner_ = "blk" + std::to_string(counter_++);
  const std::string owner = owner_;
  auto* outer = lines_;
  const int indent = indent_;
  lines_ = &program_.sources[owner_];
  indent_ = 1;
  variables_ = {{"x0", given.shapes}};
  if (random_.chance(80)) contraction();
  body(static_cast<int>(1 + random_.below(3)));
  line("return " + current().name);
  lines_->insert(lines_->begin(), "def forward(self, x0: Tensor):");
  const auto shapes = current().shapes;
  lines_ = outer;
  indent_ = indent;
  owner_.clear();
  variables_ = saved;
  certain_ = certain;
  const int times = random_.chance(30) ? 2 : 1;
  for (int i = 0; i < times; ++i) assign("self." + owner + ".forward(" + (i ? any().name : given.name) + ")", shapes);
}

void Generator::outputs() {
  const std::string last = current().name;
  const std::string other = random_.pick(variables_).name, third = random_.pick(variables_).name;
  const auto roll = random_.below(100);
  if (!returned_.empty()) {
    std::string all = last;
    for (const auto& name : returned_) all += ", " + name;
    return line("return " + all);
  }
  if (roll < 66) line("return " + last);
  else if (roll < 78) line("return (" + last + ", " + other + ")");
  else if (roll < 84) line("return [" + other + ", " + last + ", " + third + "]");
  else if (roll < 90) line("return {\"a\": " + last + ", \"b\": " + other + "}");
  else if (roll < 94) line("return (" + last + ", [" + other + "], {\"c\": " + third + "}, x0.size(0))");
  else if (roll < 97) {
    line("out : Optional[Tensor] = None");
    line("if x0.size(0) != 1:");
    line("    out = " + last);
    line("return out");
  } else {
    line("return " + last + ".shape[0], " + last + ".dim(), " + last);
  }
}

void Generator::layouts() {
  for (std::size_t v = 0; v < variants_.size(); ++v) program_.calls.push_back(variants_[v]);
  // The same shapes again with other memory and other values.
  auto odd = variants_[random_.below(static_cast<std::int64_t>(variants_.size()))];
  for (std::size_t i = 0; i < odd.size(); ++i) {
    odd[i].seed += 17;
    odd[i].layout = random_.pick<std::string>({"channels_last", "transposed", "expanded", "sliced", "contiguous"});
    if (i > 0 && random_.chance(15) && odd[i].sizes == odd[0].sizes) odd[i].layout = "x0";
    odd[i].fill = random_.pick<std::string>({"normal", "normal", "nan", "inf", "zero", "big"});
  }
  if (random_.chance(3)) odd[0].dtype = random_.pick<std::string>({"float64", "float32", "int64", "bfloat16"});
  program_.calls.push_back(odd);
  if (random_.chance(20)) {
    for (auto& spec : program_.calls[0]) spec.layout = random_.pick<std::string>({"channels_last", "transposed", "expanded", "sliced"});
  }
}

}  // namespace fuzz
