// Products with frozen weights. The weight stays row-major as it lies in the base and serves
// both directions; what is prepared is only a copy in the type that products take.
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "worker/cuda/cuda_ops.h"
#include "worker/ops/checks.h"

namespace tundra::cuda {
namespace {

size_t Rounded(size_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

DType TypeOf(Precision precision) {
  return precision == Precision::kBF16 ? DType::kBF16 : DType::kF32;
}

// Elements from one row of a narrowed operand to the next: whole 16 bytes, which tensor
// cores need.
int64_t CastStride(int64_t cols) { return (cols + 7) / 8 * 8; }

size_t CastBytes(int64_t rows, int64_t cols, DType type) {
  return Rounded(static_cast<size_t>(rows * CastStride(cols)) * DTypeSize(type));
}

// Room for a copy of rows x cols in another type.
absl::StatusOr<View> CastRoom(Arena* scratch, int64_t rows, int64_t cols, DType type) {
  const int64_t stride = CastStride(cols);
  ASSIGN_OR_RETURN(const View room, scratch->Allocate(type, rows, stride));
  return View(room.data, type, rows, cols, stride);
}

}  // namespace

size_t CudaOps::PreparedBytes(int64_t n, int64_t k, DType stored, Direction,
                              Precision precision) const {
  const DType type = TypeOf(precision);
  return stored == type ? 0 : static_cast<size_t>(n * k) * DTypeSize(type);
}

absl::StatusOr<FrozenWeight> CudaOps::PrepareWeight(Ctx ctx, ConstView w_NK, Direction direction,
                                                    Precision precision, void* storage,
                                                    size_t storage_bytes) {
  RETURN_IF_ERROR(CheckWeight("w_NK", w_NK, w_NK.rows, w_NK.cols));
  const size_t needed = PreparedBytes(w_NK.rows, w_NK.cols, w_NK.dtype, direction, precision);
  if (needed == 0) {
    return absl::InvalidArgumentError(
        "w_NK has the type of this precision's products already; use the plain weight");
  }
  if (storage_bytes < needed || storage == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("a prepared weight of ", w_NK.rows, " x ",
                                                   w_NK.cols, " takes ", needed, " bytes, not ",
                                                   storage_bytes));
  }
  const View prepared = View::Matrix(storage, TypeOf(precision), w_NK.rows, w_NK.cols);
  RETURN_IF_ERROR(Cast(ctx, w_NK, prepared));
  return FrozenWeight{prepared, FrozenWeight::Layout::kPrepared, direction, precision};
}

size_t CudaOps::PrepareScratchBytes(int64_t, int64_t, DType, Precision) const { return 0; }

size_t CudaOps::MatmulScratchBytes(int64_t t, const FrozenWeight& w_NK, Precision precision) const {
  const int64_t n = w_NK.view_NK.rows, k = w_NK.view_NK.cols;
  const DType type = TypeOf(precision);
  size_t bytes = kProductWorkspace;
  if (type == DType::kBF16) bytes += CastBytes(t, std::max(n, k), type);
  if (w_NK.view_NK.dtype != type) bytes += CastBytes(n, k, type);
  return bytes;
}

absl::Status CudaOps::FrozenMatmul(Ctx ctx, ConstView x_TK, const FrozenWeight& w_NK,
                                   Precision precision, Write write, View y_TN) {
  RETURN_IF_ERROR(CheckView("x_TK", x_TK, DType::kF32, x_TK.rows, w_NK.view_NK.cols));
  RETURN_IF_ERROR(CheckView("y_TN", y_TN, DType::kF32, x_TK.rows, w_NK.view_NK.rows));
  return FrozenProduct(ctx, Direction::kForward, x_TK, w_NK, precision, write, y_TN);
}

absl::Status CudaOps::FrozenMatmulBackward(Ctx ctx, ConstView dy_TN, const FrozenWeight& w_NK,
                                           Precision precision, Write write, View dx_TK) {
  RETURN_IF_ERROR(CheckView("dy_TN", dy_TN, DType::kF32, dy_TN.rows, w_NK.view_NK.rows));
  RETURN_IF_ERROR(CheckView("dx_TK", dx_TK, DType::kF32, dy_TN.rows, w_NK.view_NK.cols));
  return FrozenProduct(ctx, Direction::kBackward, dy_TN, w_NK, precision, write, dx_TK);
}

absl::Status CudaOps::FrozenProduct(Ctx ctx, Direction direction, ConstView in,
                                    const FrozenWeight& w_NK, Precision precision, Write write,
                                    View out) {
  ConstView weight = w_NK.view_NK;
  RETURN_IF_ERROR(CheckWeight("w_NK", weight, weight.rows, weight.cols));
  if (w_NK.layout == FrozenWeight::Layout::kPrepared &&
      (w_NK.direction != direction || w_NK.precision != precision)) {
    return absl::InvalidArgumentError(
        "w_NK is prepared for another direction or precision than this product's");
  }
  if (in.rows == 0) return absl::OkStatus();
  RETURN_IF_ERROR(device_->MakeCurrent());
  const DType type = TypeOf(precision);
  ArenaScope scope(ctx.scratch);
  if (in.dtype != type) {
    ASSIGN_OR_RETURN(const View cast, CastRoom(ctx.scratch, in.rows, in.cols, type));
    RETURN_IF_ERROR(Cast(ctx, in, cast));
    in = cast;
  }
  if (weight.dtype != type) {
    ASSIGN_OR_RETURN(const View cast, CastRoom(ctx.scratch, weight.rows, weight.cols, type));
    RETURN_IF_ERROR(Cast(ctx, weight, cast));
    weight = cast;
  }
  Product product;
  product.bf16 = type == DType::kBF16;
  product.direction = direction;
  product.accumulate = write == Write::kAdd;
  product.t = in.rows, product.inner = in.cols, product.cols = out.cols;
  product.in = in.data, product.in_stride = in.stride;
  product.weight = weight.data, product.weight_stride = weight.stride;
  product.out = out.row<float>(0), product.out_stride = out.stride;
  ASSIGN_OR_RETURN(product.workspace, ctx.scratch->AllocateBytes(kProductWorkspace));
  return products_->Run(static_cast<CudaStream*>(ctx.stream)->handle(), product);
}

}  // namespace tundra::cuda
