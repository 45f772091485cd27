// Attention: not there yet on CUDA.
#include "worker/cuda/kernels.h"

namespace tundra::cuda {

absl::Status CudaOps::Attention(Ctx, PackedRows, AttentionParams, ConstView, ConstView, ConstView,
                                View, View) {
  return absl::UnimplementedError("attention is not there yet on CUDA; use cpu devices");
}

absl::Status CudaOps::AttentionBackward(Ctx, PackedRows, AttentionParams, ConstView, ConstView,
                                        ConstView, ConstView, ConstView, ConstView, View, View,
                                        View) {
  return absl::UnimplementedError("attention is not there yet on CUDA; use cpu devices");
}

}  // namespace tundra::cuda
