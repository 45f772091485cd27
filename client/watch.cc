#include "client/watch.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "client/output.h"
#include "client/progress.h"
#include "common/rpc.h"
#include "common/status.h"

namespace tundra::client {
namespace {

using tundra::v1::Job;
using tundra::v1::JobEvent;
using tundra::v1::StepMetrics;

class Screen {
 public:
  explicit Screen(WatchStyle style) : style_(style), bar_(OnTerminal()) {}
  ~Screen() { Clear(); }

  void Show(const tundra::v1::WatchJobResponse& item) {
    if (item.has_job()) job_ = item.job();
    switch (style_) {
      case WatchStyle::kQuiet:
        return;
      case WatchStyle::kJson:
        std::printf("%s\n", ToJson(item, /*compact=*/true).c_str());
        std::fflush(stdout);
        return;
      case WatchStyle::kProgress:
        if (item.has_event()) Event(item.event());
        if (item.has_metrics()) Metrics(item.metrics());
    }
  }

  void Note(const std::string& text) {
    if (style_ != WatchStyle::kProgress) return;
    Clear();
    std::fprintf(stderr, "%s\n", text.c_str());
  }

 private:
  void Clear() {
    if (drawn_) ClearLine();
    drawn_ = false;
  }

  void Event(const JobEvent& event) {
    Clear();
    std::printf("%s  %-10s %s\n", HumanTime(event.time()).c_str(), StateName(event.state()).c_str(),
                Printable(event.message()).c_str());
    std::fflush(stdout);
  }

  void Metrics(const StepMetrics& metrics) {
    if (metrics.has_validation_loss()) validation_ = metrics.validation_loss();
    if (metrics.step() == 0) {
      Clear();
      std::printf("validation loss before training: %.4f\n", validation_);
      return;
    }
    if (metrics.step_seconds() > 0) {
      // A moving average, so that one slow step does not make the time left jump.
      const double weight = seconds_ == 0 ? 1 : 0.1;
      seconds_ += weight * (metrics.step_seconds() - seconds_);
      const double rate = static_cast<double>(metrics.tokens()) / metrics.step_seconds();
      rate_ += weight * (rate - rate_);
    }
    const int64_t total = std::max<int64_t>(1, job_.total_steps());
    std::string line =
        absl::StrFormat("step %d/%d  loss %.4f", metrics.step(), total, metrics.train_loss());
    if (validation_ >= 0) line += absl::StrFormat("  val %.4f", validation_);
    const absl::Duration left =
        absl::Seconds(seconds_ * static_cast<double>(total - metrics.step()));
    const std::string rest =
        absl::StrFormat("  %s tok/s  %s left", HumanCount(rate_), HumanDuration(left));
    if (bar_) {
      drawn_ = true;
      RedrawLine(line + "  " +
                 BarText(static_cast<double>(metrics.step()) / static_cast<double>(total), 20) +
                 rest);
      return;
    }
    std::printf("%s  lr %.3g  grad_norm %.3f%s\n", line.c_str(), metrics.learning_rate(),
                metrics.grad_norm(), rest.c_str());
    std::fflush(stdout);
  }

  const WatchStyle style_;
  const bool bar_;
  bool drawn_ = false;
  Job job_;
  double validation_ = -1;
  double seconds_ = 0;
  double rate_ = 0;
};

}  // namespace

bool IsTerminal(tundra::v1::JobState state) {
  return state == tundra::v1::SUCCEEDED || state == tundra::v1::FAILED ||
         state == tundra::v1::CANCELLED;
}

std::string StateName(tundra::v1::JobState state) { return tundra::v1::JobState_Name(state); }

absl::StatusOr<Job> WatchJob(const Service& service, const std::string& name, WatchStyle style,
                             absl::Duration timeout, absl::Duration patience) {
  Screen screen(style);
  Job job;
  int64_t sequence = 0;
  const absl::Time deadline = absl::Now() + timeout;
  absl::Time last_contact = absl::Now();
  bool told = false;
  while (true) {
    grpc::ClientContext context;
    if (timeout != absl::InfiniteDuration()) context.set_deadline(absl::ToChronoTime(deadline));
    tundra::v1::WatchJobRequest request;
    request.set_name(name);
    request.set_after_sequence(sequence);
    auto stub = service.jobs();
    auto reader = stub->WatchJob(&context, request);
    tundra::v1::WatchJobResponse item;
    bool in_touch = false;
    while (reader->Read(&item)) {
      if (item.has_job()) job = item.job();
      if (item.has_event()) sequence = std::max(sequence, item.event().sequence());
      if (item.has_metrics()) sequence = std::max(sequence, item.metrics().sequence());
      screen.Show(item);
      in_touch = true;
      told = false;
    }
    const grpc::Status status = reader->Finish();
    // Until now: a job may say nothing for longer than our patience.
    if (in_touch) last_contact = absl::Now();
    if (IsTerminal(job.state())) return job;
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat(name, " has not ended within ",
                                                      absl::FormatDuration(timeout), "; it is ",
                                                      StateName(job.state())));
    }
    if (!status.ok() && status.error_code() != grpc::StatusCode::UNAVAILABLE) {
      return service.Explain(status);
    }
    if (job.name().empty() && !status.ok()) return service.Explain(status);
    if (absl::Now() - last_contact > patience) return service.Explain(status);
    if (!told)
      screen.Note("the service is away; the job goes on, and so does this when it is back");
    told = true;
    service.AwaitNextTry(absl::Milliseconds(300));
  }
}

int ReportEnd(const Job& job, bool json) {
  const int code = job.state() == tundra::v1::SUCCEEDED ? kOk : kJobFailed;
  if (json) return code;
  const std::string id = job.name().substr(job.name().find('/') + 1);
  switch (job.state()) {
    case tundra::v1::SUCCEEDED: {
      std::printf("%s succeeded after %s steps", id.c_str(), std::to_string(job.step()).c_str());
      if (job.has_initial_validation_loss() && job.has_validation_loss()) {
        std::printf("; validation loss %.4f -> %.4f", job.initial_validation_loss(),
                    job.validation_loss());
      }
      std::printf("\n  tundra download %s --to DIR\n", id.c_str());
      break;
    }
    case tundra::v1::FAILED:
      std::fprintf(stderr, "tundra: %s failed (%s): %s\n", id.c_str(),
                   tundra::v1::FailureCode_Name(job.failure().code()).c_str(),
                   Printable(job.failure().message()).c_str());
      break;
    default:
      std::fprintf(stderr, "tundra: %s is %s\n", id.c_str(), StateName(job.state()).c_str());
  }
  return code;
}

}  // namespace tundra::client
