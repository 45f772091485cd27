#include "bench/train/backend.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace tundra::bench {

absl::StatusOr<Backend> OpenBackend(const std::string& name, int threads) {
  if (name != "cpu") {
    return absl::InvalidArgumentError(
        absl::StrCat("--device ", name, ": no such device; this build has: cpu"));
  }
  Backend backend;
  ASSIGN_OR_RETURN(backend.device, CreateCpuDevice({.threads = threads, .max_isa = ""}));
  ASSIGN_OR_RETURN(backend.ops, CreateCpuOps(backend.device.get()));
  return backend;
}

}  // namespace tundra::bench
