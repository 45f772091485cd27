// The CPU device's own type, for the CPU's operations only.
#pragma once

#include <memory>
#include <string>

#include "worker/device/cpu_isa.h"
#include "worker/device/device.h"

namespace tundra {

inline constexpr int kMaxCpuThreads = 1024;

class CpuDevice : public Device {
 public:
  CpuDevice(int threads, CpuIsa isa);

  int threads() const { return threads_; }
  CpuIsa isa() const { return isa_; }

  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::string name() const override;
  std::string numerics_class() const override;
  bool native_bf16() const override { return isa_ >= CpuIsa::kAvx512Bf16; }
  size_t available_bytes() const override;
  absl::StatusOr<Buffer> Allocate(size_t bytes) override;
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override;
  absl::Status CopyIn(Ctx ctx, void* device_to, const void* host_from, size_t bytes) override;
  absl::Status CopyOut(Ctx ctx, void* host_to, const void* device_from, size_t bytes) override;
  absl::Status CopyWithin(Ctx ctx, void* to, const void* from, size_t bytes) override;
  absl::Status Zero(Ctx ctx, void* data, size_t bytes) override;
  absl::Status Synchronize(Ctx ctx) override;
  absl::Status Order(Stream* earlier, Stream* later) override;

 private:
  void Free(void* data, size_t bytes) override;

  int threads_;
  CpuIsa isa_;
  std::string model_;
};

}  // namespace tundra
