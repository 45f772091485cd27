// /metrics, /healthz and /readyz, on a port of their own: probes carry no
// certificate, and must answer when the API is busy.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace tundra::coordinator {

struct ProbeHandlers {
  // Body of /metrics.
  std::function<std::string()> metrics;
  // Whether requests are served; /healthz needs only a living process.
  std::function<bool()> ready;
};

class ProbeServer {
 public:
  virtual ~ProbeServer() = default;
  virtual int port() const = 0;
  virtual void Stop() = 0;
};

// Listens on HOST:PORT; port 0 takes any. Errors: kAlreadyExists when the port is
// taken, kInvalidArgument for a malformed address.
absl::StatusOr<std::unique_ptr<ProbeServer>> StartProbeServer(const std::string& address,
                                                              ProbeHandlers handlers);

}  // namespace tundra::coordinator
