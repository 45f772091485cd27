// The CUDA runtime, or in tests its twin over host memory, and its errors as Status.
#pragma once

#if defined(TUNDRA_CUDA_EMULATION)
#include "tests/emulation/cuda_runtime.h"
#else
#include <cuda_runtime.h>
#endif

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tundra::cuda {

// kResourceExhausted when device memory ran out, kInternal for every other error. The runtime
// keeps the thread's last error until it is asked for; it is taken here, so that the next launch,
// which asks, doesn't report it a second time as its own.
inline absl::Status StatusOf(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text =
      absl::StrCat(what, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  (void)cudaGetLastError();
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  return absl::InternalError(text);
}

}  // namespace tundra::cuda
