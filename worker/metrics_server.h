// /metrics, /healthz and /readyz of a worker, on a small server of their own.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace tundra::worker {

// Called at each request, from the server's threads.
struct WorkerProbes {
  // Whether there is a session with the coordinator.
  std::function<bool()> connected;
  // Body of /metrics.
  std::function<std::string()> metrics;
};

class MetricsServer {
 public:
  // Serves on "HOST:PORT" (port 0: any free one) until destroyed.
  // Errors: kUnavailable when the port is taken.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& address,
                                                              WorkerProbes probes);
  ~MetricsServer();

  int port() const;

 private:
  class Impl;
  explicit MetricsServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tundra::worker
