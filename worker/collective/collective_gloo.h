// The network collective of CPU ranks: Gloo's TCP transport.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/collective/collective.h"

namespace tundra {

struct GlooOptions {
  int rank = 0;  // 0 <= rank < size
  int size = 1;
  // Where to listen: an interface by name, else a host name or address. Gloo's
  // connections are neither encrypted nor authenticated, hence loopback.
  std::string interface = "";
  std::string hostname = "127.0.0.1";
  // Largest piece in flight. A multiple of 8, >= 8; all ranks alike.
  size_t chunk_bytes = size_t{1} << 20;
};

// Opens the listening sockets.
// Errors: kInvalidArgument; kUnavailable when the address can't be listened on.
absl::StatusOr<std::unique_ptr<CollectiveBootstrap>> NewGlooBootstrap(const GlooOptions& options);

}  // namespace tundra
