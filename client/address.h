// Which service a command talks to, and how: with TLS, with which token.
//
// In this order: --address; --context NAME or $TUNDRA_CONTEXT, a named context of
// the configuration file; $TUNDRA_ADDRESS; the configuration file's
// `current_context`; the service that `tundra local up` runs; 127.0.0.1:7700.
//
// The configuration file, ~/.config/tundra/config.yaml or $TUNDRA_CONFIG:
//   current_context: lab
//   contexts:
//     lab: {address: "tundra.lab.example:7700", tls_ca: ~/lab-ca.pem, token_file: ~/lab.token}
//     here: {address: "127.0.0.1:7700"}
//
// The token: --token-file, then the context's, then $TUNDRA_TOKEN and $TUNDRA_TOKEN_FILE, then the
// one that `tundra local up` made, for its own service only. TLS: --tls-ca or --tls, then the
// context's tls_ca or tls, then $TUNDRA_TLS_CA.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/rpc.h"

namespace tundra::client {

struct AddressFlags {
  std::string address;
  std::string context;
  bool insecure = false;
  // Checks the service by the system's roots, or by those in tls_ca.
  bool tls = false;
  std::string tls_ca;
  std::string token_file;
};

struct Address {
  std::string value;
  // Where it comes from, for messages: "--address", "context lab", ….
  std::string source;
  ClientSecurity security;
};

// Errors: kInvalidArgument for a broken configuration file or unknown context
// (lists those there are).
absl::StatusOr<Address> FindAddress(const AddressFlags& flags);

// Where `tundra local up` notes what it runs.
std::string LocalStatePath(const std::string& data_dir);

// Text of the configuration file's path, for messages.
std::string ConfigPath();

}  // namespace tundra::client
