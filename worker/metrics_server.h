// /metrics and /healthz of a worker, on a small server of their own.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/supervisor.h"

namespace tundra::worker {

class MetricsServer {
 public:
  // Serves on "HOST:PORT" (port 0: any free one) until destroyed. `status` is
  // asked at each scrape, from the server's threads.
  // Errors: kUnavailable when the port is taken.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(
      const std::string& address, std::function<SupervisorStatus()> status);
  ~MetricsServer();

  int port() const;

 private:
  class Impl;
  explicit MetricsServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tundra::worker
