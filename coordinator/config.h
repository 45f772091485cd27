// The coordinator's settings: defaults, then a YAML file, then flags.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace tundra::coordinator {

struct Config {
  std::string listen = "127.0.0.1:7700";
  std::string http = "127.0.0.1:7701";
  std::string web = "127.0.0.1:7702";
  // Empty: "coordinator" beneath DefaultDataDir().
  std::string data_dir;
  std::string tls_cert;
  std::string tls_key;
  std::string tls_client_ca;
  std::string bootstrap_token_file;
  std::string worker_token_file;
  bool allow_anonymous = false;
  bool insecure = false;
  std::string ports_file;
  std::string log_level = "info";
  bool log_json = false;
  double heartbeat_seconds = 2;
  double lease_seconds = 15;
  double blob_grace_seconds = 3600;
};

// Reads a file in the form of SampleConfig() over `config`. Errors: kNotFound;
// kInvalidArgument with file and line for bad YAML, an unknown key (with the one
// that was meant) or a value of the wrong kind.
absl::Status ReadConfigFile(const std::string& path, Config& config);

// Ranges that hold whatever the source. Errors: kInvalidArgument.
absl::Status CheckConfig(const Config& config);

// A commented file with all keys at their defaults.
std::string SampleConfig();

}  // namespace tundra::coordinator
