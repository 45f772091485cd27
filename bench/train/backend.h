// The device that a bench runs on, by the name it is given on the command line. All else
// here knows only the interfaces Device, Ops and Collective.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/ops/ops.h"

namespace tundra::bench {

// The operations are destroyed before the device.
struct Backend {
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;
};

// name: "cpu", "cuda" (the first GPU) or "cuda:N". threads: of a CPU.
// Errors: kInvalidArgument for another name, and those of the device or of the CUDA backend.
absl::StatusOr<Backend> OpenBackend(const std::string& name, int threads);

}  // namespace tundra::bench
