// Products of the adapter: f32 on tensor cores, each number split into three bf16
// (fragments.h), with one order of every sum.
//
// As exact as f32: a product's error is below 2^-22 of |a·b|, besides that of fp32 sums. Sixteen
// terms are summed by the tensor cores, small parts first, and these sums are added in order.
// The order depends neither on the tile nor on the other rows or columns, so a row's results
// depend on that row of a alone.
//
// An operand that isn't finite makes every result it takes part in NaN, also where f32 would
// give an infinity, and never another result. So does a finite one above about 3.396e38, which
// has no bf16. Of one below 2^-110 fewer than 24 bits count: it is off by up to 2^-134.
#pragma once

#include "worker/cuda/kernels.h"

namespace tundra::cuda {

// c [m, n] = Σ_k a(m, k) b(k, n). One operand may lie transposed in memory:
// a as [m, k] or, with a_turned, [k, m]; b as [k, n] or, with b_turned, [n, k].
// Any strides and places; fastest where rows begin at 16-byte boundaries.
struct Gemm {
  ConstView a, b;
  bool a_turned = false, b_turned = false;
  float scale = 1;
  bool add = false;
  View c;
  bool c_turned = false;  // c is [n, m] in memory. Only for GemmInPieces
};

// For a short sum (k a rank, n wide): c (=|+=) scale · the sum. kInvalidArgument with a_turned.
absl::Status GemmDirect(const Queue& queue, const Gemm& gemm);

// For a long sum over k: pieces of kTokenChunk terms, each added in order, then the pieces
// in order, 64 at a time. Best where n is the rank.
// Scratch: room_bytes at most, which bits don't depend on. kResourceExhausted when the arena
// has less, or 64 rows of c don't fit. kInvalidArgument when both operands are turned.
absl::Status GemmInPieces(Ctx ctx, const Queue& queue, const Gemm& gemm,
                          size_t room_bytes = kWorkspaceBytes);

}  // namespace tundra::cuda
