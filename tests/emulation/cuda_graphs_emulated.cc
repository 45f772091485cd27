// Graphs on the emulated device.
#include "tests/emulation/cuda_graphs_device.h"
#include "tests/emulation/cuda_runtime.h"
#include "worker/cuda/cuda_ops.h"

namespace tundra {

absl::StatusOr<TestDevice> OpenGraphsDevice() {
  TestDevice opened;
  ASSIGN_OR_RETURN(opened.device, cuda::CudaDevice::Create(0));
  ASSIGN_OR_RETURN(opened.ops, cuda::CreateCudaOps(opened.device.get()));
  return opened;
}

std::optional<int64_t> GraphsThatTheRuntimeLaunched() { return emulation::GraphLaunches(); }

}  // namespace tundra
