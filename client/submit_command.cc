// tundra submit: reads the job file, uploads and validates its data sets,
// creates the job, and follows it if asked.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/str_join.h"
#include "client/commands.h"
#include "client/data_report.h"
#include "client/job_file.h"
#include "client/output.h"
#include "client/rpc_calls.h"
#include "client/watch.h"
#include "common/ids.h"
#include "common/rpc.h"
#include "common/status.h"

namespace tundra::client {
namespace {

constexpr char kHelp[] = R"(Submit a job: upload its data, check it, create the job.

A job file (all but name, base and dataset.train may be left out):
  name: pirate-support
  base: tiny-tales                       # `tundra bases` lists them
  dataset: {train: train.jsonl, validation: val.jsonl}
  lora: {rank: 8, alpha: 16, dropout: 0.0, target_modules: all-linear, use_rslora: false}
  training:
    epochs: 3                            # or max_steps
    batch_size: 16                       # rows per optimizer step, over all ranks
    micro_batch_tokens: 1024
    max_seq_length: 512
    packing: true
    learning_rate: 2e-4
    lr_scheduler: cosine                 # constant | linear | cosine
    warmup_ratio: 0.03
    weight_decay: 0.0
    max_grad_norm: 1.0
    precision: f32                       # f32 | bf16
    loss_on: assistant                   # assistant | completion | all
    seed: 17
  resources: {devices: 2, shards: auto}
  checkpoint: {every_steps: 20, keep: 2}
  eval: {every_steps: 20, samples: ["Where is my parcel?"]})";

struct SubmitFlags {
  std::string file;
  bool follow = false;
  bool dry_run = false;
};

// A data set as the job wants it: uploaded, unless it names one that is.
absl::StatusOr<std::string> BringDataset(const Service& service, const JobFile& file,
                                         const std::string& written, bool quiet) {
  if (written.empty() || written.starts_with("datasets/")) return written;
  ASSIGN_OR_RETURN(const auto dataset, UploadDataset(service, file.Resolve(written), quiet));
  return dataset.name();
}

absl::Status Validate(const Service& service, const JobFile& file, const std::string& dataset,
                      const std::string& written, bool quiet) {
  if (dataset.empty()) return absl::OkStatus();
  const auto& training = file.job.spec().training();
  tundra::v1::ValidateDatasetRequest request;
  request.set_name(dataset);
  request.set_base(file.job.spec().base());
  request.set_max_seq_length(training.max_seq_length());
  request.set_truncate(training.truncate());
  request.set_loss_on(training.loss_on());
  grpc::ClientContext context;  // without a deadline: a large data set takes its time
  tundra::v1::ValidationReport report;
  const grpc::Status status = service.datasets()->ValidateDataset(&context, request, &report);
  if (!status.ok()) return service.Explain(status);
  if (!report.valid()) {
    return absl::InvalidArgumentError(absl::StrCat(written, ": ", report.error_count(),
                                                   report.error_count() == 1 ? " fault" : " faults",
                                                   "\n", FindingsText(report, written)));
  }
  if (!quiet) std::printf("%s\n", Printable(SummaryText(report, written)).c_str());
  return absl::OkStatus();
}

// The service's faults with the lines of the job file.
absl::Status WithLines(const Service& service, const JobFile& file, const grpc::Status& status) {
  const auto violations = Violations(status);
  if (violations.empty()) return service.Explain(status);
  std::vector<std::string> lines;
  for (const auto& v : violations) {
    std::string field = v.field;
    for (const char* prefix : {"job.spec.", "job."}) {
      if (field.starts_with(prefix)) field = field.substr(std::string(prefix).size());
    }
    if (field == "display_name") field = "name";  // as the job file calls it
    lines.push_back(absl::StrCat(file.Place(v.field), field, ": ", v.description));
  }
  // An error has room for so many only.
  const std::string& message = status.error_message();
  if (const size_t more = message.rfind("; and ");
      more != std::string::npos && message.ends_with(" more faults")) {
    lines.push_back(message.substr(more + 2));
  }
  return absl::InvalidArgumentError(absl::StrJoin(lines, "\n"));
}

absl::StatusOr<tundra::v1::Job> Create(const Service& service, JobFile& file, bool dry_run,
                                       bool quiet) {
  auto* dataset = file.job.mutable_spec()->mutable_dataset();
  const std::string train = dataset->train();
  const std::string validation = dataset->validation();
  if (train.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path, ": dataset.train is missing; give it a JSONL file, or datasets/ID"));
  }
  if (file.job.spec().base().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path, ": base is missing; `tundra bases` lists those there are"));
  }
  ASSIGN_OR_RETURN(*dataset->mutable_train(), BringDataset(service, file, train, quiet));
  ASSIGN_OR_RETURN(*dataset->mutable_validation(), BringDataset(service, file, validation, quiet));

  // The spec first: one wrong number should not wait for a long validation.
  tundra::v1::CreateJobRequest request;
  *request.mutable_job() = file.job;
  request.set_validate_only(true);
  tundra::v1::Job job;
  {
    grpc::ClientContext context;  // without a deadline, as below
    const grpc::Status status = service.jobs()->CreateJob(&context, request, &job);
    const bool of_the_data = status.error_code() == grpc::StatusCode::FAILED_PRECONDITION;
    if (!status.ok() && !of_the_data) return WithLines(service, file, status);
  }
  RETURN_IF_ERROR(Validate(service, file, dataset->train(), train, quiet));
  RETURN_IF_ERROR(Validate(service, file, dataset->validation(), validation, quiet));
  request.set_validate_only(dry_run);
  request.set_request_id(dry_run ? "" : NewIdValue("submit"));
  grpc::Status status;
  // Repeating is safe: the request id makes it one job.
  for (int tries = 0; tries < 3; ++tries) {
    grpc::ClientContext context;
    Prepare(&context, absl::Minutes(5));
    status = service.jobs()->CreateJob(&context, request, &job);
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE) break;
    service.AwaitNextTry(absl::Milliseconds(500));
  }
  if (!status.ok()) return WithLines(service, file, status);
  return job;
}

