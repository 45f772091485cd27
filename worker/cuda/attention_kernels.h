// What the files of the attention kernels share: their arguments, and the launches that
// attention.cu puts in order.
//
// Every operand is packed first: a copy of type T (BF16, or float for full precision), head
// by head, [heads][tokens][kDim], columns from the head's size on zero. So the kernels copy
// whole 16-byte chunks, convert nothing and know few sizes of head.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "worker/cuda/attention_rows.h"
#include "worker/cuda/kernels.h"

namespace tundra::cuda {

// What the backward knows of a token and head: x = log Σ exp in base 2, y = Σ_d dout · out. A
// whole Float4, so that a copy of 16 bytes takes it.
using TokenStats = Float4;

// Operands of all kernels. `group` query heads share a kv head.
template <typename T>
struct AttentionOperands {
  Pointer<const T> q, dout;        // [heads][tokens][kDim]; dout in the backward only
  Pointer<const T> k, v;           // [heads / group][tokens][kDim]
  Pointer<const float> stats;      // [heads][tokens] TokenStats; in the backward only
  Pointer<const int32_t> offsets;  // [num_rows + 1]
  int num_rows = 0;
  int tokens = 0;
  int heads = 0;
  int group = 1;
  int dim = 0;  // of a head, <= kDim
  ScoreRule rule;
};

// A result of f32, `dim` columns a head.
struct AttentionResult {
  Matrix<float> to;
  bool wide = false;  // every head of every row begins at a 16-byte boundary
};

// Whether every head of every row begins at a 16-byte boundary.
inline bool IsWide(const ConstView& x, int dim) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride % 4 == 0 && dim % 4 == 0;
}

// One operand to pack: f32 [rows, heads · dim] -> T [heads][tokens][padded_dim], or
// [tokens][heads][padded_dim]. Tokens from `rows` on become zeros.
template <typename T>
struct PackItem {
  Matrix<const float> from;
  Pointer<float> to;  // of T, in 16-byte pieces
  int heads = 0;
  bool wide = false;  // as in AttentionResult
};
inline constexpr int kMaxPackItems = 5;
template <typename T>
struct PackItems {
  PackItem<T> item[kMaxPackItems];
  int count = 0;
  int64_t tokens = 0;
  bool by_token = false;  // the order [tokens][heads]
};

// Each launches on `stream`. Defined for T = BF16 and float, and every padded size of head
// that PaddedHeadDim gives.
template <typename T>
absl::Status LaunchPack(const Queue& queue, const PackedRows& rows, const PackItems<T>& items,
                        int dim, int padded_dim);
template <typename T>
absl::Status LaunchStats(cudaStream_t stream, const AttentionOperands<T>& in, int padded_dim,
                         Matrix<const float> out_TH, Matrix<const float> lse_TH,
                         Pointer<float> stats);
template <typename T>
absl::Status LaunchForward(cudaStream_t stream, const AttentionOperands<T>& in, int padded_dim,
                           const AttentionResult& out_TH, Matrix<float> lse_TH);
template <typename T>
absl::Status LaunchQueryGradient(cudaStream_t stream, const AttentionOperands<T>& in,
                                 int padded_dim, const AttentionResult& dq_TH);
template <typename T>
absl::Status LaunchKeyGradient(cudaStream_t stream, const AttentionOperands<T>& in, int padded_dim,
                               const AttentionResult& dk_TG, const AttentionResult& dv_TG);

// Sizes of heads that have kernels. Full precision, where speed doesn't count, has fewer.
template <typename T>
constexpr int PaddedHeadDim(int dim) {
  if constexpr (std::is_same_v<T, float>) return dim <= 64 ? 64 : dim <= 128 ? 128 : 256;
  return dim <= 32    ? 32
         : dim <= 64  ? 64
         : dim <= 96  ? 96
         : dim <= 128 ? 128
         : dim <= 192 ? 192
                      : 256;
}

// Calls f with PaddedHeadDim's result as a constant: f(std::integral_constant<int, kDim>()).
template <typename T, typename F>
absl::Status WithHeadDim(int padded_dim, const F& f) {
  switch (padded_dim) {
    case 64:
      return f(std::integral_constant<int, 64>());
    case 128:
      return f(std::integral_constant<int, 128>());
    case 256:
      return f(std::integral_constant<int, 256>());
  }
  if constexpr (!std::is_same_v<T, float>) {
    switch (padded_dim) {
      case 32:
        return f(std::integral_constant<int, 32>());
      case 96:
        return f(std::integral_constant<int, 96>());
      case 192:
        return f(std::integral_constant<int, 192>());
    }
  }
  return absl::InternalError("attention has no kernel for this size of head");
}

// The packed rows of a head from a token on.
template <typename T>
TUNDRA_DEVICE Pointer<const T> PackedRow(const Pointer<const T>& packed, int head, int tokens,
                                         int token, int dim) {
  return packed + (static_cast<int64_t>(head) * tokens + token) * dim;
}

}  // namespace tundra::cuda
