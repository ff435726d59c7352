#pragma once

// What one instruction set offers to the loop nests. Plain data only: the files that implement it are compiled with flags of their own, so
// they may not share an inline function with the rest of the library (a linker would keep either copy).

#include <cstdint>

#include "fusible/export.h"

namespace fusible::kernels {

enum class StepKind : std::int32_t {
  clamp,
  leaky_relu,
  sigmoid,
  tanh,
  silu,
  hardswish,
  hardsigmoid,
  gelu_erf,
  gelu_tanh,
  elu,
  mish,
  softplus,
  prelu,
  add,
  sub,
  rsub,
  mul,
  div,
  affine,  // y * operand + second
};

// One step of a post-op chain. The operand of (image, row, channel) lies at image * image_stride + row * row_stride + channel, or, when
// `column` is 0, at the same place for every channel. Without operand, the number `a` takes its place.
struct Step {
  StepKind kind;
  float a = 0, b = 0, c = 0;  // clamp: low, high; elu: alpha, scale, input_scale; softplus: beta, threshold
  const float* operand = nullptr;
  const float* second = nullptr;
  std::int64_t image_stride = 0, row_stride = 0, column = 0;
};

// c[m][n] = chain(bias[n] + sum over taps and depth of rows[tap][m][depth] * weights[tap][depth][n]): one tile of a contraction.
// A pointer per row and tap makes one micro-kernel of convolution (any stride, dilation, padding: a row of zeros) and of matrix product.
struct Tile {
  const float* const* rows;  // [taps][tap_stride], the first m of each are read
  std::int64_t tap_stride, taps, depth;
  std::int64_t offset;         // added to each pointer: the first of depth
  bool resume, finish;         // of a sum taken in parts: c holds the bias and the parts before; the last one runs the chain
  const void* weights;         // [taps * depth][weight_stride]; of bfloat16, whose depth is even, [taps * depth / 2][weight_stride][2]
  std::int64_t weight_stride;  // in weights of one step of depth
  const float* bias;           // [vectors * lanes], zero padded
  const void* prefetch;        // what comes next: fetched towards L2, prefetch_stride bytes per step of depth
  std::int64_t prefetch_stride;
  bool bfloat16 = false;       // the weights are
  bool ahead = false;          // the weights come from far, for few rows: they are fetched well before their use, and nothing else is
  float* c;
  std::int64_t c_stride;
  std::int32_t m, vectors, columns;  // rows; vectors of lanes; columns of c, of which the last vector may be cut, and no other
  std::int32_t steps;
  const Step* chain;
  std::int64_t image, row, channel;  // of c[0][0], for the chain's operands
};

// c[m][channel] = chain(bias + sum over taps of rows[tap][m][channel] * weights[tap][channel]), all channels.
struct DepthwiseTile {
  const float* const* rows;
  std::int64_t tap_stride, taps;
  const float* weights;        // [taps][weight_stride]
  std::int64_t weight_stride;  // channels rounded up to lanes
  const float* bias;           // [weight_stride]
  float* c;
  std::int64_t c_stride, channels;
  std::int32_t m, steps;
  const Step* chain;
  std::int64_t image, row;
};

// The same for results that are neighbours in a line; some of the channels. Kernel rows above and below the image are left out, and so are the
// taps to its left and right: where there are such, it is one result.
struct DepthwiseLine {
  static constexpr int kMostLines = 7;
  const float* lines[kMostLines];  // of each kernel row: the pixel under the first tap of the first result, at the first channel
  std::int64_t pixel_stride;
  std::int64_t kernel_height, kernel_width, stride, tap_begin, tap_end;
  const float* weights;  // [kernel_height * kernel_width][weight_stride], at the first channel
  std::int64_t weight_stride;
  const float* bias;
  float* c;
  std::int64_t c_stride, channels, count;  // results
  const Step* chain;
  std::int32_t steps;
  std::int64_t image, row, channel;  // of c[0][0], for the chain's operands
};

// How the lanes of a vector of output channels, which may belong to several groups, get one input channel each.
enum class Spread : std::int32_t {
  one_group,   // all lanes belong to one
  two_groups,  // the first `lanes` to one, the others to the next
  within,      // each lane reads one of the lanes of its own group: groups of a power of two of channels, in as out
};

// Neighbours in a line of a convolution in groups, three taps wide, one vector of channels: c[m][channel] = chain(bias + sum over lines, depth and
// taps of pixels[line][m * stride + tap][offset + depth, of the lane's group] * weights[line][depth][tap][lane]). Kernel rows outside of the
// image are left out, pixels beside it are zeros.
struct GroupedLine {
  const float* const* pixels;  // [lines][line_stride]
  std::int64_t line_stride, lines, stride;
  std::int64_t depth, offset;  // input channels of a group; the first one of the first lane's group
  const float* weights;
  const float* bias;
  Spread spread;
  std::int32_t lanes;
  float* c;
  std::int64_t c_stride, count;  // results
  std::int32_t columns, steps;   // the last vector may be cut
  const Step* chain;
  std::int64_t image, row, channel;  // of c[0][0], for the chain's operands
};

// c[channel] = max, or scale * sum, over taps of rows[tap][channel].
struct PoolTile {
  const float* const* rows;
  std::int64_t taps, channels;
  float* c;
  float scale;
  bool max;
};

// v[i * 4 + j][tile][channel] = (Bt d B)[i][j] of the 4 x 4 pixels d under the 2 x 2 results of each tile, zeros outside the image.
struct WinogradInput {
  const float* x;  // of the image
  std::int64_t pixel_stride, line_stride, height, width, top, left;  // padding above and to the left
  const float* zeros;                                   // [channels]
  std::int64_t first_line, lines, columns;              // tiles: lines of `columns`
  std::int64_t channels;                                // a multiple of lanes
  float* v;
  std::int64_t v_stride;  // from one of the 16 to the next
};

// y = chain(bias + At m A), one panel.
struct WinogradOutput {
  const float* m;          // [16][tile][panel]
  std::int64_t m_stride;   // from one of the 16 to the next
  std::int64_t panel;      // channels, a multiple of lanes
  const float* bias;       // [panel]
  float* y;                // of the image, at the panel's first channel
  std::int64_t y_stride, line_stride, height, width;
  std::int64_t first_line, lines, columns;
  const Step* chain;
  std::int32_t steps;
  std::int64_t image, row, channel;  // of y, for the chain's operands
  std::int64_t line_rows;            // from a line's first row to the next one's
};

// Some rows of a recurrent cell, for the hidden units of one vector.
struct Cell {
  const float* from_hidden;    // [rows][gates][lanes]: what the gates get from the hidden state
  const float* from_input;     // [rows][from_input_stride], of which [gates][lanes] are read
  const float* const* before;  // [rows]: the hidden state before, of which units [first, first + units) are read
  float* state;                // an LSTM's c, read and written; at the first unit
  float* hidden;               // written; at the first unit
  std::int64_t from_input_stride, state_stride, hidden_stride, rows, first, units;
};

struct Isa {
  const char* name;
  std::int32_t lanes;
  std::int32_t vectors;                             // widest tile, in vectors: width of a packed panel
  std::int32_t (*most_rows)(std::int32_t vectors);  // rows of the best tile of that width
  std::int32_t depthwise_rows;
  void (*tile)(const Tile&);
  void (*depthwise)(const DepthwiseTile&);
  bool (*has_line)(std::int64_t kernel_width, std::int64_t stride);  // whether depthwise_line takes them
  void (*depthwise_line)(const DepthwiseLine&);
  void (*grouped_line)(const GroupedLine&);
  void (*pool)(const PoolTile&);
  // The chain on rows [row, row + m) of dense memory, `channels` wide, in place.
  void (*chain)(float* c, std::int64_t c_stride, std::int64_t m, std::int64_t channels, const Step* chain, std::int32_t steps,
                std::int64_t image, std::int64_t row);
  // to[c * to_stride + r] = from[r * from_stride + c]
  void (*transpose)(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns, float* to,
                    std::int64_t to_stride);
  // Rows of `width`: (x + added - mean) / sqrt(var + eps) * weight + bias; `sum`, where given, receives x + added.
  void (*layer_norm)(const float* x, const float* added, float* sum, std::int64_t rows, std::int64_t width, const float* weight,
                     const float* bias, double eps, float* y);
  // False: a number was not finite, and its neighbours are not what a direct sum gives.
  bool (*winograd_input)(const WinogradInput&);
  bool (*winograd_output)(const WinogradOutput&);
  // x = e^(z - greatest z) where z = x * scale + mask (null: none), in place; gives 1 / their sum. Where no z is above -inf all is 0.
  float (*softmax)(float* x, std::int64_t width, float scale, const float* mask);
  void (*lstm_cell)(const Cell&);
  void (*gru_cell)(const Cell&);
};

// The best one that this machine has, and that ATEN_CPU_CAPABILITY allows. Chosen once.
FUSIBLE_API const Isa& isa();

extern FUSIBLE_API const Isa kAvx512, kAvx2, kPlain;

}  // namespace fusible::kernels
