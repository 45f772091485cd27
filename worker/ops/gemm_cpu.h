// The CPU's own f32 product, C (=|+=) A·B, for any strides.
//
// Why our own: oneDNN's f32 product on AVX2 gives other bits for other numbers of rows
// and of threads (measured), and the engine's promise is that neither matters. Here
// each element of C is one chain of fused multiply-adds over k, in rising order, starting
// from 0 or from C. Blocks, tiles and threads don't enter it, nor do M and N.
// Structure as in Goto & van de Geijn 2008, "Anatomy of High-Performance Matrix
// Multiplication": panels of B in cache, a block of C in registers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tundra {

struct GemmArgs {
  int64_t m = 0, n = 0, k = 0;
  // A[m][k] = a[m * a_m + k * a_k] * a_scale.
  const float* a = nullptr;
  int64_t a_m = 0, a_k = 1;
  float a_scale = 1;
  // B[k][n] = b[k * b_k + n * b_n] * b_scale, f32 or bf16; one of b_k, b_n is 1.
  // Or, when `packed` is set, what PackGemmB made of it.
  const void* b = nullptr;
  int64_t b_k = 0, b_n = 1;
  bool b_bf16 = false;
  float b_scale = 1;
  bool packed = false;
  // C[m][n] = c[m * c_m + n].
  float* c = nullptr;
  int64_t c_m = 0;
  bool accumulate = false;
};

// Floats of one thread's workspace, for the widest instruction set: a block of B, a block of
// A, a tile of C.
inline constexpr int64_t kGemmWorkspaceFloats = 256 * 256 + 96 * 256 + 12 * 32;
static_assert(kGemmWorkspaceFloats * sizeof(float) % 64 == 0);

// Bytes of workspace for `threads` threads.
size_t GemmWorkspaceBytes(int threads);

// workspace: GemmWorkspaceBytes(threads) bytes at a 64-byte boundary.
void Gemm(const GemmArgs& args, int threads, void* workspace);

// B laid out for Gemm once and for all: args' b, b_k, b_n, b_bf16, n and k are used.
size_t PackedGemmBytes(int64_t n, int64_t k);
void PackGemmB(const GemmArgs& args, int threads, void* out);

}  // namespace tundra
