#include "worker/cuda/device_cuda.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/status.h"
#include "worker/cuda/products.h"
#include "worker/cuda/ragged_attention.h"

namespace tundra::cuda {
namespace {

constexpr int kOldestCompute = 80;  // the first with bf16 tensor cores

CudaStream& StreamOf(Ctx ctx) { return *static_cast<CudaStream*>(ctx.stream); }

const char* FaultText(Fault fault) {
  switch (fault) {
    case Fault::kNone:
      return "nothing";
    case Fault::kToken:
      return "token id that the embedding lacks, at token ";
    case Fault::kIndex:
      return "index of a row that the matrix lacks, at place ";
    case Fault::kPosition:
      return "position beyond the rotary table, at token ";
    case Fault::kTargetCount:
      return "number of targets that is not the one given, but ";
    case Fault::kTarget:
      return "target outside of the vocabulary, at token ";
    case Fault::kTensor:
      return "tensor whose offsets don't rise within the array, tensor ";
    case Fault::kOffsets:
      return "packed row whose offsets don't rise within the tokens, or are longer than "
             "max_length, at row ";
  }
  return "?";
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaStream>> CudaStream::Create(int ordinal) {
  std::unique_ptr<CudaStream> stream(new CudaStream(ordinal));
  RETURN_IF_ERROR(stream->Open());
  return stream;
}

absl::Status CudaStream::Open() {
  RETURN_IF_ERROR(StatusOf(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "a stream"));
  RETURN_IF_ERROR(
      StatusOf(cudaEventCreateWithFlags(&order_, cudaEventDisableTiming), "a stream's event"));
  void* memory = nullptr;
  RETURN_IF_ERROR(
      StatusOf(cudaHostAlloc(&memory, kSlots * kSlotBytes + sizeof(uint32_t), cudaHostAllocMapped),
               "a stream's pinned memory"));
  pinned_ = static_cast<char*>(memory);
  for (size_t i = 0; i < kSlots; ++i) {
    slots_[i].memory = pinned_ + i * kSlotBytes;
    RETURN_IF_ERROR(StatusOf(cudaEventCreateWithFlags(&slots_[i].passed, cudaEventDisableTiming),
                             "a stream's event"));
  }
  fault_ = reinterpret_cast<volatile uint32_t*>(pinned_ + kSlots * kSlotBytes);
  *fault_ = 0;
  RETURN_IF_ERROR(
      StatusOf(cudaHostGetDevicePointer(&memory, pinned_, 0), "a stream's pinned memory"));
  device_fault_ = reinterpret_cast<uint32_t*>(static_cast<char*>(memory) + kSlots * kSlotBytes);
  return absl::OkStatus();
}

// Errors of work that nobody waited for have nowhere to go.
CudaStream::~CudaStream() {
  (void)cudaSetDevice(ordinal_);
  if (handle_ != nullptr) (void)cudaStreamDestroy(handle_);
  if (order_ != nullptr) (void)cudaEventDestroy(order_);
  for (Slot& slot : slots_) {
    if (slot.passed != nullptr) (void)cudaEventDestroy(slot.passed);
  }
  if (pinned_ != nullptr) (void)cudaFreeHost(pinned_);
}

absl::Status CudaStream::Empty(Slot& slot) {
  if (!slot.busy) return absl::OkStatus();
  RETURN_IF_ERROR(StatusOf(cudaEventSynchronize(slot.passed), "copying"));
  if (slot.host_to != nullptr) std::memcpy(slot.host_to, slot.memory, slot.bytes);
  slot.host_to = nullptr;
  slot.busy = false;
  return absl::OkStatus();
}

absl::StatusOr<CudaStream::Slot*> CudaStream::TakeSlot() {
  Slot& slot = slots_[next_slot_];
  next_slot_ = (next_slot_ + 1) % kSlots;
  RETURN_IF_ERROR(Empty(slot));
  return &slot;
}

absl::Status CudaStream::NotCapturing(const char* what) const {
  if (!capturing_) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(what, " can't be captured in a graph"));
}

absl::Status CudaStream::CopyIn(void* device_to, const void* host_from, size_t bytes) {
  RETURN_IF_ERROR(NotCapturing("a copy from the host"));
  for (size_t at = 0; at < bytes;) {
    const size_t count = std::min(kSlotBytes, bytes - at);
    ASSIGN_OR_RETURN(Slot * slot, TakeSlot());
    std::memcpy(slot->memory, static_cast<const char*>(host_from) + at, count);
    RETURN_IF_ERROR(StatusOf(cudaMemcpyAsync(static_cast<char*>(device_to) + at, slot->memory,
                                             count, cudaMemcpyHostToDevice, handle_),
                             "copying to the device"));
    RETURN_IF_ERROR(StatusOf(cudaEventRecord(slot->passed, handle_), "copying to the device"));
    slot->busy = true;
    at += count;
  }
  return absl::OkStatus();
}

absl::Status CudaStream::CopyOut(void* host_to, const void* device_from, size_t bytes) {
  RETURN_IF_ERROR(NotCapturing("a copy to the host"));
  for (size_t at = 0; at < bytes;) {
    const size_t count = std::min(kSlotBytes, bytes - at);
    ASSIGN_OR_RETURN(Slot * slot, TakeSlot());
    RETURN_IF_ERROR(
        StatusOf(cudaMemcpyAsync(slot->memory, static_cast<const char*>(device_from) + at, count,
                                 cudaMemcpyDeviceToHost, handle_),
                 "copying from the device"));
    RETURN_IF_ERROR(StatusOf(cudaEventRecord(slot->passed, handle_), "copying from the device"));
    slot->busy = true;
    slot->host_to = static_cast<char*>(host_to) + at;
    slot->bytes = count;
    at += count;
  }
  return absl::OkStatus();
}

absl::Status CudaStream::Synchronize() {
  RETURN_IF_ERROR(NotCapturing("waiting for the device"));
  RETURN_IF_ERROR(StatusOf(cudaStreamSynchronize(handle_), "work on the device"));
  // Oldest first: two copies to one place leave the later one's bytes.
  for (size_t i = 0; i < kSlots; ++i) {
    RETURN_IF_ERROR(Empty(slots_[(next_slot_ + i) % kSlots]));
  }
  return TakeFault();
}

absl::Status CudaStream::TakeFault() {
  const uint32_t word = *fault_;
  if (word == 0) return absl::OkStatus();
  *fault_ = 0;
  const auto fault = static_cast<Fault>(word >> kFaultPlaceBits);
  constexpr uint32_t kMost = (1u << kFaultPlaceBits) - 1;
  return absl::InvalidArgumentError(
      absl::StrCat("the device found a ", FaultText(fault), kMost - (word & kMost)));
}

absl::Status CudaStream::RunAfter(const CudaStream& earlier) {
  RETURN_IF_ERROR(NotCapturing("waiting for another stream"));
  RETURN_IF_ERROR(earlier.NotCapturing("being waited for by another stream"));
  RETURN_IF_ERROR(StatusOf(cudaEventRecord(order_, earlier.handle_), "ordering streams"));
  return StatusOf(cudaStreamWaitEvent(handle_, order_, 0), "ordering streams");
}

// Calls of other threads, such as their allocations, don't concern the capture.
absl::Status CudaStream::BeginCapture() {
  RETURN_IF_ERROR(NotCapturing("a capture"));
  RETURN_IF_ERROR(StatusOf(cudaStreamBeginCapture(handle_, cudaStreamCaptureModeThreadLocal),
                           "starting to capture"));
  capturing_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CudaGraph>> CudaStream::EndCapture() {
  if (!capturing_) return absl::FailedPreconditionError("no capture to end");
  capturing_ = false;
  cudaGraph_t graph = nullptr;
  RETURN_IF_ERROR(StatusOf(cudaStreamEndCapture(handle_, &graph), "capturing"));
  cudaGraphExec_t exec = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
  (void)cudaGraphDestroy(graph);
  RETURN_IF_ERROR(StatusOf(error, "making a graph"));
  return std::make_unique<CudaGraph>(ordinal_, exec);
}

CudaGraph::~CudaGraph() {
  (void)cudaSetDevice(ordinal_);
  (void)cudaGraphExecDestroy(handle_);
}

absl::StatusOr<std::unique_ptr<Device>> CudaDevice::Create(int ordinal) {
  int count = 0;
  RETURN_IF_ERROR(StatusOf(cudaGetDeviceCount(&count), "looking for CUDA devices"));
  if (ordinal < 0 || ordinal >= count) {
    return absl::NotFoundError(
        absl::StrCat("there is no device cuda:", ordinal, "; this machine ",
                     count == 0 ? "has none" : absl::StrCat("has cuda:0 to cuda:", count - 1)));
  }
  cudaDeviceProp properties;
  RETURN_IF_ERROR(StatusOf(cudaGetDeviceProperties(&properties, ordinal), "a device's properties"));
  std::unique_ptr<CudaDevice> device(new CudaDevice(ordinal, properties));
  if (device->compute_ < kOldestCompute) {
    return absl::FailedPreconditionError(
        absl::StrCat("cuda:", ordinal, " (", device->model_, ") has compute capability ",
                     properties.major, ".", properties.minor, "; 8.0 (Ampere) or newer is needed"));
  }
  RETURN_IF_ERROR(device->MakeCurrent());
  ASSIGN_OR_RETURN(device->attention_library_, ChooseAttention());
  return std::unique_ptr<Device>(std::move(device));
}

CudaDevice::CudaDevice(int ordinal, const cudaDeviceProp& properties)
    : ordinal_(ordinal),
      model_(properties.name),
      multiprocessors_(properties.multiProcessorCount),
      compute_(10 * properties.major + properties.minor) {}

absl::Status CudaDevice::MakeCurrent() const {
  return StatusOf(cudaSetDevice(ordinal_), "choosing the device");
}

std::string CudaDevice::name() const { return absl::StrCat(model_, " (cuda:", ordinal_, ")"); }

// The version of CUDA is that of the build: nvcc's own library has expf, logf and their like.
std::string CudaDevice::numerics_class() const {
  const std::string model = absl::StrReplaceAll(model_, {{" ", "-"}, {"/", "-"}});
  return absl::StrCat("cuda/", model, "/", multiprocessors_, "-sm/engine-", kEngineNumericsVersion,
                      "/cuda-", CUDART_VERSION, "/", ProductsVersion(),
                      attention_library_.empty() ? "" : "/", attention_library_);
}

size_t CudaDevice::available_bytes() const {
  size_t free = 0, total = 0;
  if (!MakeCurrent().ok() || !StatusOf(cudaMemGetInfo(&free, &total), "free memory").ok()) return 0;
  return free;
}

absl::StatusOr<Buffer> CudaDevice::Allocate(size_t bytes) {
  if (bytes == 0) return Buffer();
  RETURN_IF_ERROR(MakeCurrent());
  void* data = nullptr;
  RETURN_IF_ERROR(Annotate(StatusOf(cudaMalloc(&data, bytes), "device memory"), bytes, " bytes"));
  return Buffer(this, data, bytes);
}

void CudaDevice::Free(void* data, size_t /*bytes*/) {
  (void)cudaSetDevice(ordinal_);
  (void)cudaFree(data);
}

absl::StatusOr<std::unique_ptr<Stream>> CudaDevice::CreateStream() {
  RETURN_IF_ERROR(MakeCurrent());
  ASSIGN_OR_RETURN(std::unique_ptr<CudaStream> stream, CudaStream::Create(ordinal_));
  return std::unique_ptr<Stream>(std::move(stream));
}

absl::Status CudaDevice::CopyIn(Ctx ctx, void* device_to, const void* host_from, size_t bytes) {
  RETURN_IF_ERROR(MakeCurrent());
  return StreamOf(ctx).CopyIn(device_to, host_from, bytes);
}

absl::Status CudaDevice::CopyOut(Ctx ctx, void* host_to, const void* device_from, size_t bytes) {
  RETURN_IF_ERROR(MakeCurrent());
  return StreamOf(ctx).CopyOut(host_to, device_from, bytes);
}

absl::Status CudaDevice::CopyWithin(Ctx ctx, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  RETURN_IF_ERROR(MakeCurrent());
  return StatusOf(
      cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, StreamOf(ctx).handle()),
      "copying within the device");
}

absl::Status CudaDevice::Zero(Ctx ctx, void* data, size_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  RETURN_IF_ERROR(MakeCurrent());
  return StatusOf(cudaMemsetAsync(data, 0, bytes, StreamOf(ctx).handle()), "zeroing");
}

absl::Status CudaDevice::Synchronize(Ctx ctx) {
  RETURN_IF_ERROR(MakeCurrent());
  return StreamOf(ctx).Synchronize();
}

absl::Status CudaDevice::Order(Stream* earlier, Stream* later) {
  RETURN_IF_ERROR(MakeCurrent());
  return static_cast<CudaStream*>(later)->RunAfter(*static_cast<const CudaStream*>(earlier));
}

absl::Status CudaDevice::BeginCapture(Ctx ctx) {
  RETURN_IF_ERROR(MakeCurrent());
  return StreamOf(ctx).BeginCapture();
}

absl::StatusOr<std::unique_ptr<Graph>> CudaDevice::EndCapture(Ctx ctx) {
  RETURN_IF_ERROR(MakeCurrent());
  ASSIGN_OR_RETURN(std::unique_ptr<CudaGraph> graph, StreamOf(ctx).EndCapture());
  return std::unique_ptr<Graph>(std::move(graph));
}

absl::Status CudaDevice::Launch(Ctx ctx, const Graph& graph) {
  RETURN_IF_ERROR(MakeCurrent());
  return StatusOf(
      cudaGraphLaunch(static_cast<const CudaGraph&>(graph).handle(), StreamOf(ctx).handle()),
      "launching a graph");
}

}  // namespace tundra::cuda
