#include "bench/train/counting_device.h"

#include <algorithm>
#include <utility>

#include "common/status.h"

namespace tundra::bench {

size_t CountingDevice::allocated_bytes() const {
  absl::MutexLock lock(&mu_);
  return allocated_;
}

size_t CountingDevice::peak_bytes() const {
  absl::MutexLock lock(&mu_);
  return peak_;
}

absl::StatusOr<Buffer> CountingDevice::Allocate(size_t bytes) {
  ASSIGN_OR_RETURN(Buffer inner, inner_->Allocate(bytes));
  void* data = inner.data();
  if (data == nullptr) return inner;  // of 0 bytes
  absl::MutexLock lock(&mu_);
  buffers_[data] = std::move(inner);
  allocated_ += bytes;
  peak_ = std::max(peak_, allocated_);
  return Buffer(this, data, bytes);
}

void CountingDevice::Free(void* data, size_t bytes) {
  Buffer inner;  // freed when the lock is released
  absl::MutexLock lock(&mu_);
  const auto it = buffers_.find(data);
  inner = std::move(it->second);
  buffers_.erase(it);
  allocated_ -= bytes;
}

}  // namespace tundra::bench
