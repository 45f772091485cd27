// The f32 product of one thread, compiled once for each instruction set
// (see gemm_cpu.h for what it promises). Included by files that use foreach_target.
#if defined(TUNDRA_WORKER_OPS_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TUNDRA_WORKER_OPS_GEMM_INL_H_
#undef TUNDRA_WORKER_OPS_GEMM_INL_H_
#else
#define TUNDRA_WORKER_OPS_GEMM_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "worker/device/view.h"
#include "worker/ops/gemm_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace tundra {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 16 lanes at most, so that a panel of two vectors is at most 32 wide.
using GemmTag = hn::CappedTag<float, 16>;
inline constexpr int64_t kVector = static_cast<int64_t>(hn::MaxLanes(GemmTag()));
// Width of a panel of B, rows of C in registers: 2 x kMr accumulators, and room for
// two vectors of B and one of A in 16 (or, AVX512, 32) registers.
inline constexpr int64_t kNr = 2 * kVector;
inline constexpr int64_t kMr = kVector >= 16 ? 12 : 6;
// A block of B: kKc x kNc; a block of A: kMc x kKc, both in the second-level cache.
inline constexpr int64_t kKc = 256;
inline constexpr int64_t kNc = 256;
inline constexpr int64_t kMc = 96;
static_assert(kNc % kNr == 0 && kMc % kMr == 0);

static_assert(kKc * kNc + kMc * kKc + kMr * kNr <= kGemmWorkspaceFloats);

// C tile [kMr, vectors * kVector] (starting from c when load_c) += A·B over k.
// Row i of A: a[i * a_m + p * a_k]; b: panel row p at b + p * b_k.
template <int kVectors>
HWY_INLINE void GemmKernel(int64_t k, const float* HWY_RESTRICT a, int64_t a_m, int64_t a_k,
                           const float* HWY_RESTRICT b, int64_t b_k, float* HWY_RESTRICT c,
                           int64_t c_m, bool load_c) {
  const GemmTag d;
  using V = hn::Vec<GemmTag>;
  V acc[kMr][kVectors];
  if (load_c) {
#pragma GCC unroll 16
    for (int i = 0; i < kMr; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) acc[i][j] = hn::LoadU(d, c + i * c_m + j * kVector);
    }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kMr; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) acc[i][j] = hn::Zero(d);
    }
  }
  for (int64_t p = 0; p < k; ++p) {
    V bv[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) bv[j] = hn::LoadU(d, b + j * kVector);
#pragma GCC unroll 16
    for (int i = 0; i < kMr; ++i) {
      const V av = hn::Set(d, a[i * a_m]);
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) acc[i][j] = hn::MulAdd(av, bv[j], acc[i][j]);
    }
    a += a_k;
    b += b_k;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kMr; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) hn::StoreU(acc[i][j], d, c + i * c_m + j * kVector);
  }
}

// kMr rows from `rows` <= kMr valid ones (A readable for kMr rows), and a panel of
// which `cols` <= kNr columns are wanted. `tile` is kMr x kNr.
HWY_NOINLINE inline void GemmTileEdge(int64_t rows, int64_t cols, int64_t k, const float* a,
                                      int64_t a_m, int64_t a_k, const float* b, int64_t b_k,
                                      float* c, int64_t c_m, bool load_c,
                                      float* HWY_RESTRICT tile) {
  if (load_c) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) tile[i * kNr + j] = c[i * c_m + j];
    }
  }
  if (cols <= kVector) {
    GemmKernel<1>(k, a, a_m, a_k, b, b_k, tile, kNr, load_c);
  } else {
    GemmKernel<2>(k, a, a_m, a_k, b, b_k, tile, kNr, load_c);
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) c[i * c_m + j] = tile[i * kNr + j];
  }
}

HWY_INLINE float ToF32(float x) { return x; }
HWY_INLINE float ToF32(BF16 x) { return ToFloat(x); }