int Submit(const CommonFlags& common, const SubmitFlags& flags) {
  auto file = ReadJobFile(flags.file);
  if (!file.ok()) return Fail(file.status());
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  const auto job = Create(*service, *file, flags.dry_run, common.json());
  if (!job.ok()) return Fail(job.status());
  if (flags.dry_run) {
    std::printf("%s\n", ToJson(*job).c_str());
    return kOk;
  }
  if (common.json()) {
    std::printf("%s\n", ToJson(*job, flags.follow).c_str());
  } else {
    std::printf("submitted %s (%s): %lld steps\n", job->name().c_str(),
                PrintableLine(job->display_name()).c_str(),
                static_cast<long long>(job->total_steps()));
  }
  std::fflush(stdout);
  if (!flags.follow) return kOk;
  const auto ended =
      WatchJob(*service, job->name(), common.json() ? WatchStyle::kJson : WatchStyle::kProgress);
  if (!ended.ok()) return Fail(ended.status());
  return ReportEnd(*ended, common.json());
}

}  // namespace

void AddSubmit(CLI::App& app, CommonFlags& common, Run* run) {
  CLI::App* command = NewCommand(app, common, "submit", kHelp);
  auto flags = std::make_shared<SubmitFlags>();
  command->add_option("JOB.yaml", flags->file, "The job file")->required();
  command->add_flag("--follow,-f", flags->follow, "Watch the job until it ends");
  command->add_flag("--dry-run", flags->dry_run,
                    "Check everything and print the job with its defaults; create nothing");
  command->callback([=, &common] { *run = [=, &common] { return Submit(common, *flags); }; });
}

}  // namespace tundra::client
