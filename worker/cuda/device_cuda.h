// A CUDA device: the type behind Device that the CUDA operations know.
//
// Host memory need not be pinned: copies go through pinned slots of the stream, so that
// CopyIn returns when the bytes have left the caller's memory and CopyOut puts them there
// when somebody waits. Nothing is allocated after a stream has been made.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/cuda/runtime.h"
#include "worker/device/device.h"

namespace tundra::cuda {

// What a kernel found wrong with the values (not the shapes) of its operands. Such an
// error comes out of the next Synchronize of the stream as kInvalidArgument.
// The last of these is told when there are several.
enum class Fault : uint32_t {
  kNone,
  kToken,
  kIndex,
  kPosition,
  kTargetCount,
  kTarget,
  kOffsets,
  kTensor,
};

// One word that kernels raise to the largest of what they find: the kind of fault above 28
// bits of the place, counted down so that the first place wins.
inline constexpr uint32_t kFaultPlaceBits = 28;
constexpr uint32_t FaultWord(Fault fault, int64_t place) {
  constexpr int64_t kMost = (int64_t{1} << kFaultPlaceBits) - 1;
  const int64_t held = place < kMost ? place : kMost;
  return static_cast<uint32_t>(fault) << kFaultPlaceBits | static_cast<uint32_t>(kMost - held);
}

class CudaGraph final : public Graph {
 public:
  CudaGraph(int ordinal, cudaGraphExec_t handle) : ordinal_(ordinal), handle_(handle) {}
  ~CudaGraph() override;
  cudaGraphExec_t handle() const { return handle_; }

 private:
  int ordinal_;
  cudaGraphExec_t handle_;
};

class CudaStream final : public Stream {
 public:
  static absl::StatusOr<std::unique_ptr<CudaStream>> Create(int ordinal);
  ~CudaStream() override;

  cudaStream_t handle() const { return handle_; }
  void* native() const override { return handle_; }
  // The stream's FaultWord as kernels see it.
  uint32_t* fault() const { return device_fault_; }

  absl::Status CopyIn(void* device_to, const void* host_from, size_t bytes);
  absl::Status CopyOut(void* host_to, const void* device_from, size_t bytes);
  absl::Status Synchronize();
  // What is put on this stream from now on runs after what `earlier` holds now.
  absl::Status RunAfter(const CudaStream& earlier);
  absl::Status BeginCapture();
  absl::StatusOr<std::unique_ptr<CudaGraph>> EndCapture();

 private:
  explicit CudaStream(int ordinal) : ordinal_(ordinal) {}

  // Pinned memory that one copy at a time passes through.
  struct Slot {
    char* memory = nullptr;
    cudaEvent_t passed = nullptr;
    bool busy = false;        // `passed` has been recorded and not been waited for
    void* host_to = nullptr;  // where a CopyOut's bytes are to go, and how many
    size_t bytes = 0;
  };
  static constexpr size_t kSlotBytes = size_t{1} << 20;
  static constexpr size_t kSlots = 4;

  absl::Status Open();
  // The next slot, empty.
  absl::StatusOr<Slot*> TakeSlot();
  // Waits for the slot's copy and delivers a CopyOut.
  absl::Status Empty(Slot& slot);
  absl::Status TakeFault();
  // kFailedPrecondition while a capture runs.
  absl::Status NotCapturing(const char* what) const;

  int ordinal_;
  bool capturing_ = false;
  cudaStream_t handle_ = nullptr;
  cudaEvent_t order_ = nullptr;
  char* pinned_ = nullptr;  // the slots' memory, and behind it the fault word
  volatile uint32_t* fault_ = nullptr;
  uint32_t* device_fault_ = nullptr;
  std::array<Slot, kSlots> slots_;
  size_t next_slot_ = 0;
};

class CudaDevice final : public Device {
 public:
  // kNotFound when there is no such device, kFailedPrecondition when it is too old; and the
  // errors of ChooseAttention.
  static absl::StatusOr<std::unique_ptr<Device>> Create(int ordinal);

  int ordinal() const { return ordinal_; }
  // What ChooseAttention said when the device was made.
  const std::string& attention_library() const { return attention_library_; }
  // Makes the device the calling thread's: before any call of the runtime.
  absl::Status MakeCurrent() const;

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string name() const override;
  std::string numerics_class() const override;
  bool native_bf16() const override { return true; }
  size_t available_bytes() const override;
  absl::StatusOr<Buffer> Allocate(size_t bytes) override;
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override;
  absl::Status CopyIn(Ctx ctx, void* device_to, const void* host_from, size_t bytes) override;
  absl::Status CopyOut(Ctx ctx, void* host_to, const void* device_from, size_t bytes) override;
  absl::Status CopyWithin(Ctx ctx, void* to, const void* from, size_t bytes) override;
  absl::Status Zero(Ctx ctx, void* data, size_t bytes) override;
  absl::Status Synchronize(Ctx ctx) override;
  absl::Status Order(Stream* earlier, Stream* later) override;
  bool has_graphs() const override { return true; }
  absl::Status BeginCapture(Ctx ctx) override;
  absl::StatusOr<std::unique_ptr<Graph>> EndCapture(Ctx ctx) override;
  absl::Status Launch(Ctx ctx, const Graph& graph) override;

 private:
  CudaDevice(int ordinal, const cudaDeviceProp& properties);
  void Free(void* data, size_t bytes) override;

  int ordinal_;
  std::string model_;
  int multiprocessors_;
  int compute_;  // 80 for compute capability 8.0
  std::string attention_library_;
};

}  // namespace tundra::cuda
