#include "coordinator/config.h"

#include <yaml-cpp/yaml.h>

#include <functional>
#include <map>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/status.h"
#include "common/suggest.h"

namespace tundra::coordinator {
namespace {

using Setters = std::map<std::string, std::function<void(const YAML::Node&)>>;

Setters SettersOf(Config& c) {
  return {
      {"listen", [&c](const YAML::Node& n) { c.listen = n.as<std::string>(); }},
      {"http", [&c](const YAML::Node& n) { c.http = n.as<std::string>(); }},
      {"web", [&c](const YAML::Node& n) { c.web = n.as<std::string>(); }},
      {"data_dir", [&c](const YAML::Node& n) { c.data_dir = n.as<std::string>(); }},
      {"tls_cert", [&c](const YAML::Node& n) { c.tls_cert = n.as<std::string>(); }},
      {"tls_key", [&c](const YAML::Node& n) { c.tls_key = n.as<std::string>(); }},
      {"tls_client_ca", [&c](const YAML::Node& n) { c.tls_client_ca = n.as<std::string>(); }},
      {"bootstrap_token_file",
       [&c](const YAML::Node& n) { c.bootstrap_token_file = n.as<std::string>(); }},
      {"worker_token_file",
       [&c](const YAML::Node& n) { c.worker_token_file = n.as<std::string>(); }},
      {"allow_anonymous", [&c](const YAML::Node& n) { c.allow_anonymous = n.as<bool>(); }},
      {"insecure", [&c](const YAML::Node& n) { c.insecure = n.as<bool>(); }},
      {"ports_file", [&c](const YAML::Node& n) { c.ports_file = n.as<std::string>(); }},
      {"log_level", [&c](const YAML::Node& n) { c.log_level = n.as<std::string>(); }},
      {"log_json", [&c](const YAML::Node& n) { c.log_json = n.as<bool>(); }},
      {"heartbeat_seconds", [&c](const YAML::Node& n) { c.heartbeat_seconds = n.as<double>(); }},
      {"lease_seconds", [&c](const YAML::Node& n) { c.lease_seconds = n.as<double>(); }},
      {"blob_grace_seconds", [&c](const YAML::Node& n) { c.blob_grace_seconds = n.as<double>(); }},
  };
}

std::string Place(const std::string& path, const YAML::Mark& mark) {
  return absl::StrCat(path, ":", mark.line + 1, ": ");
}

absl::Status ApplyNode(const std::string& path, const YAML::Node& root, Config& config) {
  if (root.IsNull()) return absl::OkStatus();
  if (!root.IsMap()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": must hold KEY: VALUE lines"));
  }
  const Setters setters = SettersOf(config);
  std::set<std::string> seen;
  for (const auto& entry : root) {
    const auto key = entry.first.as<std::string>();
    // The YAML library takes it in silence.
    if (!seen.insert(key).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(Place(path, entry.first.Mark()), key, " is given twice"));
    }
    const auto setter = setters.find(key);
    if (setter == setters.end()) {
      std::vector<std::string> names;
      for (const auto& [name, set] : setters) names.push_back(name);
      return absl::InvalidArgumentError(absl::StrCat(
          Place(path, entry.first.Mark()), "unknown key \"", key, "\"; ", Suggest(key, names)));
    }
    try {
      setter->second(entry.second);
    } catch (const YAML::Exception&) {
      return absl::InvalidArgumentError(absl::StrCat(Place(path, entry.second.Mark()), key,
                                                     " has a value of the wrong kind; see "
                                                     "tundra-coordinator --print-config"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadConfigFile(const std::string& path, Config& config) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 1 << 20));
  try {
    return ApplyNode(path, YAML::Load(text), config);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(Place(path, error.mark), error.msg));
  }
}

absl::Status CheckConfig(const Config& c) {
  if (!(c.heartbeat_seconds >= 0.05 && c.heartbeat_seconds <= 60)) {
    return absl::InvalidArgumentError("heartbeat_seconds must be 0.05 to 60");
  }
  if (!(c.lease_seconds >= 2 * c.heartbeat_seconds && c.lease_seconds <= 3600)) {
    return absl::InvalidArgumentError(
        "lease_seconds must be at least twice heartbeat_seconds, and at most 3600");
  }
  if (!(c.blob_grace_seconds >= 60)) {
    return absl::InvalidArgumentError("blob_grace_seconds must be 60 or more");
  }
  return absl::OkStatus();
}

std::string SampleConfig() {
  return R"(# Settings of tundra-coordinator. Every key may be left out; flags win over this
# file. Give it with --config FILE.

# Address of the gRPC API, for clients and workers. Port 0 takes any free port.
listen: 127.0.0.1:7700

# Address of /metrics, /healthz and /readyz.
http: 127.0.0.1:7701

# Address of the web page and of the API as JSON.
web: 127.0.0.1:7702

# Where jobs, data sets, checkpoints and adapters are kept. One coordinator a
# folder. Empty: $TUNDRA_HOME/coordinator, or ~/.local/share/tundra/coordinator.
data_dir: ""

# The server's certificate chain and its private key, PEM; read again when they
# change. Needed for a listen address that other machines can reach.
tls_cert: ""
tls_key: ""

# Workers' certificates must chain to these, PEM: a worker proves who it is by its
# certificate. Needed for workers on other machines.
tls_client_ca: ""

# A file with the first admin's token, 32 characters or more; read only while
# there is no admin's token. Further tokens: tundra admin tokens create.
bootstrap_token_file: ""

# A file with a secret that lets workers in without a certificate; on loopback
# only (or with insecure). Read again when it changes.
worker_token_file: ""

# Everybody is an admin and may be a worker, without a token. Loopback only.
allow_anonymous: false

# Allows a listen address that other machines can reach without TLS: jobs, data
# and tokens cross the network readable. Tokens are needed all the same.
insecure: false

# Written once it serves, as JSON: {"grpc": PORT, "http": PORT, "web": PORT,
# "pid": PID}.
ports_file: ""

# trace, debug, info, warn, error or off; as JSON lines for log collectors.
log_level: info
log_json: false

# How often workers report, and after how long without a report one is lost.
heartbeat_seconds: 2
lease_seconds: 15

# How long a blob that nothing refers to is kept.
blob_grace_seconds: 3600
)";
}

}  // namespace tundra::coordinator
