// What attention's per-target code and its caller share: one task, one thread's memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "worker/ops/attention_checks.h"

namespace tundra {

// Tokens of a block. kQueries is a multiple of every row group of the kernel (6, 12), kKeys
// of every panel (8, 16, 32).
inline constexpr int64_t kQueries = 48;
inline constexpr int64_t kKeys = 64;
// Query heads that share one packed block of keys in the forward.
inline constexpr int64_t kHeadsAtOnce = 8;

// One row of the micro-batch and one kv head with its `heads` query heads. Pointers are at
// the row's first token and the first of those heads; strides in elements.
struct AttentionTask {
  int64_t length = 0;  // tokens
  int64_t heads = 0;
  int64_t first_head = 0;
  int64_t head_dim = 0;
  float scale = 0;
  const float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  int64_t q_stride = 0, k_stride = 0, v_stride = 0, lse_stride = 0;
  // Forward.
  float* out = nullptr;
  float* lse = nullptr;
  int64_t out_stride = 0;
  // Backward.
  const float* dout = nullptr;
  const float* lse_in = nullptr;
  const float* delta = nullptr;
  float* dq = nullptr;
  float* dk = nullptr;
  float* dv = nullptr;
  int64_t dout_stride = 0, delta_stride = 0, dq_stride = 0, dk_stride = 0, dv_stride = 0;
};

// One thread's scratch memory.
struct AttentionWork {
  static constexpr int64_t kMaxPanel = 32;
  static constexpr int64_t kMaxRowGroup = 12;
  static constexpr int64_t kFloats = 2 * kKeys * kMaxHeadDim + 2 * kQueries * kKeys +
                                     2 * kHeadsAtOnce * kQueries + kMaxPanel * kMaxHeadDim +
                                     kMaxRowGroup * kMaxHeadDim;
  static_assert(kFloats % 16 == 0);

  static size_t Bytes(int threads) {
    return static_cast<size_t>(threads) * kFloats * sizeof(float);
  }

  AttentionWork(void* memory, int worker) {
    float* next = static_cast<float*>(memory) + worker * kFloats;
    const auto take = [&next](int64_t floats) {
      float* taken = next;
      next += floats;
      return taken;
    };
    packed_k = take(kKeys * kMaxHeadDim);
    packed_v = take(kKeys * kMaxHeadDim);
    p = take(kQueries * kKeys);
    ds = take(kQueries * kKeys);
    max = take(kHeadsAtOnce * kQueries);
    sum = take(kHeadsAtOnce * kQueries);
    tail = take(kMaxPanel * kMaxHeadDim);
    pad = take(kMaxRowGroup * kMaxHeadDim);
  }

  float* packed_k;  // keys of a block, transposed, in panels
  float* packed_v;
  float* p;    // [kQueries, kKeys] scores, then probabilities
  float* ds;   // [kQueries, kKeys] dP, then dS
  float* max;  // [kHeadsAtOnce, kQueries] running maximum and sum
  float* sum;
  float* tail;  // a last panel that is not full
  float* pad;   // last rows that don't fill a group
};

}  // namespace tundra
