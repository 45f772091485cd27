// Which service a command talks to.
//
// In this order: --address; --context NAME or $TUNDRA_CONTEXT, a named context of
// the configuration file; $TUNDRA_ADDRESS; the configuration file's
// `current_context`; the service that `tundra local up` runs; 127.0.0.1:7700.
//
// The configuration file, ~/.config/tundra/config.yaml or $TUNDRA_CONFIG:
//   current_context: lab
//   contexts:
//     lab: {address: "127.0.0.1:7700"}
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace tundra::client {

struct AddressFlags {
  std::string address;
  std::string context;
  bool insecure = false;
};

struct Address {
  std::string value;
  // Where it comes from, for messages: "--address", "context lab", ….
  std::string source;
};

// Errors: kInvalidArgument for a broken configuration file or unknown context
// (lists those there are).
absl::StatusOr<Address> FindAddress(const AddressFlags& flags);

// Where `tundra local up` notes what it runs.
std::string LocalStatePath(const std::string& data_dir);

// Text of the configuration file's path, for messages.
std::string ConfigPath();

}  // namespace tundra::client
