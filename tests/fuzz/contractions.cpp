#include "tests/fuzz/generator.h"

namespace fuzz {

namespace {

std::string list(const Sizes& sizes) {
  std::string text = "[";
  for (std::size_t i = 0; i < sizes.size(); ++i) text += (i ? ", " : "") + std::to_string(sizes[i]);
  return text + "]";
}

struct Window {
  Sizes kernel, stride, padding, dilation, output_padding;
};

// Spatial sizes count from the right, so that a call without a batch dimension is covered too.
void apply(std::vector<Sizes>& shapes, const Window& w, std::int64_t channels, bool transposed, bool same) {
  const std::size_t n = w.kernel.size();
  for (auto& shape : shapes) {
    if (shape.size() < n + 1) continue;
    for (std::size_t d = 0; d < n; ++d) {
      auto& size = shape[shape.size() - n + d];
      const auto reach = w.dilation[d] * (w.kernel[d] - 1);
      if (same) continue;
      size = transposed ? (size - 1) * w.stride[d] - 2 * w.padding[d] + reach + w.output_padding[d] + 1 : (size + 2 * w.padding[d] - reach - 1) / w.stride[d] + 1;
      size = std::max<std::int64_t>(size, 0);
    }
    shape[shape.size() - n - 1] = channels;
  }
}

}  // namespace

// oneDNN, in torch, does not look at the width of an LSTM's input.
bool Generator::same_width() const {
  const auto& shapes = current().shapes;
  return std::all_of(shapes.begin(), shapes.end(), [&](const Sizes& sizes) { return sizes.back() == shapes[0].back(); });
}

void Generator::contraction() {
  const auto rank = current().rank();
  const bool image = rank >= 3 && rank <= 5;
  if (image && random_.chance(rank == 3 ? 60 : 85)) return convolution(random_.chance(20));
  if (rank == 3 && same_width() && random_.chance(20)) return recurrent();
  if (rank >= 1 && random_.chance(92)) return linear();
  product_of_activations();
}

void Generator::convolution(bool transposed) {
  const Variable v = current();
  const std::size_t n = static_cast<std::size_t>(v.rank()) - 2;
  const std::int64_t in = v.sizes()[1];
  std::int64_t groups = 1;
  if (random_.chance(25)) groups = random_.chance(50) ? in : (in % 2 == 0 ? 2 : 1);
  if (groups < 1) return;
  const std::int64_t out = groups * random_.pick({1, 2, 3, 4});
  Window w;
  const bool same = !transposed && random_.chance(8);
  for (std::size_t d = 0; d < n; ++d) {
    const std::int64_t size = v.sizes()[2 + d];
    w.padding.push_back(random_.chance(50) ? 0 : 1);
    w.kernel.push_back(1 + random_.below(std::max<std::int64_t>(1, std::min<std::int64_t>(3, size + 2 * w.padding[d]))));
    w.dilation.push_back(random_.chance(85) || size < 6 ? 1 : 2);
    const bool doubles_each_round = transposed && depth_ > 0;  // of a loop: minutes for the original
    w.stride.push_back(random_.chance(75) || same || doubles_each_round ? 1 : 2);
    w.output_padding.push_back(transposed && w.stride[d] == 2 && random_.chance(50) ? 1 : 0);
  }
  const auto weight_sizes = [&] {
    Sizes sizes = transposed ? Sizes{in, out / groups} : Sizes{out, in / groups};
    sizes.insert(sizes.end(), w.kernel.begin(), w.kernel.end());
    return sizes;
  }();
  const std::string W = weight(weight_sizes, "small"), B = random_.chance(70) ? weight({out}, "normal") : "None";
  const std::string dims = std::to_string(n) + "d", g = std::to_string(groups), args = v.name + ", " + W + ", " + B + ", ";
  const bool uniform = random_.chance(10) && n == 2 && w.stride[0] == w.stride[1] && w.padding[0] == w.padding[1];
  const std::string stride = uniform ? list({w.stride[0]}) : list(w.stride), padding = uniform ? list({w.padding[0]}) : list(w.padding);
  const auto roll = random_.below(100);
  std::string text;
  if (same) text = roll < 50 ? "torch.conv" + dims + "(" + args + stride + ", \"same\", " + list(w.dilation) + ", " + g + ")"
                             : "torch._convolution_mode(" + args + stride + ", \"same\", " + list(w.dilation) + ", " + g + ")";
  else if (roll < 70)
    text = transposed ? "torch.conv_transpose" + dims + "(" + args + stride + ", " + padding + ", " + list(w.output_padding) + ", " + g + ", " + list(w.dilation) + ")"
                      : "torch.conv" + dims + "(" + args + stride + ", " + padding + ", " + list(w.dilation) + ", " + g + ")";
  else
    text = std::string(roll < 80 ? "torch.convolution(" : "torch._convolution(") + args + list(w.stride) + ", " + list(w.padding) + ", " + list(w.dilation) + ", " +
           (transposed ? "True" : "False") + ", " + list(w.output_padding) + ", " + g + (roll < 80 ? ")" : ", False, False, True, True)");
  auto shapes = v.shapes;
  apply(shapes, w, out, transposed, same);
  assign(text, std::move(shapes));
}

void Generator::linear() {
  const Variable v = any();
  if (v.rank() < 1) return;
  const std::int64_t in = v.sizes().back(), out = random_.pick({1, 2, 3, 4, 6, 8, 16});
  auto shapes = v.shapes;
  for (auto& shape : shapes) {
    if (!shape.empty()) shape.back() = out;
  }
  const auto roll = random_.below(100);
  const auto bias = [&] { return weight({out}, "normal"); };
  std::string text;
  if (roll < 55) text = "torch.linear(" + v.name + ", " + weight({out, in}, "small") + ", " + (random_.chance(70) ? bias() : "None") + ")";
  else if (roll < 68) text = "torch.matmul(" + v.name + ", " + weight({out, in}, "small") + (random_.chance(50) ? ".t())" : ".transpose(0, 1))");
  else if (roll < 78 || v.rank() != 2) text = "torch.matmul(" + v.name + ", " + weight({in, out}, "small") + ")";
  else if (roll < 86) text = "torch.addmm(" + bias() + ", " + v.name + ", " + weight({in, out}, "small") + ")";
  else if (roll < 90) text = "torch.addmm(" + bias() + ", " + v.name + ", " + weight({out, in}, "small") + ".t(), beta=" + random_.pick<std::string>({"1", "0", "0.5", "2"}) +
                             ", alpha=" + random_.pick<std::string>({"1", "1.0", "2", "0.5"}) + ")";
  else if (roll < 96) text = "torch.mm(" + v.name + ", " + weight({in, out}, "small") + ")";
  else text = v.name + " @ " + weight({in, out}, "small");
  if (random_.chance(12) && roll >= 55 && roll < 78) {
    const std::string b = bias();
    text = random_.chance(50) ? text + " + " + b : b + " + " + text;
  }
  assign(text, std::move(shapes));
}

void Generator::product_of_activations() {
  const Variable v = current();
  if (v.rank() < 2 || v.rank() > 4) return;
  auto shapes = v.shapes;
  for (auto& shape : shapes) {
    if (shape.size() >= 2) shape.back() = shape[shape.size() - 2];
  }
  const std::string op = v.rank() == 3 && random_.chance(60) ? "bmm" : "matmul";
  assign("torch." + op + "(" + v.name + ", " + v.name + ".transpose(-1, -2))", std::move(shapes));
}

// An LSTM or GRU over the first or second dimension; its last state is read in some.
void Generator::recurrent(const Cell& cell) {
  const Variable v = current();
  const bool lstm = cell.step.empty() ? random_.chance(50) : cell.step == "lstm", biases = random_.chance(70), both = random_.chance(30), batch_first = random_.chance(50);
  const std::int64_t in = v.sizes().back(), hidden = random_.pick({1, 3, 8, 17}), layers = random_.pick({1, 1, 2}), directions = both ? 2 : 1;
  const std::int64_t rows = (lstm ? 4 : 3) * hidden;
  const auto w = [&](const Sizes& sizes, const std::string& fill) {
    return cell.code == "FUS401" ? tensor("parameter", sizes, fill, dtype_ == "float32" ? "float64" : dtype_) : weight(sizes, fill);
  };
  std::string weights;
  for (std::int64_t i = 0; i < layers * directions; ++i) {
    weights += (i ? ", " : "") + w({rows, i < directions ? in : directions * hidden}, "small") + ", " + w({rows, hidden}, "small");
    if (biases) weights += ", " + w({rows}, "normal") + ", " + w({rows}, "normal");
  }
  const auto flag = [](bool value) { return std::string(value ? "True" : "False"); };
  const std::string id = std::to_string(counter_++), h = "h" + id, y = "r" + id;
  if (!certain_) {  // torch's LSTM reads beyond an input of another width
    line("if " + v.name + ".size(-1) != " + std::to_string(in) + ":");
    line("    raise Exception(\"expected another width\")");
  }
  line(h + " = " + v.name + ".new_" + random_.pick<std::string>({"zeros", "ones"}) + "([" + std::to_string(layers * directions) + ", " + v.name + ".size(" +
       (batch_first ? "0" : "1") + "), " + std::to_string(hidden) + "])");
  line((lstm ? y + ", " + h + "n, " + h + "c = torch.lstm(" : y + ", " + h + "n = torch.gru(") + v.name + ", " + (lstm ? "[" + h + ", " + h + "]" : h) + ", [" + weights + "], " +
       flag(biases) + ", " + std::to_string(layers) + ", 0.0, " + flag(cell.code == "FUS502" || random_.chance(4)) + ", " + flag(both) + ", " + flag(batch_first) + ")");
  auto shapes = v.shapes;
  for (auto& shape : shapes)
    if (!shape.empty()) shape.back() = directions * hidden;
  assign(random_.chance(70) ? y : y + " + " + h + "n.sum()", std::move(shapes));
}

void Generator::batch_norm() {
  const Variable v = current();
  if (v.rank() < 2) return;
  const std::int64_t channels = v.sizes()[1];
  const bool affine = random_.chance(85), tracked = random_.chance(95);
  const std::string g = affine ? weight({channels}, random_.chance(90) ? "normal" : "zero") : "None", h = affine && random_.chance(90) ? weight({channels}, "normal") : "None";
  const std::string m = tracked ? tensor("buffer", {channels}, "normal") : "None", s = tracked ? tensor("buffer", {channels}, "positive") : "None";
  if (random_.chance(15)) {
    line("if " + v.name + ".dim() != " + std::to_string(v.rank()) + ":");
    line("    raise Exception(\"expected other dimensions\")");
  }
  const std::string training = !tracked ? "True" : random_.chance(88) ? "False" : is_root() && depth_ == 0 && random_.chance(60) ? "self.training" : "True";
  if (tracked && training == "True" && is_root() && depth_ == 0) written_.push_back(m), written_.push_back(s);
  assign("torch.batch_norm(" + v.name + ", " + g + ", " + h + ", " + m + ", " + s + ", " + training + ", 0.1, " +
             random_.pick<std::string>({"1e-5", "0.001", "0.1"}) + ", False)",
         v.shapes);
  // Dead, it would raise in the original for other shapes (its mode is not known there), and be removed where the mode is known; torch's
  // executor also drops a dead one that trains, once it has simplified anything else in the graph.
  if (tracked && training != "False" && is_root() && depth_ == 0) returned_.push_back(current().name);
}

}  // namespace fuzz
