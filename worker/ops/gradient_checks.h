// Checks of the operands of Ops::AddGradients and MeanGradients, shared by the backends.
#pragma once

#include "absl/strings/str_cat.h"
#include "worker/ops/checks.h"
#include "worker/ops/ops.h"

namespace tundra {

// grad and sum are vectors of all tensors' elements, scales_S has a number a tensor.
inline absl::Status CheckTensors(const Tensors& tensors, const ConstView& grad,
                                 const ConstView& scales_S, const ConstView& sum) {
  if (tensors.count < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(tensors.count, " tensors; 0 or more are needed"));
  }
  RETURN_IF_ERROR(CheckVector("offsets", tensors.offsets, DType::kI64, tensors.count + 1));
  RETURN_IF_ERROR(CheckVector("grad", grad, DType::kF32, grad.cols));
  RETURN_IF_ERROR(CheckVector("sum", sum, DType::kI64, grad.cols));
  return CheckVector("scales_S", scales_S, DType::kF64, tensors.count);
}

inline absl::Status CheckDivisor(double divisor) {
  if (divisor > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("divisor ", divisor, " must be positive"));
}

}  // namespace tundra
