// The gRPC server: all services, health and reflection on one port.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/tls.h"
#include "coordinator/api/context.h"

namespace grpc {
class Channel;
}

namespace tundra::coordinator {

class ApiServer {
 public:
  virtual ~ApiServer() = default;
  // The port it listens on.
  virtual int port() const = 0;
  // To this server, without a network. What it calls is checked like any other call.
  virtual std::shared_ptr<grpc::Channel> InProcessChannel() = 0;
  // Ends all calls: streams at once, others within `grace`. Idempotent.
  virtual void Stop(absl::Duration grace) = 0;
};

// Listens on HOST:PORT; port 0 takes any. Without TLS when `tls` is null. `context` outlives the
// server.
// Errors: kAlreadyExists when the port is taken, kInvalidArgument for an address
// that cannot be used.
absl::StatusOr<std::unique_ptr<ApiServer>> StartApiServer(const std::string& address,
                                                          std::shared_ptr<TlsSource> tls,
                                                          const Context* context);

}  // namespace tundra::coordinator
