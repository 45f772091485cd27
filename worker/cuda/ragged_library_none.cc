// A build without the headers of cuDNN and its frontend.
#include "absl/status/status.h"
#include "worker/cuda/ragged_library.h"

namespace tundra::cuda {
namespace {

absl::Status NotBuilt() {
  return absl::NotFoundError(
      "this build of the CUDA backend has no cuDNN; build where cudnn.h and cudnn_frontend.h are "
      "found");
}

}  // namespace

absl::StatusOr<std::string> RaggedLibraryVersion() { return NotBuilt(); }

absl::StatusOr<std::unique_ptr<RaggedLibrary>> OpenRaggedLibrary() { return NotBuilt(); }

}  // namespace tundra::cuda