using F32x4 = hn::Vec<hn::CappedTag<float, 4>>;
HWY_INLINE F32x4 Load4(const float* from) { return hn::LoadU(hn::CappedTag<float, 4>(), from); }
HWY_INLINE F32x4 Load4(const BF16* from) {
  const hn::CappedTag<float, 4> d;
  const hn::Rebind<uint16_t, hn::CappedTag<float, 4>> d16;
  const hn::RebindToUnsigned<hn::CappedTag<float, 4>> d32;
  const auto* bits = reinterpret_cast<const uint16_t*>(from);
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, bits))));
}

// Four rows of four, b apart, become four columns of out, kNr apart.
template <typename T>
HWY_INLINE void Transpose4x4(const T* b, int64_t b_n, float scale, float* HWY_RESTRICT out) {
  const hn::CappedTag<float, 4> d;
  const F32x4 s = hn::Set(d, scale);
  const F32x4 r0 = Load4(b), r1 = Load4(b + b_n), r2 = Load4(b + 2 * b_n), r3 = Load4(b + 3 * b_n);
  const F32x4 even_low = hn::InterleaveLower(d, r0, r2), odd_low = hn::InterleaveLower(d, r1, r3);
  const F32x4 even_up = hn::InterleaveUpper(d, r0, r2), odd_up = hn::InterleaveUpper(d, r1, r3);
  hn::StoreU(hn::Mul(s, hn::InterleaveLower(d, even_low, odd_low)), d, out);
  hn::StoreU(hn::Mul(s, hn::InterleaveUpper(d, even_low, odd_low)), d, out + kNr);
  hn::StoreU(hn::Mul(s, hn::InterleaveLower(d, even_up, odd_up)), d, out + 2 * kNr);
  hn::StoreU(hn::Mul(s, hn::InterleaveUpper(d, even_up, odd_up)), d, out + 3 * kNr);
}

// A panel whose columns are rows in memory: b[j * b_n + p], n of them.
template <typename T>
inline void PackPanelTransposed(const T* b, int64_t b_n, float scale, int64_t k, int64_t n,
                                float* HWY_RESTRICT out) {
  for (int64_t p = 0; p < k; p += 4) {
    const bool whole = k - p >= 4;
    int64_t j = 0;
    for (; whole && j + 4 <= n; j += 4) {
      Transpose4x4(b + j * b_n + p, b_n, scale, out + p * kNr + j);
    }
    for (int64_t i = p; i < std::min(k, p + 4); ++i) {
      for (int64_t c = j; c < n; ++c) out[i * kNr + c] = ToF32(b[c * b_n + i]) * scale;
      for (int64_t c = n; c < kNr; ++c) out[i * kNr + c] = 0;
    }
  }
}

// A panel whose rows lie in memory as they are: b[p * b_k + j].
template <typename T>
inline void PackPanelRows(const T* b, int64_t b_k, float scale, int64_t k, int64_t n,
                          float* HWY_RESTRICT out) {
  for (int64_t p = 0; p < k; ++p, b += b_k, out += kNr) {
    int64_t j = 0;
    if (n == kNr) {  // the usual case, with a length that the compiler knows
      for (; j < kNr; ++j) out[j] = ToF32(b[j]) * scale;
    }
    for (; j < n; ++j) out[j] = ToF32(b[j]) * scale;
    for (; j < kNr; ++j) out[j] = 0;
  }
}

// out[p * kNr + j] = B[k0 + p][n0 + j] * scale for one panel; columns from n on are zeros.
inline void PackPanel(const GemmArgs& args, int64_t k0, int64_t k, int64_t n0, int64_t n,
                      float* HWY_RESTRICT out) {
  const int64_t first = k0 * args.b_k + n0 * args.b_n;
  const auto pack = [&](const auto* b) {
    if (args.b_n == 1) {
      PackPanelRows(b + first, args.b_k, args.b_scale, k, n, out);
    } else {
      PackPanelTransposed(b + first, args.b_n, args.b_scale, k, n, out);
    }
  };
  if (args.b_bf16) {
    pack(static_cast<const BF16*>(args.b));
  } else {
    pack(static_cast<const float*>(args.b));
  }
}

