// The adapter's products. Sums over tokens or over a layer's width run in pieces
// (GemmInPieces); sums over the rank are short and run straight.
#include "worker/cuda/gemm.h"

namespace tundra::cuda {

absl::Status CudaOps::LoraDown(Ctx ctx, ConstView x_TK, ConstView a_RK, View h_TR) {
  const int64_t t = x_TK.rows, k = x_TK.cols, r = a_RK.rows;
  RETURN_IF_ERROR(CheckView("x_TK", x_TK, DType::kF32, t, k));
  RETURN_IF_ERROR(CheckView("a_RK", a_RK, DType::kF32, r, k));
  RETURN_IF_ERROR(CheckView("h_TR", h_TR, DType::kF32, t, r));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  Gemm gemm;
  gemm.a = x_TK;
  gemm.b = a_RK, gemm.b_turned = true;
  gemm.c = h_TR;
  return GemmInPieces(ctx, queue, gemm);
}

absl::Status CudaOps::LoraUp(Ctx ctx, ConstView h_TR, ConstView b_NR, float scale, View y_TN) {
  const int64_t t = h_TR.rows, r = h_TR.cols, n = b_NR.rows;
  RETURN_IF_ERROR(CheckView("h_TR", h_TR, DType::kF32, t, r));
  RETURN_IF_ERROR(CheckView("b_NR", b_NR, DType::kF32, n, r));
  RETURN_IF_ERROR(CheckView("y_TN", y_TN, DType::kF32, t, n));
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  Gemm gemm;
  gemm.a = h_TR;
  gemm.b = b_NR, gemm.b_turned = true;
  gemm.scale = scale, gemm.add = true;
  gemm.c = y_TN;
  return GemmDirect(queue, gemm);
}

absl::Status CudaOps::LoraUpBackward(Ctx ctx, ConstView dy_TN, ConstView h_TR, ConstView b_NR,
                                     float scale, View dh_TR, View db_NR) {
  const int64_t t = dy_TN.rows, n = dy_TN.cols, r = b_NR.cols;
  RETURN_IF_ERROR(CheckView("dy_TN", dy_TN, DType::kF32, t, n));
  RETURN_IF_ERROR(CheckView("h_TR", h_TR, DType::kF32, t, r));
  RETURN_IF_ERROR(CheckView("b_NR", b_NR, DType::kF32, n, r));
  RETURN_IF_ERROR(CheckView("dh_TR", dh_TR, DType::kF32, t, r));
  RETURN_IF_ERROR(CheckView("db_NR", db_NR, DType::kF32, n, r));
  if (t == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  Gemm to_h;
  to_h.a = dy_TN, to_h.b = b_NR;
  to_h.scale = scale;
  to_h.c = dh_TR;
  RETURN_IF_ERROR(GemmInPieces(ctx, queue, to_h));
  Gemm to_b;
  to_b.a = dy_TN, to_b.a_turned = true;
  to_b.b = h_TR;
  to_b.scale = scale, to_b.add = true;
  to_b.c = db_NR;
  return GemmInPieces(ctx, queue, to_b);
}

absl::Status CudaOps::LoraDownBackward(Ctx ctx, ConstView dh_TR, ConstView x_TK, ConstView a_RK,
                                       View da_RK, View dx_TK) {
  const int64_t t = x_TK.rows, k = x_TK.cols, r = a_RK.rows;
  RETURN_IF_ERROR(CheckView("dh_TR", dh_TR, DType::kF32, t, r));
  RETURN_IF_ERROR(CheckView("x_TK", x_TK, DType::kF32, t, k));
  RETURN_IF_ERROR(CheckView("a_RK", a_RK, DType::kF32, r, k));
  RETURN_IF_ERROR(CheckView("da_RK", da_RK, DType::kF32, r, k));
  if (t == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Queue queue, QueueOf(*device_, ctx));
  // dAᵀ = xᵀ · dh: the wide x is the operand that tiles run over.
  Gemm to_a;
  to_a.a = x_TK, to_a.a_turned = true;
  to_a.b = dh_TR;
  to_a.add = true;
  to_a.c = da_RK, to_a.c_turned = true;
  RETURN_IF_ERROR(GemmInPieces(ctx, queue, to_a));
  if (dx_TK.empty()) return absl::OkStatus();

  RETURN_IF_ERROR(CheckView("dx_TK", dx_TK, DType::kF32, t, k));
  Gemm to_x;
  to_x.a = dh_TR, to_x.b = a_RK;
  to_x.add = true;
  to_x.c = dx_TK;
  return GemmDirect(queue, to_x);
}

}  // namespace tundra::cuda
