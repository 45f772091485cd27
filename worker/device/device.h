// A device: where memory lies and work runs. The CPU is one; a GPU is another,
// from a shared library that is opened at run time.
//
// Work is ordered on a Stream. On a GPU a call returns before its work is done;
// on a CPU it has been done. Code that is written for the first rule (read results
// on the host only after CopyOut and Synchronize) is right on both.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/view.h"

namespace tundra {

class Arena;
class Device;

enum class DeviceKind { kCpu, kCuda };

// A queue of work: what is put on one stream runs in that order. Made by
// Device::CreateStream, destroyed before its device. Calls on one stream come from
// one thread at a time.
class Stream {
 public:
  virtual ~Stream() = default;
  // The driver's own handle, for libraries that take one: a cudaStream_t, null on a CPU.
  virtual void* native() const { return nullptr; }
};

// What an operation needs besides its operands. Passed by value; owns nothing.
// Every stream has a scratch arena of its own: operations take memory from it and
// give it back when they return, which is safe because later work on the same
// stream runs later.
struct Ctx {
  Stream* stream = nullptr;
  Arena* scratch = nullptr;
};

// Device memory that frees itself. Aligned to 64 bytes or more. Not zeroed.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device* device, void* data, size_t size) : device_(device), data_(data), size_(size) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { Reset(); }

  void* data() const { return data_; }
  size_t size() const { return size_; }  // bytes
  void Reset();

  // The whole buffer or its beginning as a matrix of contiguous rows. It must fit.
  View Matrix(DType dtype, int64_t rows, int64_t cols, size_t offset_bytes = 0) const;

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
  size_t size_ = 0;
};

// Work of one stream that was captured and can be put on it again as one piece: the calls
// with the arguments they had then, so on the same memory. Made by Device::EndCapture, used
// with its device only, and destroyed when nothing of it runs any more.
class Graph {
 public:
  virtual ~Graph() = default;
};

// Thread-safe, except that one stream is used by one thread at a time.
// Outlives its buffers, streams, graphs and arenas.
class Device {
 public:
  virtual ~Device() = default;

  virtual DeviceKind kind() const = 0;
  // For people: "AMD EPYC (avx2), 2 threads".
  virtual std::string name() const = 0;
  // What must be equal for equal bits (engine.md): instruction set, engine numerics
  // version and oneDNN version of a CPU. It does not depend on the threads.
  virtual std::string numerics_class() const = 0;
  // Whether products in bf16 run in bf16. Where they don't, a bf16 job computes in
  // f32 from bf16 weights.
  virtual bool native_bf16() const = 0;
  // Bytes of memory that could still be allocated, as far as can be told.
  virtual size_t available_bytes() const = 0;

  // kResourceExhausted when the memory is not there. 0 bytes is a valid size.
  virtual absl::StatusOr<Buffer> Allocate(size_t bytes) = 0;
  virtual absl::StatusOr<std::unique_ptr<Stream>> CreateStream() = 0;

  // Host to device, device to host, within the device. Ordered on the stream; host
  // memory must stay as it is until Synchronize.
  virtual absl::Status CopyIn(Ctx ctx, void* device_to, const void* host_from, size_t bytes) = 0;
  virtual absl::Status CopyOut(Ctx ctx, void* host_to, const void* device_from, size_t bytes) = 0;
  virtual absl::Status CopyWithin(Ctx ctx, void* to, const void* from, size_t bytes) = 0;
  virtual absl::Status Zero(Ctx ctx, void* data, size_t bytes) = 0;

  // Returns when everything on the stream is done; errors of that work come out here, those
  // of values that an operation found out of range too (kInvalidArgument).
  virtual absl::Status Synchronize(Ctx ctx) = 0;
  // Work put on `later` from now on starts after what `earlier` holds now.
  virtual absl::Status Order(Stream* earlier, Stream* later) = 0;

  // Whether work can be captured: not on a CPU, where a call costs nothing to repeat. The three
  // calls below are kUnimplemented then.
  virtual bool has_graphs() const { return false; }
  // From here to EndCapture what this thread puts on the stream is captured and does not run.
  // That may be operations, CopyWithin and Zero; copies from and to the host, Synchronize and
  // Order fail with kFailedPrecondition.
  virtual absl::Status BeginCapture(Ctx /*ctx*/) { return NoGraphs(); }
  // After an error in between, too: it ends the capture. kInternal when that was spoiled.
  virtual absl::StatusOr<std::unique_ptr<Graph>> EndCapture(Ctx /*ctx*/) { return NoGraphs(); }
  // Puts the captured work on the stream.
  virtual absl::Status Launch(Ctx /*ctx*/, const Graph& /*graph*/) { return NoGraphs(); }

 private:
  friend class Buffer;
  static absl::Status NoGraphs() { return absl::UnimplementedError("this device has no graphs"); }
  virtual void Free(void* data, size_t bytes) = 0;
};

struct CpuOptions {
  // Threads of every operation of this device. At least 1.
  int threads = 1;
  // The newest instruction set that may be used, to fix the numerics class on
  // machines that differ: "" (all there is), "sse41", "avx2", "avx512",
  // "avx512_bf16" or "amx". Holds for the whole process and must come before its first
  // oneDNN call; a later device that asks for another one gets kFailedPrecondition.
  // When empty, the environment variable TUNDRA_CPU_MAX_ISA is read.
  std::string max_isa;
};

// kInvalidArgument for threads < 1 or an unknown max_isa.
absl::StatusOr<std::unique_ptr<Device>> CreateCpuDevice(const CpuOptions& options);

// The version of the engine's own arithmetic: raised whenever a change alters the
// bits of any result.
inline constexpr int kEngineNumericsVersion = 2;

}  // namespace tundra
