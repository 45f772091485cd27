// The real NCCL and CUDA runtime behind the table of nccl_api.h. Built where both
// have their headers; NCCL itself is opened at run time, so that one build serves
// machines with and without it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "worker/collective/nccl_api.h"

namespace tundra {

// Opens libnccl.so.2, once; it is never closed. TUNDRA_NCCL_LIBRARY in the
// environment names another file. Thread-safe.
//
// NCCL listens on addresses of its own choice. Where hostname (that of NcclOptions)
// is the loopback's, NCCL_SOCKET_IFNAME is set so that it keeps to loopback too,
// unless the environment says otherwise; call this before other threads read the
// environment.
// Errors: kNotFound when there is no such library, kFailedPrecondition when it lacks
// a function or is older than the headers that this was compiled with.
absl::StatusOr<const NcclApi*> OpenNccl(const std::string& hostname);

}  // namespace tundra
