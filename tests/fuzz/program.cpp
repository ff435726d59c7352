#include "tests/fuzz/program.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/jit/frontend/resolver.h>
#include <torch/csrc/jit/frontend/sugared_value.h>

#include <sstream>
#include <stdexcept>

namespace fuzz {

namespace {

std::string printed(const TensorSpec& t) {
  std::string text = t.name + " " + t.dtype + " [";
  for (std::size_t i = 0; i < t.sizes.size(); ++i) text += (i ? "," : "") + std::to_string(t.sizes[i]);
  return text + "] " + t.layout + " " + t.fill + " " + std::to_string(t.seed);
}

TensorSpec read_tensor(std::istringstream& words) {
  TensorSpec t;
  std::string sizes;
  if (!(words >> t.name >> t.dtype >> sizes >> t.layout >> t.fill >> t.seed) || sizes.size() < 2 || sizes.front() != '[')
    throw std::runtime_error("expected: name dtype [sizes] layout fill seed");
  std::istringstream numbers(sizes.substr(1, sizes.size() - 2));
  for (std::string number; std::getline(numbers, number, ',');) t.sizes.push_back(std::stoll(number));
  return t;
}

at::ScalarType dtype_of(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "float64") return at::kDouble;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  if (name == "int64") return at::kLong;
  if (name == "bool") return at::kBool;
  throw std::runtime_error("unknown dtype " + name);
}

at::Tensor filled(const TensorSpec& t, const Sizes& sizes) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(t.seed);
  at::Tensor values = at::randn(sizes, generator, at::TensorOptions().dtype(at::kDouble));
  if (t.fill == "positive") values = values.abs() + 0.5;
  else if (t.fill == "zero") values.zero_();
  else if (t.fill == "small") values = values * 0.3;
  else if (t.fill == "big") values = values * 1e4;
  else if (t.fill == "integers") values = (values * 3).round();
  else if (t.fill == "nan" || t.fill == "inf") {
    const double special = t.fill == "nan" ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
    const at::Tensor where = at::rand(sizes, generator, at::TensorOptions().dtype(at::kDouble)) < 0.03;
    values = at::where(where, at::where(values > 0, at::scalar_tensor(special, at::kDouble), at::scalar_tensor(-special, at::kDouble)), values);
  } else if (t.fill != "normal") {
    throw std::runtime_error("unknown fill " + t.fill);
  }
  return values.to(dtype_of(t.dtype));
}

at::Tensor made(const TensorSpec& t, const std::map<std::string, at::Tensor>& earlier) {
  if (auto it = earlier.find(t.layout); it != earlier.end()) return it->second.sizes() == t.sizes ? it->second : it->second.reshape({-1}).narrow(0, 0, 0);
  const auto rank = static_cast<std::int64_t>(t.sizes.size());
  if (t.layout == "channels_last" && rank == 4) return filled(t, t.sizes).contiguous(at::MemoryFormat::ChannelsLast);
  if (t.layout == "channels_last" && rank == 5) return filled(t, t.sizes).contiguous(at::MemoryFormat::ChannelsLast3d);
  if (t.layout == "transposed" && rank >= 2) return filled(t, t.sizes).transpose(0, -1).contiguous().transpose(0, -1);
  if (t.layout == "expanded" && rank >= 1) {
    Sizes sizes = t.sizes;
    sizes[0] = std::min<std::int64_t>(sizes[0], 1);
    return filled(t, sizes).expand(t.sizes);
  }
  if (t.layout == "sliced" && rank >= 1) {
    Sizes sizes = t.sizes;
    sizes.back() *= 2;
    return filled(t, sizes).slice(-1, 0, sizes.back(), 2);
  }
  return filled(t, t.sizes);
}

// `raise Exception(...)` too: the native resolver knows `torch` alone.
struct Names : torch::jit::NativeResolver {
  std::shared_ptr<torch::jit::SugaredValue> resolveValue(const std::string& name, torch::jit::GraphFunction& function, const torch::jit::SourceRange& at) override {
    if (name == "Exception") return std::make_shared<torch::jit::ExceptionValue>(name);
    return NativeResolver::resolveValue(name, function, at);
  }
};

