#pragma once
// Winograd's minimal filtering F(2x2, 3x3): Y = At [(G g Gt) . (Bt d B)] A, 16 products for 4 results instead of 36.
// A. Lavin, S. Gray, Fast Algorithms for Convolutional Neural Networks, 2015, section 4.1. Bt and At hold 0, 1 and -1 only, so the rounding stays
// within a small factor of the direct sum's. A sum of inputs mixes a NaN or an infinity into neighbours that do not read it: both halves tell
// whether every number was finite.

#include "ops/kernels/simd/tile.h"

namespace fusible::kernels {
namespace {

inline bool all_zero(Vector v) {
  for (int i = 0; i < kLanes; ++i)
    if (!(v[i] == 0.0f)) return false;
  return true;
}

// Bt d B of every tile of the lines, all channels.
bool winograd_input(const WinogradInput& t) {
  Vector check{};
  const Vector zero{};
  for (std::int64_t line = 0; line < t.lines; ++line)
    for (std::int64_t column = 0; column < t.columns; ++column) {
      const float* pixel[4][4];
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
          const std::int64_t h = 2 * (t.first_line + line) + i - t.top, w = 2 * column + j - t.left;
          const bool inside = h >= 0 && h < t.height && w >= 0 && w < t.width;
          pixel[i][j] = inside ? t.x + h * t.line_stride + w * t.pixel_stride : t.zeros;
        }
      float* const v = t.v + (line * t.columns + column) * t.channels;
      for (std::int64_t c = 0; c < t.channels; c += kLanes) {
        Vector d[4][4];
        FUSIBLE_UNROLL for (int j = 0; j < 4; ++j) {
          const Vector x0 = load(pixel[0][j] + c), x1 = load(pixel[1][j] + c), x2 = load(pixel[2][j] + c), x3 = load(pixel[3][j] + c);
          d[0][j] = x0 - x2;
          d[1][j] = x1 + x2;
          d[2][j] = x2 - x1;
          d[3][j] = x1 - x3;
        }
        FUSIBLE_UNROLL for (int i = 0; i < 4; ++i) {
          const Vector row[4] = {d[i][0] - d[i][2], d[i][1] + d[i][2], d[i][2] - d[i][1], d[i][1] - d[i][3]};
          FUSIBLE_UNROLL for (int j = 0; j < 4; ++j) {
            check += row[j] * zero;
            store(v + (i * 4 + j) * t.v_stride + c, row[j]);
          }
        }
      }
    }
  return all_zero(check);
}

// At m A + bias and the chain, one panel of every tile of the lines.
bool winograd_output(const WinogradOutput& t) {
  Vector check{};
  const Vector zero{};
  for (std::int64_t line = 0; line < t.lines; ++line) {
    const std::int64_t h = 2 * (t.first_line + line), rows = t.height - h < 2 ? t.height - h : 2;
    if (rows <= 0) break;  // the tiles are those of the largest part
    float* const y = t.y + h * t.line_stride;
    for (std::int64_t column = 0; column < t.columns && 2 * column < t.width; ++column) {
      const float* const m = t.m + (line * t.columns + column) * t.panel;
      const std::int64_t w = 2 * column;
      for (std::int64_t c = 0; c < t.panel; c += kLanes) {
        Vector s[2][4];
        FUSIBLE_UNROLL for (int j = 0; j < 4; ++j) {
          const Vector m0 = load(m + j * t.m_stride + c), m1 = load(m + (4 + j) * t.m_stride + c), m2 = load(m + (8 + j) * t.m_stride + c),
                       m3 = load(m + (12 + j) * t.m_stride + c);
          s[0][j] = m0 + m1 + m2;
          s[1][j] = m1 - m2 - m3;
        }
        const Vector bias = load(t.bias + c);
        for (std::int64_t i = 0; i < rows; ++i) {
          float* const to = y + i * t.line_stride + w * t.y_stride + c;
          const Vector even = s[i][0] + s[i][1] + s[i][2] + bias, odd = s[i][1] - s[i][2] - s[i][3] + bias;
          check += even * zero;
          store(to, even);
          if (w + 1 == t.width) continue;
          check += odd * zero;
          store(to + t.y_stride, odd);
        }
      }
    }
    for (std::int64_t i = 0; i < rows; ++i)
      run_chain(y + i * t.line_stride, t.y_stride, t.width, t.panel, t.chain, t.steps, t.image, t.row + (h + i) * t.line_rows, t.channel);
  }
  return all_zero(check);
}

}  // namespace
}  // namespace fusible::kernels
