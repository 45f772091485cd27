#include "worker/ops/cpu_ops.h"

#include "worker/ops/attention_cpu.h"
#include "worker/ops/gemm_cpu.h"
#include "worker/ops/onednn_matmul.h"

namespace tundra {

CpuOps::CpuOps(CpuDevice* device, ProductBackend products)
    : device_(device),
      products_(products),
      onednn_(std::make_unique<OneDnnMatmul>(device->threads())) {}

CpuOps::~CpuOps() = default;

size_t CpuOps::workspace_bytes() const {
  return std::max(GemmWorkspaceBytes(threads()), AttentionWork::Bytes(threads()));
}

absl::StatusOr<std::unique_ptr<Ops>> CreateCpuOps(Device* device, ProductBackend products) {
  if (device->kind() != DeviceKind::kCpu) {
    return absl::InvalidArgumentError("the CPU's operations need a CPU device");
  }
  return std::unique_ptr<Ops>(std::make_unique<CpuOps>(static_cast<CpuDevice*>(device), products));
}

absl::StatusOr<std::unique_ptr<Ops>> CreateCpuOps(Device* device) {
  return CreateCpuOps(device, ProductBackend::kAuto);
}

}  // namespace tundra
