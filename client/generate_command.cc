// tundra generate: an answer to a prompt, as it is made.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "client/adapter_upload.h"
#include "client/commands.h"
#include "client/output.h"
#include "client/rpc_calls.h"
#include "common/flag_range.h"
#include "common/status.h"

namespace tundra::client {
namespace {

struct GenerateFlags {
  std::string base;
  std::string adapter;
  std::string prompt;
  bool raw = false;
  int max_tokens = 64;
  double temperature = 0;
  double top_p = 1;
  int64_t seed = 0;
};

// "uploads/ID" of a folder, or the name of a job's adapter.
absl::StatusOr<std::string> AdapterName(const Service& service, const std::string& text) {
  if (text.empty() || text.starts_with("uploads/")) return text;
  std::error_code ignored;
  if (std::filesystem::is_directory(text, ignored)) return UploadAdapter(service, text);
  if (text.find("/checkpoints/") != std::string::npos) return text;
  auto name = service.JobName(text);
  if (!name.ok()) {
    return Annotate(name.status(), "--adapter takes a job or an adapter folder");
  }
  return *name + "/adapter";
}

int RunGenerate(const CommonFlags& common, const GenerateFlags& flags) {
  if (flags.prompt.empty()) {
    return Fail(absl::InvalidArgumentError("--prompt is empty; say what to answer"));
  }
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  const auto adapter = AdapterName(*service, flags.adapter);
  if (!adapter.ok()) return Fail(adapter.status());
  tundra::v1::GenerateRequest request;
  request.set_base(flags.base);
  request.set_adapter(*adapter);
  (flags.raw ? *request.mutable_raw_prompt() : *request.mutable_prompt()) = flags.prompt;
  request.set_max_tokens(flags.max_tokens);
  request.set_temperature(flags.temperature);
  request.set_top_p(flags.top_p);
  request.set_seed(flags.seed);
  grpc::ClientContext context;
  Prepare(&context, absl::Hours(1));
  auto stub = service->generate();
  auto reader = stub->Generate(&context, request);
  tundra::v1::GenerateResponse response;
  std::string text;
  std::string reason;
  int tokens = 0;
  while (reader->Read(&response)) {
    text += response.text();
    tokens = std::max(tokens, response.tokens());
    if (!response.finish_reason().empty()) reason = response.finish_reason();
    if (common.json()) continue;
    const std::string piece = OnTerminal() ? Printable(response.text()) : response.text();
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  }
  const grpc::Status status = reader->Finish();
  if (!common.json() && !text.empty()) std::printf("\n");
  if (!status.ok()) return Fail(service->Explain(status));
  if (common.json()) {
    const nlohmann::json json = {{"text", text}, {"tokens", tokens}, {"finish_reason", reason}};
    std::printf("%s\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  }
  return kOk;
}

}  // namespace

void AddGenerate(CLI::App& app, CommonFlags& common, Run* run) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command =
      NewCommand(app, common, "generate", "Answer a prompt with a base, or a base and an adapter");
  command->add_option("--base", flags->base, "The base (`tundra bases` lists them)")->required();
  command->add_option("--adapter", flags->adapter,
                      "A job (its final adapter), jobs/ID/checkpoints/STEP, or an adapter folder");
  command->add_option("--prompt", flags->prompt, "What the user says")->required();
  command->add_flag("--raw", flags->raw, "Take the prompt as it is, without the chat template");
  command->add_option("--max-tokens", flags->max_tokens, "Longest answer")
      ->check(CLI::Range(1, 8192))
      ->capture_default_str();
  command->add_option("--temperature", flags->temperature, "0 takes the likeliest token each time")
      ->check(FiniteRange(0.0, 10.0))
      ->capture_default_str();
  command->add_option("--top-p", flags->top_p, "Least set of tokens with this probability")
      ->check(CLI::Range(1e-6, 1.0))
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "Of the random numbers")->capture_default_str();
  command->callback([=, &common] { *run = [=, &common] { return RunGenerate(common, *flags); }; });
}

}  // namespace tundra::client
