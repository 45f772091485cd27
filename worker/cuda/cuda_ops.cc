#include "worker/cuda/cuda_ops.h"

#include "common/status.h"

namespace tundra::cuda {

absl::StatusOr<std::unique_ptr<Ops>> CreateCudaOps(Device* device) {
  if (device->kind() != DeviceKind::kCuda) {
    return absl::InvalidArgumentError("the CUDA operations need a CUDA device");
  }
  auto* cuda = static_cast<CudaDevice*>(device);
  RETURN_IF_ERROR(cuda->MakeCurrent());
  ASSIGN_OR_RETURN(std::unique_ptr<Products> products, CreateProducts());
  std::unique_ptr<RaggedAttention> attention;
  if (!cuda->attention_library().empty()) {
    ASSIGN_OR_RETURN(std::unique_ptr<RaggedLibrary> library, OpenRaggedLibrary());
    attention = std::make_unique<RaggedAttention>(std::move(library));
  }
  return std::unique_ptr<Ops>(
      std::make_unique<CudaOps>(cuda, std::move(products), std::move(attention)));
}

}  // namespace tundra::cuda
