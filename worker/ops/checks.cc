#include "worker/ops/checks.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace tundra::internal {

absl::Status ViewMismatch(std::string_view name, const ConstView& view, std::string_view dtype,
                          int64_t rows, int64_t cols) {
  return absl::InvalidArgumentError(absl::StrCat(
      std::string(name), " is ", std::string(DTypeName(view.dtype)), " ", view.rows, " x ",
      view.cols, " with stride ", view.stride, view.data == nullptr ? " and no memory" : "",
      "; it must be ", std::string(dtype), " ", rows, " x ", cols));
}

}  // namespace tundra::internal
