// A device that counts the memory taken from it, whatever its kind: every allocation of
// the engine goes through Device::Allocate.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "worker/device/device.h"

namespace tundra::bench {

// Forwards to `inner`, which outlives it. Thread-safe as every device.
class CountingDevice : public Device {
 public:
  explicit CountingDevice(Device* inner) : inner_(inner) {}

  // Bytes in use now, and the most there were.
  size_t allocated_bytes() const;
  size_t peak_bytes() const;

  DeviceKind kind() const override { return inner_->kind(); }
  std::string name() const override { return inner_->name(); }
  std::string numerics_class() const override { return inner_->numerics_class(); }
  bool native_bf16() const override { return inner_->native_bf16(); }
  size_t available_bytes() const override { return inner_->available_bytes(); }
  absl::StatusOr<Buffer> Allocate(size_t bytes) override;
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override { return inner_->CreateStream(); }
  absl::Status CopyIn(Ctx ctx, void* device_to, const void* host_from, size_t bytes) override {
    return inner_->CopyIn(ctx, device_to, host_from, bytes);
  }
  absl::Status CopyOut(Ctx ctx, void* host_to, const void* device_from, size_t bytes) override {
    return inner_->CopyOut(ctx, host_to, device_from, bytes);
  }
  absl::Status CopyWithin(Ctx ctx, void* to, const void* from, size_t bytes) override {
    return inner_->CopyWithin(ctx, to, from, bytes);
  }
  absl::Status Zero(Ctx ctx, void* data, size_t bytes) override {
    return inner_->Zero(ctx, data, bytes);
  }
  absl::Status Synchronize(Ctx ctx) override { return inner_->Synchronize(ctx); }
  absl::Status Order(Stream* earlier, Stream* later) override {
    return inner_->Order(earlier, later);
  }
  bool has_graphs() const override { return graphs_ && inner_->has_graphs(); }
  absl::Status BeginCapture(Ctx ctx) override { return inner_->BeginCapture(ctx); }
  absl::StatusOr<std::unique_ptr<Graph>> EndCapture(Ctx ctx) override {
    return inner_->EndCapture(ctx);
  }
  absl::Status Launch(Ctx ctx, const Graph& graph) override { return inner_->Launch(ctx, graph); }

  // Off while operations are timed one by one, which waits for each.
  void set_graphs(bool on) { graphs_ = on; }

 private:
  void Free(void* data, size_t bytes) override;

  Device* const inner_;
  bool graphs_ = true;
  mutable absl::Mutex mu_;
  // The inner device's buffers, by address.
  std::map<void*, Buffer> buffers_ ABSL_GUARDED_BY(mu_);
  size_t allocated_ ABSL_GUARDED_BY(mu_) = 0;
  size_t peak_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace tundra::bench