std::pair<std::string, std::string> owner_and_name(const std::string& dotted) {
  const auto dot = dotted.find('.');
  return dot == std::string::npos ? std::pair<std::string, std::string>{"", dotted} : std::pair{dotted.substr(0, dot), dotted.substr(dot + 1)};
}

}  // namespace

std::string Program::text() const {
  std::string text = "# " + note + "\n";
  for (const auto& a : attributes) text += a.kind + " " + (a.kind == "number" ? a.tensor.name + " " + std::to_string(a.number) : printed(a.tensor)) + "\n";
  for (const auto& call : calls) {
    text += "call\n";
    for (const auto& input : call) text += "  " + printed(input) + "\n";
  }
  for (const auto& [owner, lines] : sources) {
    text += "source " + (owner.empty() ? "root" : owner) + "\n";
    for (const auto& line : lines) text += "  " + line + "\n";
  }
  return text;
}

Program Program::parse(const std::string& text) {
  Program program;
  std::istringstream lines(text);
  std::vector<std::string>* source = nullptr;
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.empty()) continue;
    try {
      if (line[0] == '#') {
        program.note = line.substr(std::min<std::size_t>(2, line.size()));
        continue;
      }
      if (source && line[0] == ' ') {
        source->push_back(line.substr(2));
        continue;
      }
      std::istringstream words(line);
      std::string word;
      words >> word;
      if (line[0] == ' ') {
        if (program.calls.empty()) throw std::runtime_error("an input outside of a call");
        std::istringstream whole(line);
        program.calls.back().push_back(read_tensor(whole));
      } else if (word == "call") {
        program.calls.emplace_back();
      } else if (word == "source") {
        words >> word;
        source = &program.sources[word == "root" ? "" : word];
      } else if (word == "number") {
        Attribute a{word, {}, 0};
        words >> a.tensor.name >> a.number;
        program.attributes.push_back(a);
      } else if (word == "parameter" || word == "buffer") {
        program.attributes.push_back({word, read_tensor(words), 0});
      } else {
        throw std::runtime_error("unknown word " + word);
      }
    } catch (const std::exception& error) {
      throw std::runtime_error("line " + std::to_string(number) + ": " + error.what());
    }
  }
  return program;
}

torch::jit::Module build(const Program& program) {
  torch::jit::Module root("__torch__.Random");
  root.register_attribute("training", c10::BoolType::get(), false);
  std::map<std::string, torch::jit::Module> modules{{"", root}};
  for (const auto& [owner, lines] : program.sources) {
    if (owner.empty()) continue;
    torch::jit::Module inner("__torch__." + owner, root._ivalue()->compilation_unit());
    inner.register_attribute("training", c10::BoolType::get(), false);
    modules.emplace(owner, inner);
  }
  std::map<std::string, at::Tensor> earlier;
  for (const auto& a : program.attributes) {
    const auto [owner, name] = owner_and_name(a.tensor.name);
    auto& module = modules.at(owner);
    if (a.kind == "number") {
      module.register_attribute(name, c10::IntType::get(), a.number);
      continue;
    }
    const at::Tensor value = made(a.tensor, earlier);
    earlier[a.tensor.name] = value;
    if (a.kind == "parameter") module.register_parameter(name, value, false);
    else module.register_buffer(name, value);
  }
  const auto joined = [](const std::vector<std::string>& lines) {
    std::string text;
    for (const auto& line : lines) text += line + "\n";
    return text;
  };
  for (const auto& [owner, lines] : program.sources) {
    if (owner.empty()) continue;
    modules.at(owner).define(joined(lines), std::make_shared<Names>());
    root.register_module(owner, modules.at(owner));
  }
  root.define(joined(program.sources.at("")), std::make_shared<Names>());
  return root;
}

std::vector<c10::IValue> inputs_of(const std::vector<TensorSpec>& call) {
  std::map<std::string, at::Tensor> earlier;
  std::vector<c10::IValue> inputs;
  for (const auto& spec : call) {
    const at::Tensor value = made(spec, earlier);
    earlier[spec.name] = value;
    inputs.emplace_back(value);
  }
  return inputs;
}

}  // namespace fuzz
