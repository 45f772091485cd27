// Checks of operands' shapes and types, shared by the backends. One line an operand:
//   RETURN_IF_ERROR(CheckView("y_TN", y_TN, DType::kF32, t, n));
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "common/status.h"
#include "worker/device/view.h"

namespace tundra {

namespace internal {
absl::Status ViewMismatch(std::string_view name, const ConstView& view, std::string_view dtype,
                          int64_t rows, int64_t cols);
}  // namespace internal

// kInvalidArgument unless the view has that type and shape, rows that don't overlap, and
// memory (unless it has no elements).
inline absl::Status CheckView(std::string_view name, const ConstView& view, DType dtype,
                              int64_t rows, int64_t cols) {
  if (view.dtype == dtype && view.rows == rows && view.cols == cols &&
      (view.stride >= cols || rows <= 1) && (view.data != nullptr || rows * cols == 0)) {
    return absl::OkStatus();
  }
  return internal::ViewMismatch(name, view, DTypeName(dtype), rows, cols);
}

// As CheckView, for weights: f32 or bf16.
inline absl::Status CheckWeight(std::string_view name, const ConstView& view, int64_t rows,
                                int64_t cols) {
  if (view.dtype == DType::kF32 || view.dtype == DType::kBF16) {
    return CheckView(name, view, view.dtype, rows, cols);
  }
  return internal::ViewMismatch(name, view, "f32 or bf16", rows, cols);
}

inline absl::Status CheckVector(std::string_view name, const ConstView& view, DType dtype,
                                int64_t n) {
  return CheckView(name, view, dtype, 1, n);
}

}  // namespace tundra
