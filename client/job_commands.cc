// tundra jobs, get, watch, wait, logs, metrics, cancel, pause, resume, delete.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "client/chart.h"
#include "client/commands.h"
#include "client/output.h"
#include "client/rpc_calls.h"
#include "client/watch.h"
#include "common/flag_range.h"
#include "common/status.h"

namespace tundra::client {
namespace {

using tundra::v1::Job;

std::string IdOf(const Job& job) { return job.name().substr(job.name().find('/') + 1); }

std::string Loss(bool has, double loss) { return has ? absl::StrFormat("%.4f", loss) : ""; }

// The service and the job's resource name, or the exit code.
struct Target {
  absl::Status status;
  Service service;
  std::string name;
};

Target FindJob(const CommonFlags& common, const std::string& text) {
  Target target;
  auto service = Service::Open(common.address);
  target.status = service.status();
  if (!service.ok()) return target;
  target.service = *std::move(service);
  auto name = target.service.JobName(text);
  target.status = name.status();
  if (name.ok()) target.name = *std::move(name);
  return target;
}

absl::StatusOr<std::string> JobsTable(const Service& service,
                                      const tundra::v1::ListJobsResponse& list) {
  ASSIGN_OR_RETURN(const bool tenants, HasOtherTenants(service, list.jobs()));
  std::vector<std::string> header = {"JOB",  "NAME",     "STATE",   "STEP",
                                     "LOSS", "VAL LOSS", "CREATED", "WAITING FOR"};
  if (tenants) header.insert(header.begin() + 2, "TENANT");
  Table table(header);
  for (const Job& job : list.jobs()) {
    const std::string waiting =
        job.state() == tundra::v1::QUEUED && job.has_waiting()
            ? absl::StrFormat("#%d: %s", job.waiting().position(), job.waiting().reason())
            : "";
    std::vector<std::string> row = {IdOf(job),
                                    job.display_name(),
                                    StateName(job.state()),
                                    absl::StrFormat("%d/%d", job.step(), job.total_steps()),
                                    Loss(job.has_train_loss(), job.train_loss()),
                                    Loss(job.has_validation_loss(), job.validation_loss()),
                                    HumanTime(job.create_time()),
                                    waiting};
    if (tenants) row.insert(row.begin() + 2, job.tenant());
    table.Add(row);
  }
  return table.Render();
}

int ListJobs(const CommonFlags& common, const std::string& filter, int limit) {
  const auto service = Service::Open(common.address);
  if (!service.ok()) return Fail(service.status());
  tundra::v1::ListJobsResponse all;
  tundra::v1::ListJobsRequest request;
  request.set_filter(filter);
  do {
    request.set_page_size(std::min(1000, limit - all.jobs_size()));
    grpc::ClientContext context;
    Prepare(&context);
    tundra::v1::ListJobsResponse page;
    const grpc::Status status = service->jobs()->ListJobs(&context, request, &page);
    if (!status.ok()) return Fail(service->Explain(status));
    request.set_page_token(page.next_page_token());
    page.clear_next_page_token();
    all.MergeFrom(page);
  } while (!request.page_token().empty() && all.jobs_size() < limit);
  if (common.json()) {
    std::printf("%s\n", ToJson(all).c_str());
    return kOk;
  }
  const auto text = JobsTable(*service, all);
  if (!text.ok()) return Fail(text.status());
  std::printf("%s", text->c_str());
  if (!request.page_token().empty()) {
    std::fprintf(stderr, "(the newest %d; --limit shows more)\n", limit);
  }
  return kOk;
}

void PrintJob(const Job& job) {
  std::printf("%s  %s\n  tenant     %s\n  state      %s\n", IdOf(job).c_str(),
              PrintableLine(job.display_name()).c_str(), PrintableLine(job.tenant()).c_str(),
              StateName(job.state()).c_str());
  if (job.has_failure()) {
    std::printf("  failure    %s\n", Printable(job.failure().message()).c_str());
  }
  if (job.has_waiting() && job.state() == tundra::v1::QUEUED) {
    std::printf("  waiting    position %d: %s\n", job.waiting().position(),
                PrintableLine(job.waiting().reason()).c_str());
  }
  std::printf("  step       %lld of %lld, attempt %lld\n", static_cast<long long>(job.step()),
              static_cast<long long>(job.total_steps()), static_cast<long long>(job.attempt()));
  if (job.has_train_loss()) std::printf("  loss       %.4f\n", job.train_loss());
  if (job.has_validation_loss()) {
    std::printf("  validation %.4f", job.validation_loss());
    if (job.has_initial_validation_loss()) {
      std::printf(" (%.4f before training)", job.initial_validation_loss());
    }
    std::printf("\n");
  }
  if (job.has_time_left()) {
    std::printf("  time left  %s\n", HumanDuration(ToDuration(job.time_left())).c_str());
  }
  std::printf("  base       %s (%s)\n", PrintableLine(job.spec().base()).c_str(),
              PrintableLine(job.base_hash().substr(0, 12)).c_str());
  for (const auto& [key, value] : job.labels()) {
    std::printf("  label      %s = %s\n", PrintableLine(key).c_str(), PrintableLine(value).c_str());
  }
  for (const auto& sample : job.samples()) {
    std::printf("  prompt     %s\n    before   %s\n    after    %s\n",
                Printable(sample.prompt()).c_str(), Printable(sample.before()).c_str(),
                Printable(sample.after()).c_str());
  }
  for (const auto& file : job.adapter().files()) {
    std::printf("  adapter    %s, %s, sha256 %s\n", PrintableLine(file.filename()).c_str(),
                HumanBytes(file.size_bytes()).c_str(), PrintableLine(file.sha256()).c_str());
  }
}

int GetJob(const CommonFlags& common, const std::string& text) {
  const Target target = FindJob(common, text);
  if (!target.status.ok()) return Fail(target.status);
  grpc::ClientContext context;
  Prepare(&context);
  tundra::v1::GetJobRequest request;
  request.set_name(target.name);
  Job job;
  const grpc::Status status = target.service.jobs()->GetJob(&context, request, &job);
  if (!status.ok()) return Fail(target.service.Explain(status));
  if (common.json()) {
    std::printf("%s\n", ToJson(job).c_str());
  } else {
    PrintJob(job);
  }
  return kOk;
}

// cancel, pause and resume differ in the method alone. `wish` is what was asked.
template <typename Request, typename Method>
int Steer(const CommonFlags& common, const std::string& text, const char* wish, Method method) {
  const Target target = FindJob(common, text);
  if (!target.status.ok()) return Fail(target.status);
  grpc::ClientContext context;
  Prepare(&context);
  Request request;
  request.set_name(target.name);
  Job job;
  const auto stub = target.service.jobs();
  const grpc::Status status = (stub.get()->*method)(&context, request, &job);
  if (!status.ok()) return Fail(target.service.Explain(status));
  if (common.json()) {
    std::printf("%s\n", ToJson(job).c_str());
  } else {
    // The wish is stored; the state follows when the job gets there.
    std::printf("asked %s to %s; it is %s\n", IdOf(job).c_str(), wish,
                StateName(job.state()).c_str());
  }
  return kOk;
}

int DeleteJob(const CommonFlags& common, const std::string& text) {
  const Target target = FindJob(common, text);
  if (!target.status.ok()) return Fail(target.status);
  grpc::ClientContext context;
  Prepare(&context);
  tundra::v1::DeleteJobRequest request;
  request.set_name(target.name);
  google::protobuf::Empty empty;
  const grpc::Status status = target.service.jobs()->DeleteJob(&context, request, &empty);
  if (!status.ok()) return Fail(target.service.Explain(status));
  std::printf(common.json() ? "{}\n" : "deleted\n");
  return kOk;
}

int Watch(const CommonFlags& common, const std::string& text, bool quiet, double timeout_s) {
  const Target target = FindJob(common, text);
  if (!target.status.ok()) return Fail(target.status);
  const WatchStyle style = quiet           ? WatchStyle::kQuiet
                           : common.json() ? WatchStyle::kJson
                                           : WatchStyle::kProgress;
  const auto job = WatchJob(target.service, target.name, style,
                            timeout_s > 0 ? absl::Seconds(timeout_s) : absl::InfiniteDuration());
  if (!job.ok()) return Fail(job.status());
  if (quiet && common.json()) std::printf("%s\n", ToJson(*job).c_str());
  return ReportEnd(*job, common.json());
}

int Logs(const CommonFlags& common, const std::string& text) {
  const Target target = FindJob(common, text);
  if (!target.status.ok()) return Fail(target.status);
  tundra::v1::ListEventsRequest request;
  request.set_parent(target.name);
  do {
    grpc::ClientContext context;
    Prepare(&context);
    tundra::v1::ListEventsResponse page;
    const grpc::Status status = target.service.jobs()->ListEvents(&context, request, &page);
    if (!status.ok()) return Fail(target.service.Explain(status));
    for (const auto& event : page.events()) {
      if (common.json()) {
        std::printf("%s\n", ToJson(event, /*compact=*/true).c_str());
        continue;
      }
      std::printf("%s  %-10s %s%s\n", HumanTime(event.time()).c_str(),
                  StateName(event.state()).c_str(), event.warning() ? "warning: " : "",
                  Printable(event.message()).c_str());
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return kOk;
}

void PrintCsv(const std::vector<tundra::v1::StepMetrics>& all) {
  std::printf(
      "step,train_loss,validation_loss,learning_rate,grad_norm,tokens,target_tokens,"
      "step_seconds,redone,non_finite,allreduce_bytes,redone_allreduce_bytes\n");
  for (const auto& m : all) {
    const auto optional = [](bool has, double value) {
      return has ? absl::StrFormat("%.17g", value) : std::string();
    };
    std::printf(
        "%s\n",
        absl::StrFormat("%d,%s,%s,%.17g,%.17g,%d,%d,%.6f,%d,%d,%d,%d", m.step(),
                        optional(m.has_train_loss(), m.train_loss()),
                        optional(m.has_validation_loss(), m.validation_loss()), m.learning_rate(),
                        m.grad_norm(), m.tokens(), m.target_tokens(), m.step_seconds(), m.redone(),
                        m.non_finite() ? 1 : 0, m.allreduce_bytes(), m.redone_allreduce_bytes())
            .c_str());
  }
}

void PrintChart(const std::vector<tundra::v1::StepMetrics>& all) {
  Series train{'.', "training loss", {}};
  Series validation{'#', "validation loss", {}};
  for (const auto& m : all) {
    const auto step = static_cast<double>(m.step());
    if (m.has_train_loss()) train.points.emplace_back(step, m.train_loss());
    if (m.has_validation_loss()) validation.points.emplace_back(step, m.validation_loss());
  }
  std::printf("%s", Chart({train, validation}, std::min(TerminalWidth(), 80), 12).c_str());
}

void PrintTable(const std::vector<tundra::v1::StepMetrics>& all) {
  Table table({"STEP", "LOSS", "VAL LOSS", "LEARNING RATE", "GRAD NORM", "TOKENS", "SECONDS"});
  for (const auto& m : all) {
    table.Add({std::to_string(m.step()), Loss(m.has_train_loss(), m.train_loss()),
               Loss(m.has_validation_loss(), m.validation_loss()),
               absl::StrFormat("%.3g", m.learning_rate()), absl::StrFormat("%.4f", m.grad_norm()),
               std::to_string(m.tokens()), absl::StrFormat("%.3f", m.step_seconds())});
  }
  std::printf("%s", table.Render().c_str());
}

int Metrics(const CommonFlags& common, const std::string& text, const std::string& format) {
  const Target target = FindJob(common, text);
  if (!target.status.ok()) return Fail(target.status);
  std::vector<tundra::v1::StepMetrics> all;
  tundra::v1::ListMetricsRequest request;
  request.set_parent(target.name);
  request.set_page_size(10'000);
  do {
    grpc::ClientContext context;
    Prepare(&context);
    tundra::v1::ListMetricsResponse page;
    const grpc::Status status = target.service.jobs()->ListMetrics(&context, request, &page);
    if (!status.ok()) return Fail(target.service.Explain(status));
    all.insert(all.end(), page.metrics().begin(), page.metrics().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (format == "csv") {
    PrintCsv(all);
  } else if (format == "chart") {
    PrintChart(all);
  } else if (format == "json" || common.json()) {
    for (const auto& m : all) std::printf("%s\n", ToJson(m, /*compact=*/true).c_str());
  } else {
    PrintTable(all);
  }
  return kOk;
}

// Adds a command that takes a job.
CLI::App* JobCommand(CLI::App& app, CommonFlags& common, const std::string& name,
                     const std::string& help, std::shared_ptr<std::string> job) {
  CLI::App* command = NewCommand(app, common, name, help);
  command->add_option("JOB", *job, "Id or name of a job")->required();
  return command;
}

void AddSteering(CLI::App& app, CommonFlags& common, std::shared_ptr<std::string> job, Run* run) {
  using Stub = tundra::v1::JobService::Stub;
  JobCommand(app, common, "cancel", "Stop a job for good", job)->callback([=, &common] {
    *run = [=, &common] {
      return Steer<tundra::v1::CancelJobRequest>(common, *job, "stop for good", &Stub::CancelJob);
    };
  });
  JobCommand(app, common, "pause", "Save a job's state and stop it", job)->callback([=, &common] {
    *run = [=, &common] {
      return Steer<tundra::v1::PauseJobRequest>(common, *job, "pause", &Stub::PauseJob);
    };
  });
  JobCommand(app, common, "resume", "Let a paused job go on", job)->callback([=, &common] {
    *run = [=, &common] {
      return Steer<tundra::v1::ResumeJobRequest>(common, *job, "go on", &Stub::ResumeJob);
    };
  });
  JobCommand(app, common, "delete", "Remove an ended job and all that it made", job)
      ->callback([=, &common] { *run = [=, &common] { return DeleteJob(common, *job); }; });
}

}  // namespace

void AddJobCommands(CLI::App& app, CommonFlags& common, Run* run) {
  auto filter = std::make_shared<std::string>();
  auto limit = std::make_shared<int>(50);
  CLI::App* jobs = NewCommand(app, common, "jobs", "List jobs, newest first");
  jobs->add_option("--filter", *filter,
                   "For example: state = RUNNING AND labels.team = \"search\"");
  jobs->add_option("--limit", *limit, "At most so many")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  jobs->callback(
      [=, &common] { *run = [=, &common] { return ListJobs(common, *filter, *limit); }; });

  auto job = std::make_shared<std::string>();
  JobCommand(app, common, "get", "Show a job", job)->callback([=, &common] {
    *run = [=, &common] { return GetJob(common, *job); };
  });
  JobCommand(app, common, "watch", "Follow a job until it ends", job)->callback([=, &common] {
    *run = [=, &common] { return Watch(common, *job, false, 0); };
  });
  auto timeout = std::make_shared<double>(0);
  CLI::App* wait = JobCommand(app, common, "wait", "Wait until a job has ended", job);
  wait->add_option("--timeout", *timeout,
                   "Give up, with exit code 3, after so many seconds (0: never)")
      ->check(FiniteRange(0, 1e9));
  wait->callback(
      [=, &common] { *run = [=, &common] { return Watch(common, *job, true, *timeout); }; });
  JobCommand(app, common, "logs", "Show what happened to a job", job)->callback([=, &common] {
    *run = [=, &common] { return Logs(common, *job); };
  });
  auto format = std::make_shared<std::string>("table");
  CLI::App* metrics = JobCommand(app, common, "metrics", "Show the figures of a job's steps", job);
  metrics->add_option("--format", *format, "table, csv, json or chart")
      ->check(CLI::IsMember({"table", "csv", "json", "chart"}))
      ->capture_default_str();
  metrics->callback(
      [=, &common] { *run = [=, &common] { return Metrics(common, *job, *format); }; });
  AddSteering(app, common, job, run);
}

}  // namespace tundra::client
