// tundra validate, datasets, bases.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/commands.h"
#include "client/data_report.h"
#include "client/output.h"
#include "client/rpc_calls.h"
#include "common/status.h"

namespace tundra::client {

std::string SummaryText(const tundra::v1::ValidationReport& report, const std::string& name) {
  return absl::StrFormat(
      "%s: %d rows (%s), %s tokens, %s of them targets, longest row %d tokens", name, report.rows(),
      report.format(), HumanCount(static_cast<double>(report.tokens())),
      HumanCount(static_cast<double>(report.target_tokens())), report.longest_row());
}

std::string FindingsText(const tundra::v1::ValidationReport& report, const std::string& name) {
  std::vector<std::string> lines;
  const auto add = [&](const tundra::v1::Finding& finding, const char* kind) {
    // The service knows the upload by its file name; the user knows a path.
    lines.push_back(finding.line() > 0 ? absl::StrCat("  ", name, ":", finding.line(), ": ", kind,
                                                      finding.message())
                                       : absl::StrCat("  ", name, ": ", kind, finding.message()));
  };
  for (const auto& finding : report.errors()) add(finding, "");
  if (report.error_count() > report.errors_size()) {
    lines.push_back(absl::StrCat("  … and ", report.error_count() - report.errors_size(), " more"));
  }
  for (const auto& finding : report.warnings()) add(finding, "warning: ");
  return absl::StrJoin(lines, "\n");
}

std::string PreviewText(const tundra::v1::ValidationReport& report, bool colours) {
  const std::string begin = colours ? "\x1b[32m" : "[[";
  const std::string end = colours ? "\x1b[0m" : "]]";
  std::string text;
  for (const auto& row : report.preview()) {
    text += absl::StrCat("line ", row.line(), ", ", row.tokens_size(), " tokens (",
                         colours ? "green" : "in [[ ]]", " is trained):\n");
    bool trained = false;
    for (const auto& token : row.tokens()) {
      if (token.trained() != trained) text += token.trained() ? begin : end;
      trained = token.trained();
      text += Printable(token.text());
    }
    if (trained) text += end;
    text += "\n\n";
  }
  return text;
}

namespace {

struct ValidateFlags {
  std::string data;
  std::string base;
  int preview = 0;
  int max_seq_length = 0;
  bool truncate = false;
  std::string loss_on = "assistant";
};

int Validate(const CommonFlags& common, const ValidateFlags& flags) {
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  tundra::v1::ValidateDatasetRequest request;
  request.set_name(flags.data);
  if (!flags.data.starts_with("datasets/")) {
    const auto dataset = UploadDataset(*service, flags.data, common.json());
    if (!dataset.ok()) return Fail(dataset.status());
    request.set_name(dataset->name());
  }
  request.set_base(flags.base);
  request.set_max_seq_length(flags.max_seq_length);
  request.set_truncate(flags.truncate);
  request.set_preview_rows(flags.preview);
  request.set_loss_on(flags.loss_on == "all"          ? tundra::v1::ALL
                      : flags.loss_on == "completion" ? tundra::v1::COMPLETION
                                                      : tundra::v1::ASSISTANT);
  grpc::ClientContext context;  // without a deadline: a large data set takes its time
  tundra::v1::ValidationReport report;
  const grpc::Status status = service->datasets()->ValidateDataset(&context, request, &report);
  if (!status.ok()) return Fail(service->Explain(status));
  if (common.json()) {
    std::printf("%s\n", ToJson(report).c_str());
    return report.valid() ? kOk : kBadInput;
  }
  std::printf("%s", PreviewText(report, OnTerminal()).c_str());
  std::printf("%s\n", Printable(SummaryText(report, flags.data)).c_str());
  std::string histogram;
  for (int i = 0; i < report.length_bounds_size() && i < report.length_counts_size(); ++i) {
    if (report.length_counts(i) == 0) continue;
    histogram += absl::StrFormat("  up to %5d tokens: %d rows\n", report.length_bounds(i),
                                 report.length_counts(i));
  }
  std::printf("%s", histogram.c_str());
  const std::string findings = FindingsText(report, flags.data);
  if (!findings.empty()) std::fprintf(stderr, "%s\n", Printable(findings).c_str());
  if (!report.valid()) {
    std::fprintf(stderr, "tundra: %s: %lld fault%s; a job cannot train on it\n", flags.data.c_str(),
                 static_cast<long long>(report.error_count()),
                 report.error_count() == 1 ? "" : "s");
    return kBadInput;
  }
  return kOk;
}

int ListDatasets(const CommonFlags& common) {
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  tundra::v1::ListDatasetsResponse all;
  tundra::v1::ListDatasetsRequest request;
  request.set_page_size(1000);
  do {
    grpc::ClientContext context;
    Prepare(&context);
    tundra::v1::ListDatasetsResponse page;
    const grpc::Status status = service->datasets()->ListDatasets(&context, request, &page);
    if (!status.ok()) return Fail(service->Explain(status));
    request.set_page_token(page.next_page_token());
    page.clear_next_page_token();
    all.MergeFrom(page);
  } while (!request.page_token().empty());
  if (common.json()) {
    std::printf("%s\n", ToJson(all).c_str());
    return kOk;
  }
  const auto tenants = HasOtherTenants(*service, all.datasets());
  if (!tenants.ok()) return Fail(tenants.status());
  std::vector<std::string> header = {"NAME", "FILE", "SIZE", "CREATED"};
  if (*tenants) header.emplace_back("TENANT");
  Table table(header);
  for (const auto& d : all.datasets()) {
    std::vector<std::string> row = {d.name(), d.display_name(), HumanBytes(d.size_bytes()),
                                    HumanTime(d.create_time())};
    if (*tenants) row.push_back(d.tenant());
    table.Add(row);
  }
  std::printf("%s", table.Render().c_str());
  return kOk;
}

int DeleteDatasets(const CommonFlags& common, const std::vector<std::string>& names) {
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  for (const std::string& name : names) {
    grpc::ClientContext context;
    Prepare(&context);
    tundra::v1::DeleteDatasetRequest request;
    request.set_name(name.starts_with("datasets/") ? name : "datasets/" + name);
    google::protobuf::Empty empty;
    const grpc::Status status = service->datasets()->DeleteDataset(&context, request, &empty);
    if (!status.ok()) return Fail(service->Explain(status));
    if (!common.json()) std::printf("deleted %s\n", request.name().c_str());
  }
  if (common.json()) std::printf("{}\n");
  return kOk;
}

int ListBases(const CommonFlags& common) {
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  grpc::ClientContext context;
  Prepare(&context);
  tundra::v1::ListBasesRequest request;
  request.set_page_size(1000);
  tundra::v1::ListBasesResponse response;
  const grpc::Status status = service->bases()->ListBases(&context, request, &response);
  if (!status.ok()) return Fail(service->Explain(status));
  if (common.json()) {
    std::printf("%s\n", ToJson(response).c_str());
    return kOk;
  }
  Table table({"BASE", "ARCHITECTURE", "PARAMETERS", "DTYPE", "MAX LENGTH", "WORKERS", "HASH"});
  for (const auto& b : response.bases()) {
    table.Add({b.display_name(), b.architecture(), HumanCount(static_cast<double>(b.parameters())),
               b.dtype(), std::to_string(b.max_seq_length()), std::to_string(b.worker_count()),
               b.name().substr(0, 18)});
  }
  std::printf("%s", table.Render().c_str());
  return kOk;
}

}  // namespace

void AddDataCommands(CLI::App& app, CommonFlags& common, Run* run) {
  auto flags = std::make_shared<ValidateFlags>();
  CLI::App* validate = NewCommand(
      app, common, "validate",
      "Read a data set exactly as training on a base would, and report every fault by line");
  validate->add_option("DATA.jsonl", flags->data, "A JSONL file (.gz and .zst too), or datasets/ID")
      ->required();
  validate->add_option("--base", flags->base, "The base to train on")->required();
  validate->add_option("--preview", flags->preview, "Show so many rows, token by token")
      ->check(CLI::Range(0, 100));
  validate->add_option("--max-seq-length", flags->max_seq_length, "Longest row in tokens")
      ->check(CLI::Range(0, 1 << 30));
  validate->add_flag("--truncate", flags->truncate, "Cut longer rows instead of refusing them");
  validate->add_option("--loss-on", flags->loss_on, "assistant, completion or all")
      ->check(CLI::IsMember({"assistant", "completion", "all"}))
      ->capture_default_str();
  validate->callback([=, &common] { *run = [=, &common] { return Validate(common, *flags); }; });

  CLI::App* datasets =
      NewCommand(app, common, "datasets", "List the data sets that were uploaded, or delete some");
  auto doomed = std::make_shared<std::vector<std::string>>();
  CLI::App* remove =
      NewCommand(*datasets, common, "delete",
                 "Delete data sets; refused while a job that has not ended uses one");
  remove->add_option("DATASET", *doomed, "datasets/ID, as `tundra datasets` lists them")
      ->required();
  remove->callback(
      [=, &common] { *run = [=, &common] { return DeleteDatasets(common, *doomed); }; });
  datasets->callback([=, &common] {
    // A command's own callback runs after those of its subcommands.
    if (datasets->got_subcommand(remove)) return;
    *run = [&common] { return ListDatasets(common); };
  });
  NewCommand(app, common, "bases", "List the base models that workers hold")
      ->callback([=, &common] { *run = [&common] { return ListBases(common); }; });
}

}  // namespace tundra::client
