// The commands. Each returns the exit code of the program.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "client/address.h"

namespace CLI {
class App;
}

namespace tundra::client {

// Flags that every command takes.
struct CommonFlags {
  AddressFlags address;
  // "text" or "json".
  std::string output = "text";
  bool json() const { return output == "json"; }
};

// Set by the command that was parsed.
using Run = std::function<int()>;

// Each adds its commands to `app`, which set *run.
void AddSubmit(CLI::App& app, CommonFlags& common, Run* run);
void AddJobCommands(CLI::App& app, CommonFlags& common, Run* run);
void AddDataCommands(CLI::App& app, CommonFlags& common, Run* run);
void AddDownload(CLI::App& app, CommonFlags& common, Run* run);
void AddGenerate(CLI::App& app, CommonFlags& common, Run* run);
void AddLocal(CLI::App& app, CommonFlags& common, Run* run);
void AddDoctor(CLI::App& app, CommonFlags& common, Run* run);
// whoami, admin tenants | tokens | workers | audit
void AddAdmin(CLI::App& app, CommonFlags& common, Run* run);

// --address, --context, --token-file, --tls-ca, --tls, --insecure and --output, before the
// command's name too.
void AddCommonFlags(CLI::App& app, CommonFlags& common);

// A command with the common flags on it.
CLI::App* NewCommand(CLI::App& app, CommonFlags& common, const std::string& name,
                     const std::string& help);

}  // namespace tundra::client
