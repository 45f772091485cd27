// The tensor cores' products over the fragments of a warp: worker/cuda/launch.h says which
// element lies in which lane.
#pragma once

#include <cstdint>

namespace tundra::emulation {

// By lane: 4 floats of D, 4 registers of A, 2 of B.
struct MmaFragments {
  float* d[32];
  const uint32_t* a[32];
  const uint32_t* b[32];
};

// D[16x8] += A[16x16] B[16x8], A and B bf16. Products are exact in float; they are added in
// the order of k, each sum rounded to float. A device may add in another order and round
// otherwise, so tests compare to a tolerance.
void MultiplyBf16(const MmaFragments& f);

// D[16x8] += A[16x8] B[8x8], A and B tf32: the lower 13 bits of a float are not looked at.
void MultiplyTf32(const MmaFragments& f);

}  // namespace tundra::emulation
