// The adapter's products. All go through Gemm, whose sums run over k in rising order from
// 0 or from C: one fp32 accumulator over tokens, however they are cut. Pieces of
// kTokenChunk tokens are therefore not seen in the bits; the order is.
#include "worker/ops/checks.h"
#include "worker/ops/cpu_ops.h"
#include "worker/ops/gemm_cpu.h"
#include "worker/ops/parallel.h"

namespace tundra {
namespace {

GemmArgs Product(int64_t m, int64_t n, int64_t k, const View& c, bool accumulate) {
  GemmArgs args;
  args.m = m;
  args.n = n;
  args.k = k;
  args.c = c.row<float>(0);
  args.c_m = c.stride;
  args.accumulate = accumulate;
  return args;
}

// A = x or xᵀ.
void SetA(GemmArgs& args, const ConstView& x, bool transposed) {
  args.a = x.row<float>(0);
  args.a_m = transposed ? 1 : x.stride;
  args.a_k = transposed ? x.stride : 1;
}

// B = x or xᵀ.
void SetB(GemmArgs& args, const ConstView& x, bool transposed) {
  args.b = x.data;
  args.b_k = transposed ? 1 : x.stride;
  args.b_n = transposed ? x.stride : 1;
}

// to_NM = from_MNᵀ.
void Transpose(const ConstView& from, const View& to) {
  constexpr int64_t kBlock = 16;
  for (int64_t r0 = 0; r0 < from.rows; r0 += kBlock) {
    for (int64_t c0 = 0; c0 < from.cols; c0 += kBlock) {
      for (int64_t r = r0; r < std::min(from.rows, r0 + kBlock); ++r) {
        for (int64_t c = c0; c < std::min(from.cols, c0 + kBlock); ++c) {
          to.row<float>(c)[r] = from.row<float>(r)[c];
        }
      }
    }
  }
}

}  // namespace

absl::Status CpuOps::LoraDown(Ctx ctx, ConstView x_TK, ConstView a_RK, View h_TR) {
  const int64_t t = x_TK.rows, k = x_TK.cols, r = a_RK.rows;
  RETURN_IF_ERROR(CheckView("x_TK", x_TK, DType::kF32, t, k));
  RETURN_IF_ERROR(CheckView("a_RK", a_RK, DType::kF32, r, k));
  RETURN_IF_ERROR(CheckView("h_TR", h_TR, DType::kF32, t, r));
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(void* work, ctx.scratch->AllocateBytes(GemmWorkspaceBytes(threads())));
  GemmArgs args = Product(t, r, k, h_TR, false);
  SetA(args, x_TK, false);
  SetB(args, a_RK, true);
  Gemm(args, threads(), work);
  return absl::OkStatus();
}

absl::Status CpuOps::LoraUp(Ctx ctx, ConstView h_TR, ConstView b_NR, float scale, View y_TN) {
  const int64_t t = h_TR.rows, r = h_TR.cols, n = b_NR.rows;
  RETURN_IF_ERROR(CheckView("h_TR", h_TR, DType::kF32, t, r));
  RETURN_IF_ERROR(CheckView("b_NR", b_NR, DType::kF32, n, r));
  RETURN_IF_ERROR(CheckView("y_TN", y_TN, DType::kF32, t, n));
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(void* work, ctx.scratch->AllocateBytes(GemmWorkspaceBytes(threads())));
  GemmArgs args = Product(t, n, r, y_TN, true);
  SetA(args, h_TR, false);
  SetB(args, b_NR, true);
  args.b_scale = scale;
  Gemm(args, threads(), work);
  return absl::OkStatus();
}

absl::Status CpuOps::LoraUpBackward(Ctx ctx, ConstView dy_TN, ConstView h_TR, ConstView b_NR,
                                    float scale, View dh_TR, View db_NR) {
  const int64_t t = dy_TN.rows, n = dy_TN.cols, r = b_NR.cols;
  RETURN_IF_ERROR(CheckView("dy_TN", dy_TN, DType::kF32, t, n));
  RETURN_IF_ERROR(CheckView("h_TR", h_TR, DType::kF32, t, r));
  RETURN_IF_ERROR(CheckView("b_NR", b_NR, DType::kF32, n, r));
  RETURN_IF_ERROR(CheckView("dh_TR", dh_TR, DType::kF32, t, r));
  RETURN_IF_ERROR(CheckView("db_NR", db_NR, DType::kF32, n, r));
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(void* work, ctx.scratch->AllocateBytes(GemmWorkspaceBytes(threads())));
  ASSIGN_OR_RETURN(const View db_RN, ctx.scratch->Allocate(DType::kF32, r, n));

  GemmArgs to_h = Product(t, r, n, dh_TR, false);
  SetA(to_h, dy_TN, false);
  SetB(to_h, b_NR, false);
  to_h.b_scale = scale;
  Gemm(to_h, threads(), work);

  // dBᵀ = s · hᵀ · dy: dy stays in place as the right factor, only the small h is turned.
  Transpose(db_NR, db_RN);
  GemmArgs to_b = Product(r, n, t, db_RN, true);
  SetA(to_b, h_TR, true);
  SetB(to_b, dy_TN, false);
  to_b.a_scale = scale;
  Gemm(to_b, threads(), work);
  Transpose(db_RN, db_NR);
  return absl::OkStatus();
}

absl::Status CpuOps::LoraDownBackward(Ctx ctx, ConstView dh_TR, ConstView x_TK, ConstView a_RK,
                                      View da_RK, View dx_TK) {
  const int64_t t = x_TK.rows, k = x_TK.cols, r = a_RK.rows;
  RETURN_IF_ERROR(CheckView("dh_TR", dh_TR, DType::kF32, t, r));
  RETURN_IF_ERROR(CheckView("x_TK", x_TK, DType::kF32, t, k));
  RETURN_IF_ERROR(CheckView("a_RK", a_RK, DType::kF32, r, k));
  RETURN_IF_ERROR(CheckView("da_RK", da_RK, DType::kF32, r, k));
  ArenaScope scope(ctx.scratch);
  ASSIGN_OR_RETURN(void* work, ctx.scratch->AllocateBytes(GemmWorkspaceBytes(threads())));
  GemmArgs to_a = Product(r, k, t, da_RK, true);
  SetA(to_a, dh_TR, true);
  SetB(to_a, x_TK, false);
  Gemm(to_a, threads(), work);
  if (dx_TK.empty()) return absl::OkStatus();

  RETURN_IF_ERROR(CheckView("dx_TK", dx_TK, DType::kF32, t, k));
  GemmArgs to_x = Product(t, k, r, dx_TK, true);
  SetA(to_x, dh_TR, false);
  SetB(to_x, a_RK, false);
  Gemm(to_x, threads(), work);
  return absl::OkStatus();
}

}  // namespace tundra
