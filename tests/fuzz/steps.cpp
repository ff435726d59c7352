#include "tests/fuzz/generator.h"

namespace fuzz {

namespace {

// V stands for the variable.
const std::vector<std::string> kActivations{
    "torch.relu(V)", "torch.relu(V)", "torch.relu_(V)", "torch.relu6(V)", "torch.hardtanh(V)", "torch.hardtanh(V, 0, 6)", "torch.hardtanh(V, 0., 6.)",
    "torch.hardtanh_(V, -0.5, 0.5)", "torch.hardsigmoid(V)", "torch.hardsigmoid_(V)", "torch.hardswish(V)", "torch.hardswish_(V)", "torch.silu(V)",
    "torch.silu_(V)", "torch.mish(V)", "torch.mish_(V)", "torch.gelu(V)", "torch.gelu(V, approximate=\"tanh\")", "torch.elu(V)", "torch.elu(V, 0.7)",
    "torch.elu_(V, 1.5, 2, 0.5)", "torch.selu(V)", "torch.celu(V, 0.5)", "torch.leaky_relu(V)", "torch.leaky_relu(V, 0.2)", "torch.leaky_relu_(V, 1)",
    "torch.softplus(V)", "torch.softplus(V, 2, 10)", "torch.sigmoid(V)", "torch.sigmoid_(V)", "torch.tanh(V)", "torch.tanh_(V)", "torch.clamp(V, -0.3, 0.4)",
    "torch.clamp(V, 0, 6)", "torch.clamp(V, min=0)", "torch.clamp(V, max=0.5)", "torch.clamp_(V, 0., 1.)", "torch.clamp_min(V, 0)", "torch.clamp_max(V, 1.5)",
    "torch.clip(V, 1, -1)", "torch.clamp_min_(V, 0.1)", "torch.square(V)", "torch.abs(V)", "torch.neg(V)", "torch.exp(V)", "torch.rrelu(V)", "torch.threshold(V, 0, 0)"};

const std::vector<std::string> kComposites{
    "V * torch.sigmoid(V)", "torch.sigmoid(V) * V", "V.mul_(torch.sigmoid(V))", "V * torch.relu6(V + 3) / 6", "V * (torch.clamp(V + 3, 0, 6) / 6)",
    "torch.relu6(V + 3) / 6", "V * torch.hardsigmoid(V)", "V * torch.tanh(torch.softplus(V))", "V * 0.5 * (1.0 + torch.erf(V / 1.4142135623730951))",
    "0.5 * V * (1 + torch.tanh(0.7978845608028654 * (V + 0.044715 * torch.pow(V, 3.0))))", "V * torch.sigmoid(1.702 * V)", "torch.maximum(V, V * 0.1)",
    "V * torch.sigmoid(torch.neg(V))", "V * torch.hardtanh(V + 3, 0, 6) / 6", "torch.clamp(V / 6 + 0.5, 0, 1)", "torch.clamp(V * 0.16666666666666666 + 0.5, 0, 1)"};

std::string replaced(std::string text, const std::string& name) {
  for (std::size_t at = 0; (at = text.find('V', at)) != std::string::npos; at += name.size()) text.replace(at, 1, name);
  return text;
}

}  // namespace

void Generator::activation() {
  const Variable v = any();
  if (random_.chance(5)) {
    const std::int64_t channels = v.rank() >= 2 ? v.sizes()[1] : 1;
    return assign("torch.prelu(" + v.name + ", " + weight({random_.chance(30) ? 1 : channels}, "small") + ")", v.shapes);
  }
  assign(replaced(random_.pick(kActivations), v.name), v.shapes);
}

void Generator::composite() {
  const Variable v = current();
  assign(replaced(random_.pick(kComposites), v.name), v.shapes);
}

// The other operand of a binary operator on v, and whether it is a number.
std::string Generator::operand(const Variable& v, bool& scalar) {
  scalar = false;
  const auto roll = random_.below(100);
  if (roll < 18) {
    scalar = true;
    return random_.pick<std::string>({"1", "2", "0.5", "-1.5", "3.0", "0", "-2", "1e-3", "True"});
  }
  if (roll < 22) {
    scalar = true;
    if (random_.chance(50)) return v.name + ".dim()";
    Attribute a{"number", {}, 1 + random_.below(4)};
    const std::string name = "n" + std::to_string(counter_++);
    a.tensor.name = is_root() ? name : owner_ + "." + name;
    program_.attributes.push_back(a);
    return "self." + name;
  }
  if (roll < 42 && v.rank() >= 1) {  // along the channels, with and without the batch dimension
    const std::size_t channel = v.rank() == 1 ? 0 : random_.chance(85) ? 1 : v.rank() - 1;
    Sizes sizes(v.rank() - channel, 1);
    sizes[0] = v.sizes()[channel];
    if (random_.chance(40)) sizes.insert(sizes.begin(), 1);
    return weight(sizes, "positive");
  }
  if (roll < 54) {  // any broadcast, any dtype
    Sizes sizes;
    for (auto size : v.sizes()) sizes.push_back(random_.chance(50) ? 1 : size);
    const auto drop = random_.below(v.rank() + 1);
    if (random_.chance(50)) sizes.erase(sizes.begin(), sizes.begin() + drop);
    else if (random_.chance(6)) sizes.insert(sizes.begin(), 2);
    const std::string dtype = random_.chance(75) ? dtype_ : random_.pick<std::string>({"float32", "float64", "int64", "bfloat16", "bool"});
    const std::string t = tensor(random_.chance(50) ? "buffer" : "parameter", sizes, dtype == "int64" || dtype == "bool" ? "integers" : "positive", dtype);
    if (random_.chance(70)) return t;
    return random_.pick<std::string>({"torch.relu(" + t + ")", t + ".reshape(-1).reshape(" + t + ".shape)", t + ".view(-1).view_as(" + t + ")",
                                      t + ".transpose(0, -1).contiguous().transpose(0, -1)", t + ".unsqueeze(0).squeeze(0)", "torch.cat([" + t + ".unsqueeze(0)], 0).select(0, 0)",
                                      "(" + t + " + " + t + ")", "torch.chunk(" + t + ".unsqueeze(0), 1)[0].squeeze(0)"});
  }
  if (roll < 74 && is_root() && depth_ == 0) {
    auto shapes = v.shapes;
    if (random_.chance(20)) {
      for (auto& shape : shapes) {
        for (std::size_t d = 1; d < shape.size(); ++d) shape[d] = random_.chance(50) ? 1 : shape[d];
      }
    }
    return input(shapes);
  }
  std::vector<std::string> same;
  for (const auto& other : variables_) {
    if (other.shapes == v.shapes) same.push_back(other.name);
  }
  return random_.pick(same);
}

// The oracle's references round inputs and weights, not results: next to 0 a quotient would show the last bit of what it is divided by.
std::string Generator::divisor(const std::string& name) const {
  const bool computed = std::any_of(variables_.begin(), variables_.end(), [&](const Variable& v) { return v.name == name; });
  return computed && !(is_root() && name == "x0") ? "(" + name + ".abs() + 0.5)" : name;
}

void Generator::binary() {
  const Variable v = any();
  bool scalar = false;
  const std::string other = operand(v, scalar);
  const std::string op = random_.pick<std::string>({"+", "+", "+", "-", "*", "*", "/"});
  const std::string name = op == "+" ? "add" : op == "-" ? "sub" : op == "*" ? "mul" : "div";
  const std::string right = op == "/" ? divisor(other) : other, v_right = op == "/" ? divisor(v.name) : v.name;
  const std::string alpha = random_.pick<std::string>({"1", "2", "0.5", "-1", "1.0"});
  const std::string scaled = name == "add" || name == "sub" ? ", alpha=" + alpha : "";
  const auto roll = random_.below(100);
  std::string text;
  if (roll < 45) text = v.name + " " + op + " " + right;
  else if (roll < 62) text = other + " " + op + " " + v_right;
  else if (roll < 72) text = "torch." + name + "(" + v.name + ", " + right + scaled + ")";
  else if (roll < 76 && !scalar) text = "torch." + name + "(" + other + ", " + v_right + scaled + ")";
  else if (roll < 80) text = "torch.rsub(" + v.name + ", " + other + (random_.chance(50) ? ", alpha=" + alpha : "") + ")";
  else if (roll < 92 || scalar) text = v.name + "." + name + "_(" + right + ")";
  else if (roll < 96) text = other + "." + name + "_(" + v_right + ")";
  else text = random_.pick<std::string>({"torch.maximum(" + v.name + ", " + other + ")", "torch.addcmul(" + v.name + ", " + v.name + ", " + other + ")",
                                         "torch.where(" + v.name + " > 0, " + v.name + ", " + other + ")"});
  if (text.find("_(") != std::string::npos && other.rfind("self.", 0) == 0 && text.rfind("self.", 0) == 0 && is_root() && depth_ == 0) written_.push_back(other);
  assign(text, v.shapes);
}

void Generator::view() {
  const Variable v = current();
  const std::string n = v.name;
  auto shapes = v.shapes;
  const auto roll = random_.below(12);
  if (roll == 0 && v.rank() >= 2) {
    for (auto& shape : shapes) {
      if (shape.size() >= 2) std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
    }
    return assign(n + ".transpose(-1, -2)", shapes);
  }
  if (roll == 1 && v.rank() >= 3) {
    for (auto& shape : shapes) {
      std::int64_t rest = 1;
      for (std::size_t d = 1; d < shape.size(); ++d) rest *= shape[d];
      shape = {shape.empty() ? 1 : shape[0], rest};
    }
    return assign(random_.chance(50) ? "torch.flatten(" + n + ", 1)" : n + ".reshape(" + n + ".size(0), " + std::to_string(shapes[0][1]) + ")", shapes);
  }
  if (roll == 2 && v.rank() >= 2 && v.sizes()[1] >= 2) {
    for (auto& shape : shapes) {
      if (shape.size() >= 2) shape[1] = std::min<std::int64_t>(shape[1], 2);
    }
    return assign(random_.chance(50) ? n + "[:, 0:2]" : "torch.narrow(" + n + ", 1, 0, 2)", shapes);
  }
  if (roll == 3) {  // in evaluation it returns its input itself, which no schema says: later writes to that are seen or not
    if (variables_.size() > 1 && depth_ == 0) variables_.pop_back();
    return assign("torch.dropout(" + v.name + ", 0.5, " + (random_.chance(80) ? "False" : "self.training") + ")", shapes);
  }
  assign(random_.pick<std::string>({n + ".contiguous()", n + ".clone()", n + ".detach()", n + ".unsqueeze(0).squeeze(0)", n + ".view(" + n + ".shape)", n + ".reshape(" + n + ".shape)",
                                    n + ".expand(" + n + ".shape)", n + ".to(7)", n + ".to(" + n + ".dtype)", "torch.dropout_(" + n + ", 0.5, False)", "torch.alias(" + n + ")"}),
         shapes);
}

void Generator::write() {
  const auto roll = random_.below(8);
  const Variable v = random_.pick(variables_);
  if (roll == 0) return line("x0.mul_(2)");
  if (roll == 1) return line(v.name + ".add_(1)");
  if (roll == 2) return line(v.name + "[..., 0].fill_(0.5)");
  if (roll == 3) return line("torch.relu_(" + v.name + ")");
  if (roll == 4 && is_root()) {
    const std::string name = tensor("buffer", {1}, "normal");
    line(name + ".add_(1)");
    written_.push_back(name);
    return assign(v.name + " + " + name, v.shapes);
  }
  if (roll == 5 && is_root() && depth_ == 0) {
    const std::string name = tensor("buffer", {1}, "normal");
    line(name + " = " + v.name);
    written_.push_back(name);
    return;
  }
  if (!written_.empty() || program_.attributes.empty() || !is_root() || depth_ > 0) return line(v.name + ".mul_(0.5)");
  for (const auto& a : program_.attributes) {
    if (a.kind == "number" || a.tensor.name.find('.') != std::string::npos || a.tensor.dtype != dtype_ || !random_.chance(40)) continue;
    line("self." + a.tensor.name + ".add_(0.125)");
    written_.push_back("self." + a.tensor.name);
    return;
  }
}

// Keeps the sizes: others of torch, sizes that are computed, pieces that are put together again.
void Generator::other_operator() {
  const Variable v = current();
  const std::string& n = v.name;
  const std::string a = "p" + std::to_string(counter_), b = "q" + std::to_string(counter_);
  if (random_.chance(15)) {
    line(a + ", " + b + " = " + random_.pick<std::string>({"torch.chunk(" + n + ", 2, -1)", "torch.chunk(" + n + ", 2, 1)", n + ".split([1, " + n + ".size(0) - 1], 0)"}));
    return assign("torch.cat([" + b + ", " + a + "], -1).reshape(" + n + ".size())", v.shapes);
  }
  if (v.shapes[0].size() == 4 && random_.chance(20)) {
    line(a + ", " + b + ", h" + a + ", w" + a + " = " + n + ".size()");
    return assign(n + ".reshape(" + a + ", 2, " + b + " // 2, h" + a + ", w" + a + ").transpose(1, 2).contiguous().view(" + a + ", " + b + ", h" + a + ", w" + a + ")", v.shapes);
  }
  assign(random_.pick<std::string>({"torch.cat([" + n + "], 0)", "torch.softmax(" + n + ", -1)", "torch.roll(" + n + ", 1)", "torch.cumsum(" + n + ", 0)",
                                    "torch.layer_norm(" + n + ", [" + n + ".size(-1)])", "torch.nan_to_num(" + n + ", 0.0, 1e3, -1e3)",
                                    n + " - " + n + ".mean()", "torch.stack([" + n + ", " + n + "], 0).sum(0)",
                                    n + ".reshape(" + n + ".size(0), -1).reshape(" + n + ".size())", n + ".transpose(0, -1).contiguous().transpose(0, -1)",
                                    "torch.maximum(" + n + ", " + n + ".amin())"}),
         v.shapes);
}

}  // namespace fuzz
