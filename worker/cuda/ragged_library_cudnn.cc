// Attention through cuDNN's plans, on one handle: cudnn_graphs.h makes them.
#include <cuda_runtime_api.h>

#include <exception>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/status.h"
#include "worker/cuda/cudnn_graphs.h"
#include "worker/cuda/ragged_library.h"

namespace tundra::cuda {
namespace {

namespace fe = cudnn_frontend;

absl::Status StatusOf(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(what, ": cuDNN says ", fe::detail::get_error_string(status)));
}

// A handle has one stream at a time.
struct Handle {
  ~Handle() {
    if (cudnn != nullptr) (void)fe::detail::destroy_handle(cudnn);
  }
  cudnnHandle_t cudnn = nullptr;
  absl::Mutex mutex;
};

class CudnnPlan final : public RaggedPlan {
 public:
  CudnnPlan(const RaggedShape& shape, size_t workspace_bytes, std::shared_ptr<CudnnGraph> graph,
            Handle* handle)
      : RaggedPlan(shape, workspace_bytes), graph_(std::move(graph)), handle_(handle) {}

  absl::Status Run(cudaStream_t stream, const RaggedBuffers& b) override {
    std::unordered_map<int64_t, void*> memory;
    // The backward has more; a graph takes what it knows.
    const auto give = [&](CudnnTensor number, const void* data) {
      if (data != nullptr) memory[static_cast<int64_t>(number)] = const_cast<void*>(data);
    };
    give(CudnnTensor::kQueryLengths, b.lengths);
    give(CudnnTensor::kKeyLengths, b.lengths);
    give(CudnnTensor::kQueryOffsets, b.q_offsets);
    give(CudnnTensor::kKeyOffsets, b.kv_offsets);
    give(CudnnTensor::kStatsOffsets, b.stats_offsets);
    give(CudnnTensor::kQ, b.q);
    give(CudnnTensor::kK, b.k);
    give(CudnnTensor::kV, b.v);
    give(CudnnTensor::kOut, b.out);
    give(CudnnTensor::kStats, b.stats);
    give(CudnnTensor::kDOut, b.dout);
    give(CudnnTensor::kDQ, b.dq);
    give(CudnnTensor::kDK, b.dk);
    give(CudnnTensor::kDV, b.dv);
    const absl::MutexLock lock(&handle_->mutex);
    try {
      RETURN_IF_ERROR(StatusOf(fe::detail::set_stream(handle_->cudnn, stream), "attention"));
      return CudnnStatus(graph_->execute(handle_->cudnn, memory, b.workspace), "attention");
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("attention: cuDNN says ", error.what()));
    }
  }

 private:
  std::shared_ptr<CudnnGraph> graph_;
  Handle* handle_;
};

class CudnnLibrary final : public RaggedLibrary {
 public:
  static absl::StatusOr<std::unique_ptr<RaggedLibrary>> Create() {
    auto library = std::make_unique<CudnnLibrary>();
    int device = 0, major = 0, minor = 0;
    RETURN_IF_ERROR(cuda::StatusOf(cudaGetDevice(&device), "opening cuDNN"));
    RETURN_IF_ERROR(
        cuda::StatusOf(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
                       "opening cuDNN"));
    RETURN_IF_ERROR(
        cuda::StatusOf(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
                       "opening cuDNN"));
    library->compute_ = 10 * major + minor;
    // No deterministic backward over ragged rows for compute capabilities 8.x and 12.x.
    library->has_backward_ = major == 9 || major == 10;
    try {
      RETURN_IF_ERROR(StatusOf(fe::detail::create_handle(&library->handle_.cudnn),
                               "opening cuDNN (TUNDRA_CUDA_ATTENTION=own does without it)"));
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("opening cuDNN: ", error.what()));
    }
    return std::unique_ptr<RaggedLibrary>(std::move(library));
  }

  bool has_backward() const override { return has_backward_; }

  absl::StatusOr<std::unique_ptr<RaggedPlan>> MakePlan(Direction direction,
                                                       const RaggedShape& shape) override {
    const absl::MutexLock lock(&handle_.mutex);
    ASSIGN_OR_RETURN(std::shared_ptr<CudnnGraph> graph,
                     MakeCudnnGraph(direction, shape, {handle_.cudnn, nullptr, compute_}));
    RETURN_IF_ERROR(BuildCudnnPlan(*graph));
    int64_t workspace = 0;
    RETURN_IF_ERROR(
        CudnnStatus(graph->get_workspace_size(workspace), "the workspace of attention"));
    return std::unique_ptr<RaggedPlan>(std::make_unique<CudnnPlan>(
        shape, static_cast<size_t>(workspace), std::move(graph), &handle_));
  }

 private:
  int compute_ = 0;
  bool has_backward_ = false;
  Handle handle_;
};

}  // namespace

absl::StatusOr<std::string> RaggedLibraryVersion() {
  RETURN_IF_ERROR(OpenCudnn());
  return CudnnVersion();
}

absl::StatusOr<std::unique_ptr<RaggedLibrary>> OpenRaggedLibrary() {
  RETURN_IF_ERROR(OpenCudnn());
  return CudnnLibrary::Create();
}

}  // namespace tundra::cuda
