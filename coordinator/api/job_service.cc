// JobService over gRPC. WatchJob keeps no queue per change: a watcher is woken,
// reads a bounded part from the store, writes it out, and looks again.
#include <deque>

#include "coordinator/api/call.h"
#include "coordinator/api/jobs.h"
#include "coordinator/api/names.h"
#include "coordinator/api/services.h"
#include "tundra/v1/job.grpc.pb.h"

namespace tundra::coordinator {
namespace {

using google::protobuf::Empty;
using Call = grpc::CallbackServerContext;

constexpr int32_t kWatchPart = 256;

class WatchReactor : public grpc::ServerWriteReactor<v1::WatchJobResponse>,
                     public Watcher,
                     public std::enable_shared_from_this<WatchReactor> {
 public:
  WatchReactor(const Context* context, Jobs* jobs, Call* call, JobId job, int64_t after)
      : context_(context),
        jobs_(jobs),
        job_(std::move(job)),
        timer_(context, "WatchJob"),
        who_(Authorize(*context, *call, "WatchJob")),
        after_(after) {}

  // `status` is what is wrong with the request.
  grpc::ServerWriteReactor<v1::WatchJobResponse>* Begin(absl::Status status) {
    self_ = shared_from_this();
    if (!who_.ok()) status = who_.status;
    if (!status.ok()) {
      absl::MutexLock lock(&mu_);
      FinishOnce(status);
      return this;
    }
    context_->hub->Add(job_, weak_from_this());
    Wake();
    return this;
  }

  void Wake() override {
    absl::MutexLock lock(&mu_);
    dirty_ = true;
    MaybeRead();
  }
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    queue_.pop_front();
    if (ok) {
      Pump();
    } else {
      FinishOnce(absl::CancelledError("cancelled"));
    }
  }
  void OnCancel() override {
    absl::MutexLock lock(&mu_);
    FinishOnce(absl::CancelledError("cancelled"));
  }
  void OnDone() override { self_.reset(); }

 private:
  void MaybeRead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_ || reading_ || !queue_.empty() || !dirty_) return;
    reading_ = true;
    dirty_ = false;
    auto self = shared_from_this();
    if (!context_->executor->Run([self] { self->ReadPart(); })) FinishOnce(Busy());
  }

  void ReadPart() {
    const absl::Status still = context_->authenticator->Recheck(who_.caller);
    if (!still.ok()) {
      absl::MutexLock lock(&mu_);
      reading_ = false;
      return FinishOnce(still);
    }
    absl::StatusOr<Jobs::WatchPart> part =
        jobs_->Watch(who_.caller, job_, after_, first_, kWatchPart);
    absl::MutexLock lock(&mu_);
    reading_ = false;
    if (!part.ok()) {
      FinishOnce(part.status());
      return;
    }
    after_ = part->last_sequence;
    if (!part->messages.empty()) first_ = false;
    dirty_ |= part->more;
    ended_ = part->ended;
    for (v1::WatchJobResponse& message : part->messages) queue_.push_back(std::move(message));
    Pump();
  }

  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_ || writing_) return;
    if (!queue_.empty()) {
      writing_ = true;
      StartWrite(&queue_.front());
    } else if (ended_) {
      FinishOnce(absl::OkStatus());
    } else {
      MaybeRead();
    }
  }

  void FinishOnce(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_) return;
    finished_ = true;
    const grpc::Status out = ToGrpc(status);
    timer_.Done(out);
    Finish(out);
  }

  const Context* const context_;
  Jobs* const jobs_;
  const JobId job_;
  const CallTimer timer_;
  const Authorization who_;
  std::shared_ptr<WatchReactor> self_;
  // Used by the one reader at a time.
  int64_t after_;
  bool first_ = true;
  absl::Mutex mu_;
  std::deque<v1::WatchJobResponse> queue_ ABSL_GUARDED_BY(mu_);
  bool dirty_ ABSL_GUARDED_BY(mu_) = false;
  bool reading_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

class JobServiceImpl : public v1::JobService::CallbackService {
 public:
  explicit JobServiceImpl(const Context* context) : context_(context), jobs_(context) {}

  grpc::ServerUnaryReactor* CreateJob(Call* call, const v1::CreateJobRequest* in,
                                      v1::Job* out) override {
    return RunMaybeValidating(context_, "CreateJob", call, in, out, &jobs_, &Jobs::Create);
  }
  grpc::ServerUnaryReactor* GetJob(Call* call, const v1::GetJobRequest* in, v1::Job* out) override {
    return RunUnary(context_, "GetJob", call, in, out, &jobs_, &Jobs::Get);
  }
  grpc::ServerUnaryReactor* ListJobs(Call* call, const v1::ListJobsRequest* in,
                                     v1::ListJobsResponse* out) override {
    return RunUnary(context_, "ListJobs", call, in, out, &jobs_, &Jobs::List);
  }
  grpc::ServerUnaryReactor* CancelJob(Call* call, const v1::CancelJobRequest* in,
                                      v1::Job* out) override {
    return RunUnary(context_, "CancelJob", call, in, out, &jobs_, &Jobs::Cancel);
  }
  grpc::ServerUnaryReactor* PauseJob(Call* call, const v1::PauseJobRequest* in,
                                     v1::Job* out) override {
    return RunUnary(context_, "PauseJob", call, in, out, &jobs_, &Jobs::Pause);
  }
  grpc::ServerUnaryReactor* ResumeJob(Call* call, const v1::ResumeJobRequest* in,
                                      v1::Job* out) override {
    return RunUnary(context_, "ResumeJob", call, in, out, &jobs_, &Jobs::Resume);
  }
  grpc::ServerUnaryReactor* DeleteJob(Call* call, const v1::DeleteJobRequest* in,
                                      Empty* out) override {
    return RunUnary(context_, "DeleteJob", call, in, out, &jobs_, &Jobs::Delete);
  }
  grpc::ServerUnaryReactor* ListMetrics(Call* call, const v1::ListMetricsRequest* in,
                                        v1::ListMetricsResponse* out) override {
    return RunUnary(context_, "ListMetrics", call, in, out, &jobs_, &Jobs::ListMetrics);
  }
  grpc::ServerUnaryReactor* ListEvents(Call* call, const v1::ListEventsRequest* in,
                                       v1::ListEventsResponse* out) override {
    return RunUnary(context_, "ListEvents", call, in, out, &jobs_, &Jobs::ListEvents);
  }
  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(Call* call,
                                                           const v1::WatchJobRequest* in) override {
    absl::StatusOr<std::string> id = ParseName(in->name(), "jobs", "name");
    absl::Status status = id.status();
    if (status.ok() && in->after_sequence() < 0) {
      Violations violations;
      violations.Add("after_sequence", "must be 0 or more");
      status = violations.ToStatus();
    }
    auto reactor = std::make_shared<WatchReactor>(context_, &jobs_, call, JobId{id.value_or("")},
                                                  in->after_sequence());
    return reactor->Begin(status);
  }

 private:
  const Context* const context_;
  Jobs jobs_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewJobService(const Context* context) {
  return std::make_unique<JobServiceImpl>(context);
}

}  // namespace tundra::coordinator
