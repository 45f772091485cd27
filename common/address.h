// Addresses as flags give them: "HOST:PORT", "[V6]:PORT" and, for gRPC, "unix:PATH".
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tundra {

// Host, without brackets, and port, 0 to 65535, of "HOST:PORT" or "[V6]:PORT". Errors:
// kInvalidArgument.
absl::StatusOr<std::pair<std::string, int>> SplitAddress(const std::string& address);

// The host is this machine's loopback: "localhost", 127.0.0.0/8 or ::1. A name that begins with
// "127." is a name, and may lead anywhere.
bool IsLoopback(const std::string& host);

// OK for what SplitAddress takes, and for "unix:…". Errors: kInvalidArgument.
absl::Status CheckAddress(const std::string& address);

// Only this machine's programs reach the address.
bool IsLoopbackAddress(const std::string& address);

}  // namespace tundra
