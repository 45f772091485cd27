#include "client/address.h"

#include <yaml-cpp/yaml.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "absl/strings/str_join.h"
#include "client/process.h"
#include "common/files.h"
#include "common/secret.h"
#include "common/status.h"

namespace tundra::client {
namespace {

std::string Env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// A path of the configuration file; "~/" is the home folder.
std::string Expand(const std::string& path) {
  return path.starts_with("~/") ? Env("HOME") + path.substr(1) : path;
}

absl::StatusOr<Address> FromContext(const YAML::Node& config, const std::string& name) {
  const YAML::Node contexts = config["contexts"];
  if (contexts && contexts.IsMap() && contexts[name] && contexts[name]["address"]) {
    const YAML::Node context = contexts[name];
    Address address{context["address"].as<std::string>(), "context " + name, {}};
    if (context["tls"]) address.security.tls = context["tls"].as<bool>();
    if (context["tls_ca"]) {
      address.security.tls = true;
      address.security.files.ca = Expand(context["tls_ca"].as<std::string>());
    }
    if (context["token_file"]) {
      address.security.token_file = Expand(context["token_file"].as<std::string>());
    }
    return address;
  }
  std::vector<std::string> known;
  if (contexts && contexts.IsMap()) {
    for (const auto& item : contexts) known.push_back(item.first.as<std::string>());
  }
  return absl::InvalidArgumentError(absl::StrCat(
      ConfigPath(), ": no context '", name, "' with an address; ",
      known.empty() ? std::string("there are none") : "there are: " + absl::StrJoin(known, ", ")));
}

// The YAML library takes a key that is given twice in silence. Looks into maps in maps, which is
// as deep as the file goes.
absl::Status CheckKeys(const YAML::Node& node) {
  if (!node.IsMap()) return absl::OkStatus();
  std::set<std::string> seen;
  for (const auto& item : node) {
    if (!item.first.IsScalar() || !seen.insert(item.first.Scalar()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(ConfigPath(), ":", item.first.Mark().line + 1, ": ",
                       item.first.IsScalar() ? item.first.Scalar() + " is given twice"
                                             : "a key must be a word"));
    }
    RETURN_IF_ERROR(CheckKeys(item.second));
  }
  return absl::OkStatus();
}

absl::StatusOr<YAML::Node> ReadConfig() {
  if (!FileExists(ConfigPath())) {
    if (Env("TUNDRA_CONFIG").empty()) return YAML::Node();
    return absl::NotFoundError(absl::StrCat("$TUNDRA_CONFIG names ", ConfigPath(),
                                            ", which is not there: write it or unset it"));
  }
  try {
    YAML::Node config = YAML::LoadFile(ConfigPath());
    RETURN_IF_ERROR(CheckKeys(config));
    return config;
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(ConfigPath(), ": ", error.what()));
  }
}

struct LocalService {
  std::string address;
  std::string token_file;
};

// What `tundra local up` runs; empty when it runs nothing.
LocalService FindLocal() {
  const auto bytes = ReadFile(LocalStatePath(DefaultDataDir()));
  if (!bytes.ok()) return {};
  const auto state = nlohmann::json::parse(*bytes, nullptr, /*allow_exceptions=*/false);
  const auto text = [&](const char* key) {
    const bool there = state.is_object() && state.contains(key) && state[key].is_string();
    return there ? state[key].get<std::string>() : std::string();
  };
  LocalService local{text("address"), ""};
  // Once its coordinator has ended, its port may be somebody else's, who must not get the token.
  const auto processes = state.is_object() ? state.find("processes") : state.end();
  if (processes != state.end() && processes->is_array() && !processes->empty()) {
    const auto& first = processes->front();
    if (first.is_object() && first.contains("pid") && first["pid"].is_number_integer() &&
        first.contains("start_time") && first["start_time"].is_string() &&
        !first["start_time"].get_ref<const std::string&>().empty() &&
        StartTime(first["pid"].get<pid_t>()) == first["start_time"].get<std::string>()) {
      local.token_file = text("token_file");
    }
  }
  return local;
}

absl::StatusOr<Address> Choose(const AddressFlags& flags, const LocalService& local) {
  if (!flags.address.empty()) return Address{flags.address, "--address", {}};
  ASSIGN_OR_RETURN(const YAML::Node config, ReadConfig());
  try {
    const std::string context = !flags.context.empty() ? flags.context : Env("TUNDRA_CONTEXT");
    if (!context.empty()) return FromContext(config, context);
    if (const std::string value = Env("TUNDRA_ADDRESS"); !value.empty()) {
      return Address{value, "$TUNDRA_ADDRESS", {}};
    }
    if (config["current_context"]) {
      return FromContext(config, config["current_context"].as<std::string>());
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(ConfigPath(), ": ", error.what()));
  }
  if (!local.address.empty()) {
    return Address{local.address, LocalStatePath(DefaultDataDir()), {}};
  }
  return Address{"127.0.0.1:7700", "the default", {}};
}

// Flags come before the context's words, these before the environment.
absl::Status Secure(const AddressFlags& flags, const LocalService& local, Address& address) {
  ClientSecurity& security = address.security;
  security.insecure = flags.insecure;
  if (!flags.tls_ca.empty()) security.files.ca = flags.tls_ca;
  if (security.files.ca.empty() && !flags.tls && !security.tls) {
    security.files.ca = Env("TUNDRA_TLS_CA");
  }
  security.tls = security.tls || flags.tls || !security.files.ca.empty();
  if (!flags.token_file.empty()) security.token_file = flags.token_file;
  if (!security.token_file.empty()) return absl::OkStatus();
  if (const std::string token = Env("TUNDRA_TOKEN"); !token.empty()) {
    ASSIGN_OR_RETURN(security.token, CheckSecret(token, "$TUNDRA_TOKEN"));
    return absl::OkStatus();
  }
  security.token_file = Env("TUNDRA_TOKEN_FILE");
  if (security.token_file.empty() && address.value == local.address) {
    security.token_file = local.token_file;
  }
  return absl::OkStatus();
}

}  // namespace

std::string ConfigPath() {
  if (const std::string path = Env("TUNDRA_CONFIG"); !path.empty()) return path;
  std::string root = Env("XDG_CONFIG_HOME");
  if (root.empty()) root = Env("HOME") + "/.config";
  return root + "/tundra/config.yaml";
}

std::string LocalStatePath(const std::string& data_dir) { return data_dir + "/local.json"; }

absl::StatusOr<Address> FindAddress(const AddressFlags& flags) {
  const LocalService local = FindLocal();
  ASSIGN_OR_RETURN(Address address, Choose(flags, local));
  RETURN_IF_ERROR(Secure(flags, local, address));
  return address;
}

}  // namespace tundra::client
