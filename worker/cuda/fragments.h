// Factors and sums of products on tensor cores, as they lie in the registers of a warp. Device
// code.
//
// Factors are of type BF16, or float for full precision. Tensor cores multiply bf16, so a
// float is split into three bf16 (8 bits of mantissa each, 24 in all), and the six products
// of parts that matter at f32's precision are summed: as exact as a product in f32, at a
// sixth of the rate of bf16.
// Source: Henry, Tang & Heinecke 2019, arXiv:1904.06376.
//
// What is not finite stays so: infinities, NaN, and floats that round to an infinity in bf16
// (from about 3.396e38 on) have NaN among their parts, and so make every sum they are in NaN.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "worker/cuda/launch.h"

namespace tundra::cuda {

template <typename T>
inline constexpr int kParts = std::is_same_v<T, float> ? 3 : 1;

// One thread's share of a factor: A is 16 x 16, B 16 x 8 (launch.h says which elements).
template <typename T>
struct FragmentA {
  uint32_t part[kParts<T>][4];
};
template <typename T>
struct FragmentB {
  uint32_t part[kParts<T>][2];
};

// One thread's share of a matrix of sums, kRowBlocks · 16 x kCols. Element [i][n][e] has row
// 16 i + AccumulatorRow(e) and column 8 n + AccumulatorColumn(e).
template <int kRowBlocks, int kCols>
struct Accumulators {
  float v[kRowBlocks][kCols / 8][4] = {};
};
TUNDRA_DEVICE int AccumulatorRow(int e) { return Lane() / 4 + e / 2 * 8; }
TUNDRA_DEVICE int AccumulatorColumn(int e) { return Lane() % 4 * 2 + e % 2; }

// Two floats as pairs of bf16 whose sum they are.
template <typename T>
TUNDRA_DEVICE void SplitPair(float lo, float hi, uint32_t (&parts)[kParts<T>]) {
  parts[0] = Pack(lo, hi);
  TUNDRA_UNROLL
  for (int i = 1; i < kParts<T>; ++i) {
    lo -= std::bit_cast<float>(parts[i - 1] << 16);
    hi -= std::bit_cast<float>(parts[i - 1] & 0xffff0000u);
    parts[i] = Pack(lo, hi);
  }
}

// d += a · b.
template <typename T>
TUNDRA_DEVICE void MultiplyAdd(const FragmentA<T>& a, const FragmentB<T>& b, float (&d)[4]) {
  if constexpr (kParts<T> == 1) {
    MmaBf16(d, a.part[0], b.part[0]);
  } else {
    // Small products first. Into a sum of their own, because tensor cores cut off what
    // doesn't fit the accumulator, where an addition rounds.
    float sum[4] = {};
    TUNDRA_UNROLL
    for (int order = kParts<T> - 1; order >= 0; --order) {
      TUNDRA_UNROLL
      for (int i = 0; i <= order; ++i) MmaBf16(sum, a.part[i], b.part[order - i]);
    }
    TUNDRA_UNROLL
    for (int e = 0; e < 4; ++e) d[e] += sum[e];
  }
}

}  // namespace tundra::cuda
