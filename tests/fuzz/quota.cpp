#include "tests/fuzz/quota.h"

#include <map>

#include "tests/fuzz/generator.h"

namespace fuzz {

namespace {

// S stands for a number that is known when the module runs.
struct Activation {
  std::string text, computed;
};

const std::map<std::string, Activation>& activations() {
  static const std::map<std::string, Activation> all{
      {"clamp", {"torch.clamp(V, -0.3, 0.4)", "torch.clamp(V, -0.1 * S, 0.4)"}},
      {"elu", {"torch.elu(V, 0.7)", "torch.elu(V, 0.5 + 0.1 * S)"}},
      {"gelu", {"torch.gelu(V)", ""}},
      {"gelu_tanh", {"torch.gelu(V, approximate=\"tanh\")", ""}},
      {"hardsigmoid", {"torch.hardsigmoid(V)", ""}},
      {"hardswish", {"torch.hardswish(V)", ""}},
      {"hardtanh", {"torch.hardtanh(V, -0.5, 0.5)", "torch.hardtanh(V, -0.5, 0.5 + S)"}},
      {"leaky_relu", {"torch.leaky_relu(V, 0.2)", "torch.leaky_relu(V, 0.1 * S)"}},
      {"mish", {"torch.mish(V)", ""}},
      {"prelu", {"torch.prelu(V, W)", ""}},
      {"relu", {"torch.relu(V)", ""}},
      {"relu6", {"torch.relu6(V)", ""}},
      {"sigmoid", {"torch.sigmoid(V)", ""}},
      {"silu", {"torch.silu(V)", ""}},
      {"softplus", {"torch.softplus(V, 2, 10)", "torch.softplus(V, 1.0 + S, 10)"}},
      {"tanh", {"torch.tanh(V)", ""}}};
  return all;
}

std::string replaced(std::string text, char letter, const std::string& with) {
  for (std::size_t at = 0; (at = text.find(letter, at)) != std::string::npos; at += with.size()) text.replace(at, 1, with);
  return text;
}

bool is_binary(const std::string& step) { return step == "add" || step == "sub" || step == "mul" || step == "div"; }
bool is_recurrent(const std::string& step) { return step == "lstm" || step == "gru"; }
bool is_contraction(const std::string& step) { return step == "conv" || step == "conv_transpose" || step == "linear" || step == "addmm" || step == "bmm" || is_recurrent(step); }

}  // namespace

// By rules/: what stands between (102, 204) or in another block (103) is spoken of where an activation or a batch_norm follows; a sum may be
// another sequence's. gelu_erf is several operators, each of which is left under its own name.
const std::vector<Cell>& cells() {
  static const std::vector<Cell> all = [] {
    std::vector<Cell> list;
    const auto add = [&](const std::string& step, std::initializer_list<const char*> codes) {
      for (const char* code : codes) list.push_back({step, code});
    };
    for (const auto& [step, spelling] : activations()) {
      add(step, {"FUS102", "FUS103", "FUS201", "FUS202", "FUS203", "FUS204"});
      if (!spelling.computed.empty()) add(step, {"FUS503"});
    }
    add("prelu", {"FUS306"});
    for (const char* step : {"add", "sub", "mul", "div"}) add(step, {"FUS201", "FUS202", "FUS203", "FUS205", "FUS401", "FUS403", "FUS503"});
    for (const char* step : {"add", "sub"}) add(step, {"FUS501"});
    add("batch_norm", {"FUS101", "FUS102", "FUS103", "FUS201", "FUS202", "FUS203", "FUS204", "FUS301", "FUS302", "FUS306", "FUS401", "FUS402", "FUS502", "FUS503"});
    for (const char* step : {"conv", "conv_transpose"}) add(step, {"FUS303", "FUS304", "FUS401", "FUS502", "FUS503"});
    add("linear", {"FUS303", "FUS304", "FUS401"});
    add("addmm", {"FUS303", "FUS501"});
    add("bmm", {"FUS303"});
    for (const char* step : {"lstm", "gru"}) add(step, {"FUS401", "FUS502"});
    return list;
  }();
  return all;
}

// A contraction that is left by the cell's code, or one that is fused with a step behind it that is.
void Generator::steered() {
  const Cell& cell = random_.pick(cells());
  if (is_contraction(cell.step)) return left_contraction(cell);
  contraction();
  if (cell.step != "batch_norm" && random_.chance(25)) batch_norm();
  left_step(cell);
}

std::string Generator::step_text(const Cell& cell, const Variable& v, const std::string& value) {
  const std::string& step = cell.step;
  const bool computed = cell.code == "FUS503";
  if (step == "batch_norm") {
    const std::int64_t channels = v.rank() > 1 ? v.sizes()[1] : 1;
    const Sizes sizes{cell.code == "FUS402" ? channels + 1 : channels};
    const bool tracked = cell.code != "FUS302";
    const std::string dtype = cell.code == "FUS401" ? (dtype_ == "float64" ? "float32" : "float64") : "";
    const std::string g = tensor("parameter", sizes, "normal"), h = tensor("parameter", sizes, "normal");
    std::string m = "None", s = "None";
    if (tracked) {
      m = tensor("buffer", sizes, "normal", dtype);
      s = tensor("buffer", sizes, cell.code == "FUS502" ? "zero" : "positive", dtype);
    }
    const bool trains = cell.code == "FUS301" || !tracked;
    if (trains && tracked) written_.push_back(m), written_.push_back(s);
    return "torch.batch_norm(" + value + ", " + (cell.code == "FUS306" ? "(" + g + " * 1.5)" : g) + ", " + h + ", " + m + ", " + s + ", " + (trains ? "True" : "False") + ", 0.1, " +
           (computed ? "1e-3 * (1 + x0.size(0))" : cell.code == "FUS502" ? "0.0" : "1e-5") + ", False)";
  }
  if (!is_binary(step)) {
    const Activation& spelling = activations().at(step);
    std::string text = replaced(computed ? spelling.computed : spelling.text, 'V', value);
    if (step == "prelu") {
      const std::string w = tensor("parameter", {1}, "small");
      text = replaced(text, 'W', cell.code == "FUS306" ? "(" + w + " * 1.5)" : w);
    }
    return replaced(text, 'S', "x0.size(0)");
  }
  const std::string sign = step == "add" ? " + " : step == "sub" ? " - " : step == "mul" ? " * " : " / ";
  if (computed) return value + sign + "(0.5 + x0.size(0))";
  Sizes along(static_cast<std::size_t>(std::max<std::int64_t>(1, v.rank() - 1)), 1);
  if (v.rank() > 1) along[0] = v.sizes()[1];
  if (cell.code == "FUS401" && dtype_ != "float64") return value + sign + tensor("buffer", along, "positive", "float64");
  if (cell.code == "FUS403") {
    Sizes enlarging(static_cast<std::size_t>(v.rank()), 1);
    enlarging.insert(enlarging.begin(), 2);
    return "(" + value + sign + tensor("buffer", enlarging, "positive") + ").sum(0)";
  }
  const std::string other = input(v.shapes);
  if (cell.code == "FUS205") return other + "." + step + "_(" + value + ")";
  if (cell.code == "FUS501") return "torch." + step + "(" + value + ", " + other + ", alpha=2)";
  return value + sign + other;
}

void Generator::left_step(const Cell& cell) {
  const Variable v = current();
  const std::string between = "y" + std::to_string(counter_++);
  std::string value = v.name;
  if (cell.step == "div" && cell.code == "FUS205") {  // what is divided by is kept from 0, whose sign and last bits are nobody's promise
    assign("torch.hardtanh(" + v.name + ", 0.5, 2)", v.shapes);
    value = current().name;
  }
  if (cell.code == "FUS101") value = "torch.relu(" + v.name + ")";
  if (cell.code == "FUS102") value = random_.pick<std::string>({"torch.cumsum(V, 0)", "torch.roll(V, 1)", "torch.softmax(V, -1)"});
  if (cell.code == "FUS204") value = random_.pick<std::string>({"V.reshape(V.shape)", "V.view(V.shape)", "V.expand(V.shape)"});
  if (cell.code == "FUS102" || cell.code == "FUS204") value = replaced(value, 'V', v.name);
  if (cell.code == "FUS203") {
    if (random_.chance(50)) {
      line("x0.mul_(0.5)");
    } else {
      const std::string seen = tensor("buffer", {1}, "normal");
      line(seen + ".add_(1)");
      written_.push_back(seen);
    }
  }
  if (cell.code == "FUS103") {
    line(between + " = " + v.name);
    line("if x0.size(0) > 1:");
    const std::string text = step_text(cell, v, value);
    line("    " + between + " = " + text);
    variables_.push_back({between, v.shapes});
    return;
  }
  assign(step_text(cell, v, value), v.shapes);
  if (cell.code == "FUS301" || cell.code == "FUS302") returned_.push_back(current().name);
  if (cell.code == "FUS202") returned_.push_back(v.name);
  if (cell.code == "FUS201") assign("torch.maximum(" + current().name + ", torch.cumsum(" + v.name + ", 0))", v.shapes);
}

void Generator::left_contraction(const Cell& cell) {
  const Variable v = current();
  const bool transposed = cell.step == "conv_transpose", linear = cell.step == "linear" || cell.step == "addmm" || cell.step == "bmm";
  if (is_recurrent(cell.step)) return v.rank() == 3 && same_width() ? recurrent(cell) : contraction();
  if (linear ? v.rank() < 1 : v.rank() < 3 || v.rank() > 5) return contraction();
  auto shapes = v.shapes;
  if (cell.step == "bmm") {
    if (v.rank() != 3) return contraction();
    for (auto& shape : shapes)
      if (shape.size() == 3) shape[2] = shape[1];
    return assign("torch.relu(torch.bmm(" + v.name + ", " + v.name + ".transpose(-1, -2)))", std::move(shapes));
  }
  const std::int64_t in = linear ? v.sizes().back() : v.sizes()[1], out = 4;
  Sizes sizes = transposed || cell.step == "addmm" ? Sizes{in, out} : Sizes{out, in};
  if (!linear) sizes.insert(sizes.end(), static_cast<std::size_t>(v.rank() - 2), 1);
  std::string w = tensor("parameter", sizes, "small");
  const std::string b = tensor("parameter", {out}, "normal", cell.code == "FUS401" ? (dtype_ == "float64" ? "float32" : "float64") : "");
  if (cell.code == "FUS304") {
    line(w + ".mul_(1.25)");
    if (is_root() && depth_ == 0) written_.push_back(w);
  }
  if (cell.code == "FUS303") w = "(" + w + " * 1.5)";
  for (auto& shape : shapes) {
    const std::size_t from_right = linear ? 1 : static_cast<std::size_t>(v.rank() - 1);
    if (shape.size() >= from_right) shape[shape.size() - from_right] = out;
  }
  std::string text;
  if (cell.step == "addmm") {
    if (v.rank() != 2) return contraction();
    text = "torch.addmm(" + b + ", " + v.name + ", " + w + ", beta=0.5)";  // with a computed matrix too: beta=1 would be a linear's
  } else if (linear) {
    text = "torch.linear(" + v.name + ", " + w + ", " + b + ")";
  } else {
    const std::string dims = std::to_string(v.rank() - 2) + "d", stride = cell.code == "FUS503" ? "[1 + 0 * x0.size(0)]" : "[1]", padding = cell.code == "FUS502" ? "[-1]" : "[0]";
    text = "torch.conv" + std::string(transposed ? "_transpose" : "") + dims + "(" + v.name + ", " + w + ", " + b + ", " + stride + ", " + padding + ")";
  }
  assign("torch.relu(" + text + ")", std::move(shapes));
}

}  // namespace fuzz
