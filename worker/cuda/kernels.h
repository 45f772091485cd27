// What the files of kernels share: where an operation's kernels go, how they report values
// that are wrong, and a loop over the elements of a matrix.
#pragma once

#include <algorithm>

#include "absl/status/statusor.h"
#include "common/status.h"
#include "worker/cuda/cuda_ops.h"
#include "worker/cuda/launch.h"
#include "worker/ops/checks.h"

namespace tundra::cuda {

struct Queue {
  cudaStream_t stream = nullptr;
  Pointer<uint32_t> fault;  // the stream's FaultWord
};

// Makes the device current, and says where kernels go.
inline absl::StatusOr<Queue> QueueOf(const CudaDevice& device, Ctx ctx) {
  RETURN_IF_ERROR(device.MakeCurrent());
  const auto& stream = *static_cast<const CudaStream*>(ctx.stream);
  return Queue{stream.handle(), PointerOf(stream.fault(), 1)};
}

// `place` is what FaultText ends with. The kernel goes on without the bad value.
TUNDRA_DEVICE void Report(Pointer<uint32_t> word, Fault fault, int64_t place) {
  constexpr int64_t kMost = (int64_t{1} << kFaultPlaceBits) - 1;
  const int64_t held = place < kMost ? place : kMost;
  AtomicMax(word,
            static_cast<uint32_t>(fault) << kFaultPlaceBits | static_cast<uint32_t>(kMost - held));
}

// Elementwise kernels: a block takes kBlockElements columns of some rows.
inline constexpr int kElementThreads = 256;
inline constexpr int kElementsPerThread = 4;
inline constexpr int64_t kBlockElements = kElementThreads * kElementsPerThread;

// A grid for ForEach over a matrix.
inline dim3 ElementGrid(int64_t rows, int64_t cols) {
  if (rows == 0 || cols == 0) return dim3(0, 1, 1);
  return dim3(static_cast<unsigned>((cols + kBlockElements - 1) / kBlockElements),
              static_cast<unsigned>(std::min<int64_t>(rows, 65535)), 1);
}

// each(r, c) once for every element, in a kernel of kElementThreads threads a block.
template <typename Each>
TUNDRA_DEVICE void ForEach(int64_t rows, int64_t cols, const Each& each) {
  const int64_t first = blockIdx.x * kBlockElements + threadIdx.x;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    TUNDRA_UNROLL
    for (int i = 0; i < kElementsPerThread; ++i) {
      const int64_t c = first + i * kElementThreads;
      if (c < cols) each(r, c);
    }
  }
}

// Whether all views can be taken as one row, in which no thread of a block is left over.
template <typename... Views>
bool AllContiguous(const Views&... views) {
  return (views.contiguous() && ...);
}

// total (f64, one number) (=|+=) the f64 values, one after another in their order.
absl::Status SumInOrder(const Queue& queue, ConstView values, bool add, View total);

// out_ND = x_TD[index_N], f32; zeros, and a fault, for a row that x lacks.
absl::Status PickRows(const Queue& queue, ConstView x_TD, ConstView index_N, View out_ND);

// A weight's element as a float.
TUNDRA_DEVICE float AsFloat(float x) { return x; }
TUNDRA_DEVICE float AsFloat(BF16 x) { return ToFloat(x); }

}  // namespace tundra::cuda
