// The suite over the CUDA operations, whose kernels run on the CPU. "Threads" are of no
// meaning to a GPU: here they choose the order in which blocks and threads run.
#include "tests/emulation/block.h"
#include "worker/cuda/cuda_ops.h"
#include "worker/ops/ops_suite.h"

namespace tundra::suite {

std::vector<Backend> Backends() {
  const auto device = [](int threads) {
    emulation::SetOrder(static_cast<uint32_t>(threads - 1));
    return cuda::CudaDevice::Create(0);
  };
  return {{"cuda_emulated", device, cuda::CreateCudaOps, {2, 3, 4}}};
}

}  // namespace tundra::suite
