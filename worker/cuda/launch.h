// What kernels are written with: one way to launch them, and every primitive of the device
// that they may use. Each primitive has two implementations:
//
//   nvcc                        launch_nvcc.h: the instruction
//   TUNDRA_CUDA_EMULATION       tests/emulation/kernel.h: the same .cu file compiled as C++;
//                               the threads of a block are fibres, and every access is checked
//
// Rules for kernels, so that both give the same results:
//  * Blocks are whole warps (a multiple of 32 threads), and every warp primitive is reached
//    by all 32 lanes; SyncThreads by all threads of the block.
//  * Global memory is seen through Matrix or Pointer, shared memory through SharedArray:
//    they are plain pointers for nvcc and know their bounds in the emulation. There is no
//    static __shared__ memory; dynamic shared memory starts with unspecified contents.
//  * No inline PTX, no intrinsics but those of <cmath> and of this file.
//  * No block waits for another. No atomics on floats: a sum has one order.
//  * --fmad=false and -ffp-contract=off: what is to be fused is written as fmaf.
//
// The primitives (namespace tundra::cuda; W = all 32 lanes of the warp take part):
//
//   TUNDRA_DEVICE marks a function of kernels, TUNDRA_UNROLL a loop to unroll, TUNDRA_UNROLL_BY(n)
//   one to unroll by n, where all of it would not fit in registers
//   Launch<kernel>(grid, block, shared_bytes, stream, args…) -> absl::Status
//   Pointer<T>          p[i], p + n, p - n; Pointer<T> is a Pointer<const T>. .get() is raw
//   SharedArray<T>(offset_bytes, count) -> Pointer<T>, 16-byte aligned at offset 0
//   Load4(p), Store4(p, Float4)                        16 bytes at a 16-byte boundary
//   Lane(), Warp()                                     threadIdx.x % 32, threadIdx.x / 32
//   SyncThreads()  SyncWarp() W
//   Shuffle(v, lane) W  ShuffleXor(v, mask) W  ShuffleUp(v, n) W  ShuffleDown(v, n) W
//   Ballot(bool) -> uint32_t W   CountBits(uint32_t) -> int
//   AtomicMax(Pointer<uint32_t>, v)  AtomicAdd(Pointer<uint64_t>, v)      integers only
//   CpAsync16(shared, global), CpAsync16OrZero(shared, global, valid), CpAsyncCommit(),
//   CpAsyncWait<n>(): all but the newest n committed groups have arrived for this thread
//   Pack(lo, hi) -> uint32_t     two floats as bf16, lo in the low half
//   Exp2(x) -> float             2^x to 2 ulp; on a device results below 2^-126 become 0
//   ToTf32(x) -> uint32_t        the nearest tf32 (ties away from zero), as float bits
//   MmaBf16(d, a, b) W           d[16x8] += a[16x16] b[16x8], fragments as below
//   MmaTf32(d, a, b) W           d[16x8] += a[16x8] b[8x8]
//   LoadMatrix4(regs, p) W       four 8x8 bf16 matrices; lane l gives row l%8 of matrix l/8
//   LoadMatrix4Transposed(regs, p) W
//
// Fragments, with g = lane / 4 and c = lane % 4 (PTX ISA, "matrix fragments for mma"):
//   d[0..3]  D[g][2c], D[g][2c+1], D[g+8][2c], D[g+8][2c+1]
//   bf16 a[0..3]  pairs A[g][2c..], A[g+8][2c..], A[g][2c+8..], A[g+8][2c+8..]
//   bf16 b[0..1]  pairs (B[2c][g], B[2c+1][g]), (B[2c+8][g], B[2c+9][g])
//   tf32 a[0..3]  A[g][c], A[g+8][c], A[g][c+4], A[g+8][c+4];  b[0..1]  B[c][g], B[c+4][g]
//   LoadMatrix4: regs[i] = pair M_i[g][2c], M_i[g][2c+1]; transposed: M_i[2c][g], M_i[2c+1][g]
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "absl/status/status.h"
#include "worker/device/view.h"

namespace tundra::cuda {

struct alignas(16) Float4 {
  float x, y, z, w;
};

inline constexpr int kWarp = 32;

}  // namespace tundra::cuda

#if defined(TUNDRA_CUDA_EMULATION)
#include "tests/emulation/kernel.h"
#else
#include "worker/cuda/launch_nvcc.h"
#endif

namespace tundra::cuda {

// A view as kernels see it: rows of `cols` elements, `stride` apart.
template <typename T>
struct Matrix {
  Pointer<T> data;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  // A row, or one element. In the emulation a row ends after its `cols` elements.
  TUNDRA_DEVICE Pointer<T> row(int64_t r) const { return RowOf(data, r, rows, cols, stride); }
  TUNDRA_DEVICE T& operator()(int64_t r, int64_t c) const { return row(r)[c]; }
};

// The view must have elements of type T (checked by the caller) and lie in device memory.
template <typename T, typename VoidPtr>
Matrix<T> MatrixOf(const BasicView<VoidPtr>& view) {
  const int64_t extent = view.rows == 0 ? 0 : (view.rows - 1) * view.stride + view.cols;
  return {PointerOf(static_cast<T*>(view.data), extent), view.rows, view.cols, view.stride};
}
template <typename T>
Matrix<const T> Input(const ConstView& view) {
  return MatrixOf<const T>(view);
}
template <typename T>
Matrix<T> Output(const View& view) {
  return MatrixOf<T>(view);
}

// The sum, or the largest, over a warp, in one fixed tree; every lane gets it.
template <typename T>
TUNDRA_DEVICE T WarpSum(T value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += ShuffleXor(value, mask);
  return value;
}
template <typename T>
TUNDRA_DEVICE T WarpMax(T value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const T other = ShuffleXor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

// The same over a block of up to 1024 threads. `scratch` is shared memory for one element a
// warp; all threads of the block call it, and it may be used again right after.
template <typename T>
TUNDRA_DEVICE T BlockSum(T value, Pointer<T> scratch) {
  value = WarpSum(value);
  if (Lane() == 0) scratch[Warp()] = value;
  SyncThreads();
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  value = WarpSum(Lane() < warps ? scratch[Lane()] : T{0});
  SyncThreads();
  return value;
}
template <typename T>
TUNDRA_DEVICE T BlockMax(T value, Pointer<T> scratch) {
  value = WarpMax(value);
  if (Lane() == 0) scratch[Warp()] = value;
  SyncThreads();
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  value = WarpMax(scratch[Lane() < warps ? Lane() : 0]);
  SyncThreads();
  return value;
}

}  // namespace tundra::cuda
