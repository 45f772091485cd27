// Products with frozen weights: which library runs them, and in which layout.
//
//                      f32 (any machine)                bf16 where the machine has it
//   runs on            Gemm                             oneDNN matmul
//   plain weight       f32, or widened from bf16        bf16 (f32 is narrowed in scratch)
//                      while it is packed
//   prepared weight    panels for Gemm                  oneDNN's tag, bf16
#include "absl/strings/str_cat.h"
#include "worker/ops/checks.h"
#include "worker/ops/cpu_ops.h"
#include "worker/ops/gemm_cpu.h"
#include "worker/ops/onednn_matmul.h"

namespace tundra {
namespace {

// B [inner, cols] of a product: Wᵀ forward, W backward.
void SetWeight(GemmArgs& args, const ConstView& w_NK, Direction direction) {
  args.b = w_NK.data;
  args.b_bf16 = w_NK.dtype == DType::kBF16;
  args.b_k = direction == Direction::kForward ? 1 : w_NK.stride;
  args.b_n = direction == Direction::kForward ? w_NK.stride : 1;
}

size_t Rounded(size_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

}  // namespace

bool CpuOps::RunsInBf16(Precision precision) const {
  return precision == Precision::kBF16 && device_->native_bf16();
}

bool CpuOps::UsesOneDnn(Precision precision) const {
  return RunsInBf16(precision) || products_ == ProductBackend::kOneDnn;
}

size_t CpuOps::PreparedBytes(int64_t n, int64_t k, DType, Direction direction,
                             Precision precision) const {
  return UsesOneDnn(precision)
             ? onednn_->PackedBytes(n, k, direction, RunsInBf16(precision))
             : (direction == Direction::kForward ? PackedGemmBytes(n, k) : PackedGemmBytes(k, n));
}

absl::StatusOr<FrozenWeight> CpuOps::PrepareWeight(Ctx ctx, ConstView w_NK, Direction direction,
                                                   Precision precision, void* storage,
                                                   size_t storage_bytes) {
  RETURN_IF_ERROR(CheckWeight("w_NK", w_NK, w_NK.rows, w_NK.cols));
  const size_t needed = PreparedBytes(w_NK.rows, w_NK.cols, w_NK.dtype, direction, precision);
  if (storage_bytes < needed || (needed > 0 && storage == nullptr)) {
    return absl::InvalidArgumentError(absl::StrCat("a prepared weight of ", w_NK.rows, " x ",
                                                   w_NK.cols, " takes ", needed, " bytes, not ",
                                                   storage_bytes));
  }
  FrozenWeight prepared;
  prepared.layout = FrozenWeight::Layout::kPrepared;
  prepared.direction = direction;
  prepared.precision = precision;
  const DType stored = RunsInBf16(precision) ? DType::kBF16 : DType::kF32;
  prepared.view_NK = ConstView::Matrix(storage, stored, w_NK.rows, w_NK.cols);
  if (!UsesOneDnn(precision)) {
    GemmArgs args;
    args.n = direction == Direction::kForward ? w_NK.rows : w_NK.cols;
    args.k = direction == Direction::kForward ? w_NK.cols : w_NK.rows;
    SetWeight(args, w_NK, direction);
    PackGemmB(args, threads(), storage);
    return prepared;
  }
  ArenaScope scope(ctx.scratch);
  if (w_NK.dtype != stored) {
    ASSIGN_OR_RETURN(const View cast, ctx.scratch->Allocate(stored, w_NK.rows, w_NK.cols));
    RETURN_IF_ERROR(Cast(ctx, w_NK, cast));
    w_NK = cast;
  }
  RETURN_IF_ERROR(onednn_->Pack(w_NK, direction, storage));
  return prepared;
}

size_t CpuOps::PrepareScratchBytes(int64_t n, int64_t k, DType stored, Precision precision) const {
  const DType laid_out = RunsInBf16(precision) ? DType::kBF16 : DType::kF32;
  if (!UsesOneDnn(precision) || stored == laid_out) return 0;
  return Rounded(static_cast<size_t>(n * k) * DTypeSize(laid_out));
}

size_t CpuOps::MatmulScratchBytes(int64_t t, const FrozenWeight& w_NK, Precision precision) const {
  const int64_t n = w_NK.view_NK.rows, k = w_NK.view_NK.cols;
  if (!UsesOneDnn(precision)) return GemmWorkspaceBytes(threads());
  const DType type = RunsInBf16(precision) ? DType::kBF16 : DType::kF32;
  size_t bytes = 0;
  if (type == DType::kBF16) {
    bytes += Rounded(static_cast<size_t>(t * std::max(n, k)) * sizeof(BF16));
  }
  if (w_NK.view_NK.dtype != type) {
    bytes += Rounded(static_cast<size_t>(n * k) * DTypeSize(type));
  }
  return bytes;
}

absl::Status CpuOps::FrozenMatmul(Ctx ctx, ConstView x_TK, const FrozenWeight& w_NK,
                                  Precision precision, Write write, View y_TN) {
  RETURN_IF_ERROR(CheckView("x_TK", x_TK, DType::kF32, x_TK.rows, w_NK.view_NK.cols));
  RETURN_IF_ERROR(CheckView("y_TN", y_TN, DType::kF32, x_TK.rows, w_NK.view_NK.rows));
  return FrozenProduct(ctx, Direction::kForward, x_TK, w_NK, precision, write, y_TN);
}

absl::Status CpuOps::FrozenMatmulBackward(Ctx ctx, ConstView dy_TN, const FrozenWeight& w_NK,
                                          Precision precision, Write write, View dx_TK) {
  RETURN_IF_ERROR(CheckView("dy_TN", dy_TN, DType::kF32, dy_TN.rows, w_NK.view_NK.rows));
  RETURN_IF_ERROR(CheckView("dx_TK", dx_TK, DType::kF32, dy_TN.rows, w_NK.view_NK.cols));
  return FrozenProduct(ctx, Direction::kBackward, dy_TN, w_NK, precision, write, dx_TK);
}

absl::Status CpuOps::FrozenProduct(Ctx ctx, Direction direction, ConstView in,
                                   const FrozenWeight& w_NK, Precision precision, Write write,
                                   View out) {
  RETURN_IF_ERROR(CheckWeight("w_NK", w_NK.view_NK, w_NK.view_NK.rows, w_NK.view_NK.cols));
  const bool prepared = w_NK.layout == FrozenWeight::Layout::kPrepared;
  const bool bf16 = RunsInBf16(precision);
  if (prepared && (w_NK.direction != direction || RunsInBf16(w_NK.precision) != bf16)) {
    return absl::InvalidArgumentError(
        "w_NK is prepared for another direction or precision than this product's");
  }
  if (in.rows == 0) return absl::OkStatus();
  ArenaScope scope(ctx.scratch);
  if (UsesOneDnn(precision)) return OneDnnProduct(ctx, direction, in, w_NK, bf16, write, out);

  ASSIGN_OR_RETURN(void* work, ctx.scratch->AllocateBytes(GemmWorkspaceBytes(threads())));
  GemmArgs args;
  args.m = in.rows;
  args.n = out.cols;
  args.k = in.cols;
  args.a = in.row<float>(0);
  args.a_m = in.stride;
  SetWeight(args, w_NK.view_NK, direction);
  args.packed = prepared;
  args.c = out.row<float>(0);
  args.c_m = out.stride;
  args.accumulate = write == Write::kAdd;
  Gemm(args, threads(), work);
  return absl::OkStatus();
}

absl::Status CpuOps::OneDnnProduct(Ctx ctx, Direction direction, ConstView in,
                                   const FrozenWeight& w_NK, bool bf16, Write write, View out) {
  const DType type = bf16 ? DType::kBF16 : DType::kF32;
  ConstView weight = w_NK.view_NK;
  if (in.dtype != type) {
    ASSIGN_OR_RETURN(const View cast, ctx.scratch->Allocate(type, in.rows, in.cols));
    RETURN_IF_ERROR(Cast(ctx, in, cast));
    in = cast;
  }
  if (weight.dtype != type) {
    ASSIGN_OR_RETURN(const View cast, ctx.scratch->Allocate(type, weight.rows, weight.cols));
    RETURN_IF_ERROR(Cast(ctx, weight, cast));
    weight = cast;
  }
  OneDnnMatmul::Call call;
  call.bf16 = bf16;
  call.t = in.rows;
  call.inner = in.cols;
  call.cols = out.cols;
  call.in = in.data;
  call.in_stride = in.stride;
  call.weight = weight.data;
  call.weight_stride = weight.stride;
  call.direction = direction;
  call.packed = w_NK.layout == FrozenWeight::Layout::kPrepared;
  call.accumulate = write == Write::kAdd;
  call.out = out.row<float>(0);
  call.out_stride = out.stride;
  return onednn_->Run(call);
}

}  // namespace tundra
