// Resource names ("jobs/ID") and page sizes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace tundra::coordinator {

// The ID of "COLLECTION/ID". Errors: kInvalidArgument that names `field`.
absl::StatusOr<std::string> ParseName(std::string_view name, std::string_view collection,
                                      std::string_view field);

// "jobs/ID/adapter", "jobs/ID/checkpoints/STEP" or "uploads/ID".
struct AdapterName {
  std::string job;     // empty for an upload
  std::string upload;  // empty for a job's
  int64_t step = -1;   // of a checkpoint; -1 for the final adapter
};
absl::StatusOr<AdapterName> ParseAdapterName(std::string_view name, std::string_view field);

// A page size of a request: 0 is `normal`. Errors: kInvalidArgument when it is
// negative or over `most`.
absl::StatusOr<int32_t> CheckPageSize(int32_t size, int32_t normal, int32_t most);

}  // namespace tundra::coordinator
