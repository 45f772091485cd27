#include "tests/emulation/cuda_runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

using Work = std::function<std::string()>;

// Graph and executable graph in one: an executable shares the captured work.
struct EmulatedGraph {
  std::shared_ptr<std::vector<Work>> work = std::make_shared<std::vector<Work>>();
  int waiting = 0;  // launches that have not run
};

struct EmulatedStream {
  std::deque<Work> queue;
  std::shared_ptr<std::vector<Work>> capture;  // set while a capture runs
  uint64_t done = 0;                           // pieces of work run so far
  uint64_t put() const { return done + queue.size(); }
};

// What a stream held when the event was recorded. Shared, because an event may be recorded
// anew while somebody waits for the old recording.
struct EmulatedEvent {
  EmulatedStream* stream = nullptr;
  uint64_t after = 0;
};

namespace tundra::emulation {
namespace {

struct Allocation {
  size_t bytes = 0;
  bool mapped_host = false;
};

struct Runtime {
  std::recursive_mutex mutex;
  std::map<uintptr_t, Allocation> allocations;  // by address
  std::map<EmulatedStream*, std::unique_ptr<EmulatedStream>> streams;
  size_t device_bytes = SIZE_MAX;
  size_t used_bytes = 0;
  std::map<EmulatedGraph*, std::unique_ptr<EmulatedGraph>> graphs;
  int64_t graph_launches = 0;
  std::string kernel_error;
};

Runtime& TheRuntime() {
  static auto* runtime = new Runtime();
  return *runtime;
}

using Lock = std::lock_guard<std::recursive_mutex>;

// Runs what the stream holds until `after` pieces are done. The first error is kept for
// the next call that waits; unlike a device's, it is gone once its text has been read.
void RunUntil(EmulatedStream* stream, uint64_t after) {
  Runtime& runtime = TheRuntime();
  if (runtime.streams.count(stream) == 0) return;  // destroyed, so all of it was run
  while (stream->done < after && !stream->queue.empty()) {
    const std::function<std::string()> work = std::move(stream->queue.front());
    stream->queue.pop_front();
    ++stream->done;
    std::string error = work();
    if (!error.empty() && runtime.kernel_error.empty()) runtime.kernel_error = std::move(error);
  }
}

thread_local cudaError_t last_error = cudaSuccess;

// The error, remembered as the thread's last.
cudaError_t Failed(cudaError_t error) { return last_error = error; }

cudaError_t KernelErrorSoFar() {
  return TheRuntime().kernel_error.empty() ? cudaSuccess : Failed(cudaErrorLaunchFailure);
}

}  // namespace

void Enqueue(cudaStream_t stream, std::function<std::string()> work) {
  const Lock lock(TheRuntime().mutex);
  if (stream->capture != nullptr) {
    stream->capture->push_back(std::move(work));
  } else {
    stream->queue.push_back(std::move(work));
  }
}

int64_t GraphLaunches() {
  const Lock lock(TheRuntime().mutex);
  return TheRuntime().graph_launches;
}

bool IsDeviceMemory(const void* data, size_t bytes) {
  Runtime& runtime = TheRuntime();
  const Lock lock(runtime.mutex);
  const auto address = reinterpret_cast<uintptr_t>(data);
  auto next = runtime.allocations.upper_bound(address);
  if (next == runtime.allocations.begin()) return false;
  const auto& [begin, allocation] = *--next;
  return address + bytes <= begin + allocation.bytes;
}

void SetDeviceMemory(size_t bytes) {
  const Lock lock(TheRuntime().mutex);
  TheRuntime().device_bytes = bytes;
}

}  // namespace tundra::emulation

using tundra::emulation::Failed;
using tundra::emulation::KernelErrorSoFar;
using tundra::emulation::Lock;
using tundra::emulation::RunUntil;
using tundra::emulation::TheRuntime;

const char* cudaGetErrorString(cudaError_t error) {
  static thread_local std::string text;
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorLaunchFailure: {
      const Lock lock(TheRuntime().mutex);
      text = std::move(TheRuntime().kernel_error);
      TheRuntime().kernel_error.clear();
      return text.c_str();
    }
  }
  return "?";
}

const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess ? "cudaSuccess" : "emulated CUDA";
}

cudaError_t cudaGetLastError() { return std::exchange(tundra::emulation::last_error, cudaSuccess); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 8;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return device >= 0 && device < 8 ? cudaSuccess : Failed(cudaErrorInvalidValue);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int /*device*/) {
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated GPU");
  properties->major = 8;
  properties->multiProcessorCount = 1;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Lock lock(TheRuntime().mutex);
  // Without a limit, as much as a small card has.
  *total = std::min(TheRuntime().device_bytes, size_t{4} << 30);
  *free = *total - std::min(*total, TheRuntime().used_bytes);
  return cudaSuccess;
}

