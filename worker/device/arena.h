// A bump allocator over one buffer: all memory that a step takes and gives back.
// Nothing is freed one by one; a mark is taken and everything above it released.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/device.h"

namespace tundra {

// Not thread-safe: one thread, and the stream it works on.
class Arena {
 public:
  static constexpr size_t kAlignment = 64;  // bytes, of every allocation

  // kResourceExhausted when the device lacks the memory.
  static absl::StatusOr<Arena> Create(Device* device, size_t capacity_bytes);

  Arena(Arena&&) = default;
  Arena& operator=(Arena&&) = default;

  // A matrix of contiguous rows, not zeroed. kResourceExhausted, naming the sizes,
  // when it doesn't fit.
  absl::StatusOr<View> Allocate(DType dtype, int64_t rows, int64_t cols);
  absl::StatusOr<void*> AllocateBytes(size_t bytes);

  // Where the next allocation starts; Release(mark) gives back all that came after.
  size_t mark() const { return used_; }
  void Release(size_t mark) { used_ = std::min(used_, mark); }

  size_t used() const { return used_; }
  size_t capacity() const { return buffer_.size(); }
  // The most that was ever in use since the arena or ResetPeak, also counting an
  // allocation that failed: what the arena would have had to be.
  size_t peak() const { return peak_; }
  void ResetPeak() { peak_ = used_; }

 private:
  explicit Arena(Buffer buffer) : buffer_(std::move(buffer)) {}

  Buffer buffer_;
  size_t used_ = 0;
  size_t peak_ = 0;
};

// Releases on leaving the block what was allocated since it was made.
class ArenaScope {
 public:
  explicit ArenaScope(Arena* arena) : arena_(arena), mark_(arena->mark()) {}
  ~ArenaScope() { arena_->Release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena* arena_;
  size_t mark_;
};

}  // namespace tundra
