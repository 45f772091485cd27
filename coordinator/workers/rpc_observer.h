// Told of every finished call, for the metrics.
#pragma once

#include <string_view>

#include "absl/time/time.h"

namespace tundra::coordinator {

class RpcObserver {
 public:
  virtual ~RpcObserver() = default;
  // `code` is a gRPC status code, 0 to 16. Thread-safe, returns at once.
  virtual void OnRpc(std::string_view method, int code, absl::Duration took) = 0;
};

}  // namespace tundra::coordinator
