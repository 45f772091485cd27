// cuDNN's graphs for attention over ragged rows, and the library itself, which is opened at run
// time. Graphs can be built for a device that is not there (cudnn_graphs_test.cc does).
//
// The tensors lie as ragged_library.h says: row after row, each token's heads side by side. To
// cuDNN they are [rows][heads][longest row][dim] with a place in memory for each row.
#pragma once

#include <cudnn_frontend.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/cuda/ragged_library.h"

namespace tundra::cuda {

// The numbers of a graph's tensors, by which a call gives their memory.
enum class CudnnTensor : int64_t {
  kQueryLengths = 1,
  kKeyLengths,
  kQueryOffsets,
  kKeyOffsets,
  kStatsOffsets,
  kQ,
  kK,
  kV,
  kOut,
  kStats,
  kDOut,
  kDQ,
  kDK,
  kDV,
};

using CudnnGraph = cudnn_frontend::graph::Graph;

// What a graph is built for: a handle's device, or one that is only described.
struct CudnnTarget {
  cudnnHandle_t handle = nullptr;
  std::shared_ptr<const cudnn_frontend::DeviceProperties> description;  // null with a handle
  int compute = 0;  // 80 for compute capability 8.0
};

// Opens the library, once; it is never closed. Before anything else of cuDNN. Errors: kNotFound
// when it, or what it needs, isn't there or is too old. Thread-safe.
absl::Status OpenCudnn();

// "cudnn-91900-frontend-13200-nvrtc-13.0": what bits depend on.
std::string CudnnVersion();

// What the library or its frontend says of a failure, as kInternal.
absl::Status CudnnStatus(cudnn_frontend::error_t error, const char* what);

// A graph that the library has kernels for by its own rules; for the backward deterministic ones.
// Errors: kUnimplemented, with the library's reason, when it has none, kInternal when CUDA fails.
absl::StatusOr<std::shared_ptr<CudnnGraph>> MakeCudnnGraph(Direction direction,
                                                           const RaggedShape& shape,
                                                           const CudnnTarget& target);

// Builds the graph's plan: of the kernels that the library's heuristic names, the first that can
// be compiled. Needs a driver; may take seconds. Errors: as MakeCudnnGraph.
absl::Status BuildCudnnPlan(CudnnGraph& graph);

}  // namespace tundra::cuda