// out: groups of kMr rows, each [k][kMr]; missing rows of the last group are zeros.
inline void PackA(const GemmArgs& args, int64_t m0, int64_t m, int64_t k0, int64_t k,
                  float* HWY_RESTRICT out) {
  const float scale = args.a_scale;
  for (int64_t i0 = 0; i0 < m; i0 += kMr, out += k * kMr) {
    const float* a = args.a + (m0 + i0) * args.a_m + k0 * args.a_k;
    const int64_t rows = std::min(kMr, m - i0);
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t i = 0; i < rows; ++i) out[p * kMr + i] = a[i * args.a_m + p * args.a_k] * scale;
      for (int64_t i = rows; i < kMr; ++i) out[p * kMr + i] = 0;
    }
  }
}

// The part [m0, m1) x [n0, n1) of a product, by one thread. n0 is a multiple of kNr.
// work: kGemmWorkspaceFloats floats.
inline void GemmSerial(const GemmArgs& args, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                       float* work) {
  if (args.k == 0 && !args.accumulate) {
    for (int64_t i = m0; i < m1; ++i) {
      std::fill(args.c + i * args.c_m + n0, args.c + i * args.c_m + n1, 0.0f);
    }
  }
  float* const b_block = work;
  float* const a_block = b_block + kKc * kNc;
  float* const tile = a_block + kMc * kKc;
  // Few rows use a panel of B too few times to repay copying it.
  const bool b_direct =
      !args.packed && !args.b_bf16 && args.b_n == 1 && args.b_scale == 1 && m1 - m0 <= 8 * kMr;
  for (int64_t nc = n0; nc < n1; nc += kNc) {
    const int64_t n_end = std::min(n1, nc + kNc);
    for (int64_t kc = 0; kc < args.k; kc += kKc) {
      const int64_t k = std::min(kKc, args.k - kc);
      const bool load_c = args.accumulate || kc > 0;
      if (!args.packed) {
        for (int64_t n = nc; n < n_end; n += kNr) {
          if (b_direct && n_end - n >= kNr) continue;
          PackPanel(args, kc, k, n, std::min(kNr, n_end - n), b_block + (n - nc) * kKc);
        }
      }
      for (int64_t mc = m0; mc < m1; mc += kMc) {
        const int64_t m_end = std::min(m1, mc + kMc);
        const bool pack_a = args.a_k != 1 || args.a_scale != 1 || (m_end - mc) % kMr != 0;
        // With A in place, the last rows that don't fill a group are still packed.
        const bool a_in_place = args.a_k == 1 && args.a_scale == 1;
        const int64_t packed_from = a_in_place ? (m_end - mc) / kMr * kMr : 0;
        if (pack_a) PackA(args, mc + packed_from, m_end - mc - packed_from, kc, k, a_block);
        for (int64_t n = nc; n < n_end; n += kNr) {
          const int64_t cols = std::min(kNr, n_end - n);
          const float* b = b_block + (n - nc) * kKc;
          int64_t b_k = kNr;
          if (args.packed) {
            b = static_cast<const float*>(args.b) + n * args.k + kc * kNr;
          } else if (b_direct && cols == kNr) {
            b = static_cast<const float*>(args.b) + kc * args.b_k + n;
            b_k = args.b_k;
          }
          for (int64_t m = mc; m < m_end; m += kMr) {
            const int64_t rows = std::min(kMr, m_end - m);
            const bool in_place = m - mc < packed_from;
            const float* a =
                in_place ? args.a + m * args.a_m + kc : a_block + (m - mc - packed_from) * k;
            const int64_t a_m = in_place ? args.a_m : 1;
            const int64_t a_k = in_place ? 1 : kMr;
            float* c = args.c + m * args.c_m + n;
            if (rows == kMr && cols == kNr) {
              GemmKernel<2>(k, a, a_m, a_k, b, b_k, c, args.c_m, load_c);
            } else if (rows == kMr && cols == kVector) {
              GemmKernel<1>(k, a, a_m, a_k, b, b_k, c, args.c_m, load_c);
            } else {
              GemmTileEdge(rows, cols, k, a, a_m, a_k, b, b_k, c, args.c_m, load_c, tile);
            }
          }
        }
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tundra
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
