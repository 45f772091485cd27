// tundra: submit fine-tuning jobs, watch them, fetch what they made.
#include <signal.h>

#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "client/commands.h"
#include "client/output.h"
#include "common/suggest.h"
#include "common/version.h"

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

JOB is a job's id, or its name (the newest of that name of your own tenant).
Exit codes: 0 ok, 1 the job failed, 2 bad usage or input, 3 service unreachable.)";

int UnknownCommand(const CLI::App& app, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  std::fprintf(stderr, "tundra: there is no command '%s'; %s\n", word.c_str(),
               Suggest(word, names).c_str());
  return kBadInput;
}

int Main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  CLI::App app{kHelp, "tundra"};
  app.set_version_flag("--version", ProgramVersion());
  app.require_subcommand(1);
  app.fallthrough(false);
  CommonFlags common;
  AddCommonFlags(app, common);
  Run run;
  AddSubmit(app, common, &run);
  AddJobCommands(app, common, &run);
  AddDownload(app, common, &run);
  AddGenerate(app, common, &run);
  AddDataCommands(app, common, &run);
  AddLocal(app, common, &run);
  AddDoctor(app, common, &run);
  AddAdmin(app, common, &run);
  if (argc == 1) {
    std::printf("%s\n", app.help().c_str());
    return kBadInput;
  }
  for (int i = 1; i < argc; ++i) {
    if (IsUtf8(argv[i])) continue;
    return Fail(absl::InvalidArgumentError(absl::StrCat(
        "argument ", i, ", ", argv[i], ", is not valid UTF-8; names and texts must be")));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (app.get_subcommands().empty() && argv[1][0] != '-') return UnknownCommand(app, argv[1]);
    return app.exit(error) == 0 ? kOk : kBadInput;
  }
  return run();
}

}  // namespace

}  // namespace tundra::client

int main(int argc, char** argv) { return tundra::client::Main(argc, argv); }
