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
using CudnnDevice = cudnn_frontend::DeviceProperties;

// Opens the library, once; it is never closed. Before anything else of cuDNN. Errors: kNotFound
// when it, or what it needs, isn't there or is too old. Thread-safe.
absl::Status OpenCudnn();

// "cudnn-91900-frontend-11900": what bits depend on.
std::string CudnnVersion();

// What the library or its frontend says of a failure.
absl::Status CudnnStatus(cudnn_frontend::error_t error, const char* what);

// A graph whose plan is built: the first that the library's heuristic names; for the backward a
// deterministic one. For the handle's device, or for `device`, if that isn't null. May take
// seconds. Errors: kUnimplemented, with the library's reason, when it can't be had.
absl::StatusOr<std::shared_ptr<CudnnGraph>> BuildCudnnGraph(
    Direction direction, const RaggedShape& shape, cudnnHandle_t handle,
    const std::shared_ptr<const CudnnDevice>& device);

}  // namespace tundra::cuda
