// The whole coordinator as one object, for main and for tests that run it in
// their own process.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/tls.h"
#include "coordinator/access/authenticator.h"
#include "coordinator/api/dataset_validation.h"

namespace tundra::coordinator {

struct CoordinatorOptions {
  // Database, blobs and lock; made when missing.
  std::string data_dir;
  // HOST:PORT; port 0 takes any.
  std::string listen = "127.0.0.1:7700";
  std::string http = "127.0.0.1:7701";
  std::string web = "127.0.0.1:7702";
  // Certificate and key of the server, and what workers' certificates must chain to. Empty: no
  // TLS.
  TlsFiles tls;
  // Allows addresses other than loopback without TLS.
  bool insecure = false;
  // on_failure is ignored.
  AuthOptions auth;
  absl::Duration heartbeat_interval = absl::Seconds(2);
  absl::Duration lease = absl::Seconds(15);
  // How long unreferenced blobs are kept.
  absl::Duration blob_grace = absl::Hours(1);
  Clock* clock = Clock::System();
  std::unique_ptr<DatasetValidator> validator;
};

class Coordinator {
 public:
  virtual ~Coordinator() = default;
  virtual int grpc_port() const = 0;
  virtual int http_port() const = 0;
  virtual int web_port() const = 0;
  // Stops serving within seconds; nothing that was acknowledged is lost, as also
  // when the process is killed instead.
  virtual void Stop() = 0;
};

// Errors: kInvalidArgument for addresses and certificates, kPermissionDenied for settings that
// would not be safe (an address beyond loopback without TLS, say), kAlreadyExists for a port that
// is taken, kFailedPrecondition for a data folder in use; those of the store.
absl::StatusOr<std::unique_ptr<Coordinator>> StartCoordinator(CoordinatorOptions options);

}  // namespace tundra::coordinator