namespace {

cudaError_t AllocateMemory(void** data, size_t bytes, bool mapped_host) {
  auto& runtime = TheRuntime();
  const Lock lock(runtime.mutex);
  if (!mapped_host &&
      bytes > runtime.device_bytes - std::min(runtime.device_bytes, runtime.used_bytes)) {
    return Failed(cudaErrorMemoryAllocation);
  }
  // Exactly as long as asked for, so that an address sanitizer sees what lies beyond.
  if (posix_memalign(data, 256, bytes) != 0) return Failed(cudaErrorMemoryAllocation);
  runtime.allocations[reinterpret_cast<uintptr_t>(*data)] = {bytes, mapped_host};
  if (!mapped_host) runtime.used_bytes += bytes;
  return cudaSuccess;
}

cudaError_t FreeMemory(void* data, bool mapped_host) {
  auto& runtime = TheRuntime();
  const Lock lock(runtime.mutex);
  if (data == nullptr) return cudaSuccess;
  const auto found = runtime.allocations.find(reinterpret_cast<uintptr_t>(data));
  if (found == runtime.allocations.end() || found->second.mapped_host != mapped_host) {
    return Failed(cudaErrorInvalidValue);
  }
  // As on a device: freeing waits for all work.
  for (const auto& [stream, owner] : runtime.streams) RunUntil(stream, stream->put());
  if (!mapped_host) runtime.used_bytes -= found->second.bytes;
  runtime.allocations.erase(found);
  std::free(data);
  return cudaSuccess;
}

}  // namespace

cudaError_t cudaMalloc(void** data, size_t bytes) { return AllocateMemory(data, bytes, false); }
cudaError_t cudaFree(void* data) { return FreeMemory(data, false); }
cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned /*flags*/) {
  return AllocateMemory(data, bytes, true);
}
cudaError_t cudaFreeHost(void* data) { return FreeMemory(data, true); }
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned /*flags*/) {
  *device = host;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  const Lock lock(TheRuntime().mutex);
  auto made = std::make_unique<EmulatedStream>();
  *stream = made.get();
  TheRuntime().streams[made.get()] = std::move(made);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(TheRuntime().mutex);
  RunUntil(stream, stream->put());
  TheRuntime().streams.erase(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(TheRuntime().mutex);
  if (stream->capture != nullptr) return Failed(cudaErrorStreamCaptureUnsupported);
  RunUntil(stream, stream->put());
  return KernelErrorSoFar();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  if (stream->capture != nullptr) return Failed(cudaErrorStreamCaptureUnsupported);
  const EmulatedEvent recorded = *event;
  if (recorded.stream == nullptr) return cudaSuccess;
  tundra::emulation::Enqueue(stream, [recorded] {
    RunUntil(recorded.stream, recorded.after);
    return std::string();
  });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
  *event = new EmulatedEvent();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(TheRuntime().mutex);
  if (stream->capture != nullptr) return Failed(cudaErrorStreamCaptureUnsupported);
  *event = {stream, stream->put()};
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(TheRuntime().mutex);
  if (event->stream != nullptr) RunUntil(event->stream, event->after);
  return KernelErrorSoFar();
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode /*mode*/) {
  const Lock lock(TheRuntime().mutex);
  if (stream->capture != nullptr) return Failed(cudaErrorStreamCaptureUnsupported);
  stream->capture = std::make_shared<std::vector<Work>>();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(TheRuntime().mutex);
  if (stream->capture == nullptr) return Failed(cudaErrorInvalidValue);
  auto made = std::make_unique<EmulatedGraph>();
  made->work = std::move(stream->capture);
  stream->capture = nullptr;
  *graph = made.get();
  TheRuntime().graphs[made.get()] = std::move(made);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long /*flags*/) {
  const Lock lock(TheRuntime().mutex);
  if (TheRuntime().graphs.count(graph) == 0) return Failed(cudaErrorInvalidValue);
  auto made = std::make_unique<EmulatedGraph>();
  made->work = graph->work;
  *exec = made.get();
  TheRuntime().graphs[made.get()] = std::move(made);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Lock lock(TheRuntime().mutex);
  if (TheRuntime().graphs.count(exec) == 0) return Failed(cudaErrorInvalidValue);
  ++TheRuntime().graph_launches;
  ++exec->waiting;
  tundra::emulation::Enqueue(stream, [exec] {
    --exec->waiting;
    for (const Work& work : *exec->work) {
      std::string error = work();
      if (!error.empty()) return error;
    }
    return std::string();
  });
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const Lock lock(TheRuntime().mutex);
  const auto found = TheRuntime().graphs.find(graph);
  if (found == TheRuntime().graphs.end()) return Failed(cudaErrorInvalidValue);
  if (graph->waiting > 0) {
    TheRuntime().kernel_error = "a graph was destroyed before it ran";
    return Failed(cudaErrorInvalidValue);
  }
  TheRuntime().graphs.erase(found);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return cudaGraphDestroy(exec); }

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const bool to_device = kind != cudaMemcpyDeviceToHost;
  const bool from_device = kind != cudaMemcpyHostToDevice;
  if ((to_device && !tundra::emulation::IsDeviceMemory(to, bytes)) ||
      (from_device && !tundra::emulation::IsDeviceMemory(from, bytes))) {
    return Failed(cudaErrorInvalidValue);
  }
  tundra::emulation::Enqueue(stream, [to, from, bytes] {
    std::memmove(to, from, bytes);
    return std::string();
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  if (!tundra::emulation::IsDeviceMemory(data, bytes)) return Failed(cudaErrorInvalidValue);
  tundra::emulation::Enqueue(stream, [data, value, bytes] {
    std::memset(data, value, bytes);
    return std::string();
  });
  return cudaSuccess;
}
