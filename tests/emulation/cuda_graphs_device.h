// The device of cuda_graphs_test.cc: each program that has the test defines these.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "worker/model/model_test_util.h"

namespace tundra {

absl::StatusOr<TestDevice> OpenGraphsDevice();

// Graphs that the runtime has launched so far, where it counts them.
std::optional<int64_t> GraphsThatTheRuntimeLaunched();

}  // namespace tundra
