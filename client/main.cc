// tundra: submit fine-tuning jobs, watch them, fetch what they made.
#include <signal.h>

#include <CLI/CLI.hpp>

#include "client/commands.h"
#include "client/output.h"

namespace tundra::client {
namespace {

constexpr char kHelp[] =
    R"(tundra trains LoRA adapters on frozen base models, with the same bytes on any number of workers.

First steps:
  tundra local up --detach --base-dir examples/bases   run the service on this machine
  tundra validate train.jsonl --base tiny-tales        check a data set
  tundra submit job.yaml --follow                      train
  tundra download JOB --to my-adapter                  fetch the adapter (PEFT layout)
  tundra generate --base tiny-tales --adapter JOB --prompt "Where is my parcel?"

JOB is a job's id, or its name (the newest of that name).
Exit codes: 0 ok, 1 the job failed, 2 bad usage or input, 3 service unreachable.)";

int Main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  CLI::App app{kHelp, "tundra"};
  app.set_version_flag("--version", TUNDRA_VERSION);
  app.require_subcommand(1);
  app.fallthrough(false);
  CommonFlags common;
  Run run;
  AddSubmit(app, common, &run);
  AddJobCommands(app, common, &run);
  AddDownload(app, common, &run);
  AddGenerate(app, common, &run);
  AddDataCommands(app, common, &run);
  AddLocal(app, common, &run);
  AddDoctor(app, common, &run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kOk : kBadInput;
  }
  return run();
}

}  // namespace

CLI::App* NewCommand(CLI::App& app, CommonFlags& common, const std::string& name,
                     const std::string& help) {
  CLI::App* command = app.add_subcommand(name, help);
  command->add_option("--address", common.address.address, "Service to talk to, HOST:PORT");
  command->add_option("--context", common.address.context,
                      "Named context of " + ConfigPath());
  command->add_flag("--insecure", common.address.insecure,
                    "Talk to an address beyond loopback although nothing is encrypted yet");
  command->add_option("-o,--output", common.output, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  return command;
}

}  // namespace tundra::client

int main(int argc, char** argv) { return tundra::client::Main(argc, argv); }
