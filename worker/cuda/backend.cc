// The entry point of libtundra_cuda.so: worker/device/cuda_backend.h says what it is.
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "worker/cuda/cuda_ops.h"
#include "worker/cuda/device_cuda.h"
#include "worker/device/cuda_backend.h"
#ifdef TUNDRA_WITH_NCCL
#include "worker/collective/nccl_cuda.h"
#endif

namespace tundra::cuda {
namespace {

absl::StatusOr<int> CountDevices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) (void)cudaGetLastError();  // see StatusOf
  if (error == cudaErrorInsufficientDriver) {
    return absl::FailedPreconditionError(
        "there is no NVIDIA driver, or it is older than this build's CUDA needs; install the "
        "driver (580 or newer for CUDA 13), give a container the GPUs (docker run --gpus all), or "
        "use CPU devices (cpu:N)");
  }
  if (error == cudaErrorNoDevice) return 0;
  RETURN_IF_ERROR(StatusOf(error, "looking for CUDA devices"));
  return count;
}

absl::StatusOr<const NcclApi*> OpenCollective(const std::string& hostname) {
#ifdef TUNDRA_WITH_NCCL
  return OpenNccl(hostname);
#else
  (void)hostname;
  return absl::NotFoundError(
      "this build of the CUDA backend has no NCCL; build where nccl.h is found");
#endif
}

}  // namespace
}  // namespace tundra::cuda

extern "C" __attribute__((visibility("default"))) const tundra::CudaBackendTable*
tundra_cuda_backend(const char* interface, const char** library_interface) {
  static const tundra::CudaBackendTable table = {
      tundra::cuda::CountDevices,
      tundra::cuda::CudaDevice::Create,
      tundra::cuda::CreateCudaOps,
      tundra::cuda::OpenCollective,
  };
  static const std::string* const own = new std::string(TUNDRA_CUDA_INTERFACE);
  *library_interface = own->c_str();
  return *own == interface ? &table : nullptr;
}
