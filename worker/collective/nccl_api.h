// The few functions of NCCL and of the CUDA runtime that the NCCL collective calls,
// as a table, so that the same code runs over the real libraries
// (nccl_cuda.cc) and, in tests, over host memory (nccl_stand_in.cc).
// The types are our own: nothing here needs NVIDIA's headers.
//
// Every function of a table may be called from any thread; those that work with a
// device want set_device to have been called on that thread.
#pragma once

#include <cstddef>

namespace tundra {

// ncclResult_t.
enum class NcclResult : int {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};

// ncclUniqueId: what the ranks of one communicator find each other by.
struct NcclUniqueId {
  char bytes[128];
};

using NcclComm = void*;    // ncclComm_t
using CudaStream = void*;  // cudaStream_t
using CudaEvent = void*;   // cudaEvent_t

// cudaError_t; the two values that are looked at.
using CudaResult = int;
inline constexpr CudaResult kCudaSuccess = 0;
inline constexpr CudaResult kCudaNotReady = 600;

struct NcclApi {
  // Local to rank 0; may take a second the first time.
  NcclResult (*get_unique_id)(NcclUniqueId* id);
  // Communicators are non-blocking: functions that take one may return kInProgress
  // and go on in the background. get_async_error then tells when they are done
  // (kSuccess) or how they failed; until then only it and abort may be called.
  NcclResult (*init_rank)(NcclComm* comm, int size, const NcclUniqueId& id, int rank);
  NcclResult (*get_async_error)(NcclComm comm, NcclResult* result);
  NcclResult (*finalize)(NcclComm comm);
  NcclResult (*destroy)(NcclComm comm);  // only after a finalize that has succeeded
  NcclResult (*abort)(NcclComm comm);    // at any time; the communicator is gone then

  // Device pointers; in place. Ordered on the stream, whose work is not queued
  // before get_async_error says kSuccess.
  NcclResult (*sum_int64)(void* values, size_t count, NcclComm comm, CudaStream stream);
  NcclResult (*all_gather)(const void* mine, void* all, size_t bytes, NcclComm comm,
                           CudaStream stream);
  NcclResult (*broadcast)(void* data, size_t bytes, int root, NcclComm comm, CudaStream stream);

  const char* (*error_string)(NcclResult result);
  // The last error in words, as NCCL's log has it; may be empty. comm may be null.
  const char* (*last_error)(NcclComm comm);

  CudaResult (*set_device)(int device);
  CudaResult (*stream_create)(CudaStream* stream);  // not synchronised with the default stream
  CudaResult (*stream_destroy)(CudaStream stream);
  CudaResult (*event_create)(CudaEvent* event);  // without timing
  CudaResult (*event_destroy)(CudaEvent event);
  CudaResult (*event_record)(CudaEvent event, CudaStream stream);
  CudaResult (*event_query)(CudaEvent event);  // kCudaNotReady until the work before it is done
  // Between device and host memory, ordered on the stream. May wait for the copy.
  CudaResult (*memcpy_async)(void* to, const void* from, size_t bytes, CudaStream stream);
  const char* (*cuda_error_string)(CudaResult result);
};

}  // namespace tundra
