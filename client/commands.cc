#include "client/commands.h"

#include <CLI/CLI.hpp>

namespace tundra::client {

CLI::App* NewCommand(CLI::App& app, CommonFlags& common, const std::string& name,
                     const std::string& help) {
  CLI::App* command = app.add_subcommand(name, help);
  AddCommonFlags(*command, common);
  return command;
}

void AddCommonFlags(CLI::App& app, CommonFlags& common) {
  app.add_option("--address", common.address.address, "Service to talk to, HOST:PORT");
  app.add_option("--context", common.address.context, "Named context of " + ConfigPath());
  app.add_option("--token-file", common.address.token_file,
                 "File with the token to show ($TUNDRA_TOKEN holds one itself)");
  app.add_option("--tls-ca", common.address.tls_ca,
                 "Encrypt, and trust a service whose certificate chains to this PEM file");
  app.add_flag("--tls", common.address.tls, "Encrypt, and trust the system's certificate roots");
  app.add_flag("--insecure", common.address.insecure,
               "Talk to an address beyond loopback without encryption");
  app.add_option("-o,--output", common.output, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
}

}  // namespace tundra::client
