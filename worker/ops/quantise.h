// How one gradient becomes an integer: the definition for every device, so that ranks on
// different backends of one numerics class add the same numbers.
// Why the integers are exact and cannot overflow: worker/train/exact_sum.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace tundra {

// round_to_nearest_even(g · scale). scale is a power of two, so the product is exact in
// double and the rounding is the only one. Beyond ±2^62 (a gradient over 2^e, whose step
// will be redone) it saturates; NaN gives 0 (its step will be skipped).
// Needs the default rounding mode.
TUNDRA_HOST_DEVICE inline int64_t Quantize(float g, double scale) {
  constexpr double kLimit = 4611686018427387904.0;  // 2^62
  double x = static_cast<double>(g) * scale;
  x = x < -kLimit ? -kLimit : x;
  x = x > kLimit ? kLimit : x;
  return x == x ? static_cast<int64_t>(std::llrint(x)) : 0;
}

}  // namespace tundra
