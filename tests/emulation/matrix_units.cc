#include "tests/emulation/matrix_units.h"

#include <bit>

namespace tundra::emulation {
namespace {

float Low(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
float High(uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }
float Tf32(uint32_t bits) { return std::bit_cast<float>(bits & ~0x1fffu); }

template <int kInner>
void Multiply(const MmaFragments& f, const float (&a)[16][kInner], const float (&b)[kInner][8]) {
  float d[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, c = lane % 4;
    for (int i = 0; i < 4; ++i) d[g + i / 2 * 8][2 * c + i % 2] = f.d[lane][i];
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < kInner; ++k) {
      for (int col = 0; col < 8; ++col) d[row][col] += a[row][k] * b[k][col];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, c = lane % 4;
    for (int i = 0; i < 4; ++i) f.d[lane][i] = d[g + i / 2 * 8][2 * c + i % 2];
  }
}

}  // namespace

void MultiplyBf16(const MmaFragments& f) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, c = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + i % 2 * 8, k = 2 * c + i / 2 * 8;
      a[row][k] = Low(f.a[lane][i]);
      a[row][k + 1] = High(f.a[lane][i]);
    }
    for (int i = 0; i < 2; ++i) {
      const int k = 2 * c + i * 8;
      b[k][g] = Low(f.b[lane][i]);
      b[k + 1][g] = High(f.b[lane][i]);
    }
  }
  Multiply(f, a, b);
}

void MultiplyTf32(const MmaFragments& f) {
  float a[16][8], b[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, c = lane % 4;
    for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][c + i / 2 * 4] = Tf32(f.a[lane][i]);
    for (int i = 0; i < 2; ++i) b[c + i * 4][g] = Tf32(f.b[lane][i]);
  }
  Multiply(f, a, b);
}

}  // namespace tundra::emulation
