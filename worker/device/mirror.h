// A host array that a device works on. Where the device has memory of its own the array has
// a copy there, and Push and Pull carry it over; on a CPU the device works on the array
// itself, and nothing is copied or held twice.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/device/device.h"

namespace tundra {

// Borrows both. The array's contents may change, its size may not.
template <typename T>
class Mirror {
 public:
  // Contents of the device's copy are unspecified until Push.
  // Errors: kResourceExhausted when the device lacks the memory.
  static absl::StatusOr<Mirror> Create(Device* device, std::vector<T>* host) {
    Mirror mirror;
    mirror.device_ = device;
    mirror.host_ = host;
    mirror.size_ = host->size();
    if (device->kind() != DeviceKind::kCpu) {
      ASSIGN_OR_RETURN(mirror.memory_, device->Allocate(host->size() * sizeof(T)));
    }
    return mirror;
  }

  // Elements [begin, begin + count) as the device sees them: a vector.
  View view(int64_t begin, int64_t count) {
    TUNDRA_CHECK(host_->size() == size_) << host_->size() << " elements, not " << size_;
    T* data = direct() ? host_->data() : static_cast<T*>(memory_.data());
    return View::Vector(data + begin, DTypeOf<T>(), count);
  }
  View view() { return view(0, static_cast<int64_t>(size_)); }

  // Host to device, device to host. The host may touch the array after Push returns, and
  // reads what the device did after Pull returns.
  absl::Status Push(Ctx ctx) {
    if (direct() || size_ == 0) return absl::OkStatus();
    RETURN_IF_ERROR(device_->CopyIn(ctx, memory_.data(), host_->data(), size_ * sizeof(T)));
    return device_->Synchronize(ctx);
  }
  absl::Status Pull(Ctx ctx) {
    if (direct()) return device_->Synchronize(ctx);
    if (size_ > 0) {
      RETURN_IF_ERROR(device_->CopyOut(ctx, host_->data(), memory_.data(), size_ * sizeof(T)));
    }
    return device_->Synchronize(ctx);
  }

  Mirror() = default;

 private:
  bool direct() const { return device_->kind() == DeviceKind::kCpu; }

  Device* device_ = nullptr;
  std::vector<T>* host_ = nullptr;
  size_t size_ = 0;
  Buffer memory_;  // none on a CPU
};

}  // namespace tundra
