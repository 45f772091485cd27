#include "worker/device/arena.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace tundra {

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    Reset();
    device_ = std::exchange(other.device_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

void Buffer::Reset() {
  if (device_ != nullptr && data_ != nullptr) device_->Free(data_, size_);
  device_ = nullptr;
  data_ = nullptr;
  size_ = 0;
}

View Buffer::Matrix(DType dtype, int64_t rows, int64_t cols, size_t offset_bytes) const {
  const View view = View::Matrix(static_cast<std::byte*>(data_) + offset_bytes, dtype, rows, cols);
  TUNDRA_CHECK(offset_bytes <= size_ && view.bytes() <= size_ - offset_bytes)
      << rows << " x " << cols << " " << DTypeName(dtype) << " at " << offset_bytes
      << " in a buffer of " << size_ << " bytes";
  return view;
}

absl::StatusOr<Arena> Arena::Create(Device* device, size_t capacity_bytes) {
  ASSIGN_OR_RETURN(Buffer buffer, device->Allocate(capacity_bytes));
  return Arena(std::move(buffer));
}

absl::StatusOr<void*> Arena::AllocateBytes(size_t bytes) {
  const size_t begin = (used_ + kAlignment - 1) / kAlignment * kAlignment;
  const size_t end = begin + bytes;
  if (end < begin) return absl::ResourceExhaustedError("scratch size overflows");
  peak_ = std::max(peak_, end);
  if (end > buffer_.size()) {
    return absl::ResourceExhaustedError(absl::StrCat("an arena of ", buffer_.size(), " bytes with ",
                                                     used_, " in use has no room for ", bytes,
                                                     " more; give it at least ", end));
  }
  used_ = end;
  return static_cast<std::byte*>(buffer_.data()) + begin;
}

absl::StatusOr<View> Arena::Allocate(DType dtype, int64_t rows, int64_t cols) {
  if (rows < 0 || cols < 0 ||
      (cols > 0 && rows > std::numeric_limits<int64_t>::max() / 16 / cols)) {
    return absl::InvalidArgumentError(absl::StrCat("bad shape ", rows, " x ", cols));
  }
  ASSIGN_OR_RETURN(void* data, AllocateBytes(static_cast<size_t>(rows * cols) * DTypeSize(dtype)));
  return View::Matrix(data, dtype, rows, cols);
}

}  // namespace tundra
