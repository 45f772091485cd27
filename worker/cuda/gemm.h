// Products of the adapter: f32 by plain multiply-adds, with one order of every sum.
//
// They are bound by memory: a rank is small, so each number of the long operand takes part
// in few products (16 multiply-adds at rank 16), which ordinary cores keep up with.
#pragma once

#include "worker/cuda/kernels.h"

namespace tundra::cuda {

// c [m, n] = Σ_k a(m, k) b(k, n). Either operand may lie transposed in memory:
// a as [m, k] or, with a_turned, [k, m]; b as [k, n] or, with b_turned, [n, k].
struct Gemm {
  ConstView a, b;
  bool a_turned = false, b_turned = false;
  float scale = 1;
  bool add = false;
  View c;
  bool c_turned = false;  // c is [n, m] in memory. Only for GemmInPieces
};

// For a short sum (k a rank): c (=|+=) scale · the sum, whose terms are added in order of k.
absl::Status GemmDirect(const Queue& queue, const Gemm& gemm);

// For a long sum over k: pieces of kTokenChunk terms, each added in order, then the pieces
// in order, 64 at a time. Best where n is the rank.
// Scratch: room_bytes at most, which bits don't depend on. kResourceExhausted when the arena
// has less, or 64 rows of c don't fit.
absl::Status GemmInPieces(Ctx ctx, const Queue& queue, const Gemm& gemm,
                          size_t room_bytes = kWorkspaceBytes);

}  // namespace tundra::cuda
