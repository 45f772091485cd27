#include "client/address.h"

#include <yaml-cpp/yaml.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_join.h"
#include "common/files.h"
#include "common/status.h"

namespace tundra::client {
namespace {

std::string Env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

absl::StatusOr<Address> FromContext(const YAML::Node& config, const std::string& name) {
  const YAML::Node contexts = config["contexts"];
  if (contexts && contexts.IsMap() && contexts[name] && contexts[name]["address"]) {
    return Address{contexts[name]["address"].as<std::string>(), "context " + name};
  }
  std::vector<std::string> known;
  if (contexts && contexts.IsMap()) {
    for (const auto& item : contexts) known.push_back(item.first.as<std::string>());
  }
  return absl::InvalidArgumentError(absl::StrCat(
      ConfigPath(), ": no context '", name, "' with an address; ",
      known.empty() ? std::string("there are none") : "there are: " + absl::StrJoin(known, ", ")));
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
  if (!flags.address.empty()) return Address{flags.address, "--address"};
  YAML::Node config;
  if (FileExists(ConfigPath())) {
    try {
      config = YAML::LoadFile(ConfigPath());
    } catch (const YAML::Exception& error) {
      return absl::InvalidArgumentError(absl::StrCat(ConfigPath(), ": ", error.what()));
    }
  }
  try {
    const std::string context = !flags.context.empty() ? flags.context : Env("TUNDRA_CONTEXT");
    if (!context.empty()) return FromContext(config, context);
    if (const std::string value = Env("TUNDRA_ADDRESS"); !value.empty()) {
      return Address{value, "$TUNDRA_ADDRESS"};
    }
    if (config["current_context"]) {
      return FromContext(config, config["current_context"].as<std::string>());
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(ConfigPath(), ": ", error.what()));
  }
  const std::string local = LocalStatePath(DefaultDataDir());
  if (const auto bytes = ReadFile(local); bytes.ok()) {
    const auto state = nlohmann::json::parse(*bytes, nullptr, /*allow_exceptions=*/false);
    if (state.is_object() && state.contains("address") && state["address"].is_string()) {
      return Address{state["address"].get<std::string>(), local};
    }
  }
  return Address{"127.0.0.1:7700", "the default"};
}

}  // namespace tundra::client
