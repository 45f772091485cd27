#include "bench/train/backend.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "worker/device/cuda_backend.h"

namespace tundra::bench {

absl::StatusOr<Backend> OpenBackend(const std::string& name, int threads) {
  Backend backend;
  if (name == "cpu") {
    ASSIGN_OR_RETURN(backend.device, CreateCpuDevice({.threads = threads, .max_isa = ""}));
    ASSIGN_OR_RETURN(backend.ops, CreateCpuOps(backend.device.get()));
    return backend;
  }
  int ordinal = 0;
  const bool cuda = name == "cuda" || (name.starts_with("cuda:") &&
                                       absl::SimpleAtoi(name.substr(5), &ordinal) && ordinal >= 0);
  if (!cuda) {
    return absl::InvalidArgumentError(
        absl::StrCat("--device ", name, ": no such device; there are cpu, cuda and cuda:N"));
  }
  ASSIGN_OR_RETURN(const CudaBackendTable* table, OpenCudaBackend());
  ASSIGN_OR_RETURN(backend.device, table->create_device(ordinal));
  ASSIGN_OR_RETURN(backend.ops, table->create_ops(backend.device.get()));
  return backend;
}

}  // namespace tundra::bench
