#include "coordinator/api/jobs.h"

#include "absl/strings/str_cat.h"
#include "common/sha256.h"
#include "common/status.h"
#include "coordinator/api/audit.h"
#include "coordinator/api/catalog.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/filter.h"
#include "coordinator/api/job_validation.h"
#include "coordinator/api/names.h"
#include "coordinator/api/own.h"
#include "coordinator/api/requests.h"
#include "coordinator/store/job_state.h"

namespace tundra::coordinator {
namespace {

constexpr char kCreateMethod[] = "CreateJob";
constexpr int64_t kMostSteps = 100'000'000;
constexpr int kFindingsInMessage = 5;
constexpr size_t kMostPageBytes = size_t{3} << 20;

// Errors: kResourceExhausted when the tenant may have no more jobs at a time.
absl::Status CheckJobQuota(ReadTxn& txn, const TenantId& tenant) {
  ASSIGN_OR_RETURN(const TenantRecord record, txn.GetTenant(tenant));
  if (!record.quota.has_active_jobs()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const TenantCounts counts, txn.CountTenant(tenant));
  if (counts.active_jobs < record.quota.active_jobs()) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("tenant ", tenant.value, " has ", counts.active_jobs,
                   " jobs that have not ended, of at most ", record.quota.active_jobs(),
                   "; wait for one, cancel one, or ask an admin for more"));
}

// A data set named in a spec; what is wrong goes to `violations`.
absl::Status FindDataset(ReadTxn& txn, const Caller& caller, const std::string& name,
                         std::string_view field, Violations& violations, DatasetRecord& record) {
  const absl::StatusOr<std::string> id = ParseName(name, "datasets", field);
  if (!id.ok()) {
    violations.Add(field, "must have the form datasets/ID");
    return absl::OkStatus();
  }
  absl::StatusOr<DatasetRecord> found = GetOwnDataset(txn, caller, {*id});
  if (absl::IsNotFound(found.status())) {
    violations.Add(field, std::string(found.status().message()));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(found.status());
  record = *std::move(found);
  return absl::OkStatus();
}

// Whether the oldest come first. Errors: kInvalidArgument.
absl::StatusOr<bool> ParseJobOrder(std::string_view order_by) {
  if (order_by.empty() || order_by == "create_time desc") return false;
  if (order_by == "create_time") return true;
  Violations violations;
  violations.Add("order_by", "must be \"create_time\" or \"create_time desc\"");
  return violations.ToStatus();
}

// Where a page of a timeline begins.
struct TimelineStart {
  int64_t after = 0;
  std::string bound_to;  // of its page tokens
};

template <typename Request>
absl::StatusOr<TimelineStart> StartOf(const Request& request, std::string_view list,
                                      const PageTokens& tokens) {
  Violations violations;
  violations.Require(request.after_sequence() >= 0, "after_sequence", "must be 0 or more");
  RETURN_IF_ERROR(violations.ToStatus());
  TimelineStart start;
  start.bound_to = absl::StrCat(request.parent(), "\n", request.after_sequence());
  ASSIGN_OR_RETURN(start.after, tokens.Parse(request.page_token(), list, start.bound_to,
                                             request.after_sequence()));
  return start;
}

}  // namespace

v1::Job Jobs::Present(const JobRecord& record) {
  v1::Job job = record.job;
  // Of the id, not of the row, whose number would tell how many jobs others make.
  job.set_etag(Sha256Hex(absl::StrCat(record.id.value, "\n", record.version)).substr(0, 16));
  job.set_tenant(absl::StrCat("tenants/", record.tenant.value));
  job.clear_waiting();
  if (job.state() == v1::QUEUED) {
    const std::optional<v1::Waiting> waiting = context_->controller->WaitingOf(record.id);
    if (waiting.has_value()) *job.mutable_waiting() = *waiting;
  }
  return job;
}

absl::StatusOr<std::optional<v1::Job>> Jobs::FindRepeated(const Caller& caller,
                                                          const v1::CreateJobRequest& request,
                                                          const std::string& hash) {
  std::optional<v1::Job> job;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::string made,
                     FindRequest(txn, RequestKey(caller.tenant, kCreateMethod),
                                 request.request_id(), hash, context_->clock->Now()));
    if (made.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const JobRecord record, txn.GetJob({made}));
    job = Present(record);
    return absl::OkStatus();
  }));
  return job;
}

// Everything that can be wrong with the request itself, at once.
absl::StatusOr<Jobs::Inputs> Jobs::CheckInputs(const Caller& caller,
                                               const v1::CreateJobRequest& request) {
  Violations violations;
  const v1::JobSpec& spec = request.job().spec();
  violations.Require(request.request_id().size() <= 128, "request_id", "at most 128 characters");
  CheckJob(request.job(), violations);
  Inputs inputs;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    if (!spec.base().empty()) {
      absl::StatusOr<BaseRecord> base = ResolveBase(txn, spec.base());
      if (base.ok()) {
        inputs.base = *std::move(base);
        CheckAgainstBase(spec, inputs.base.info.base(), violations);
      } else if (absl::IsFailedPrecondition(base.status())) {
        violations.Add("job.spec.base", std::string(base.status().message()));
      } else {
        return base.status();
      }
    }
    if (!spec.dataset().train().empty()) {
      RETURN_IF_ERROR(FindDataset(txn, caller, spec.dataset().train(), "job.spec.dataset.train",
                                  violations, inputs.train));
    }
    if (!spec.dataset().validation().empty()) {
      inputs.validation.emplace();
      RETURN_IF_ERROR(FindDataset(txn, caller, spec.dataset().validation(),
                                  "job.spec.dataset.validation", violations, *inputs.validation));
    }
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(violations.ToStatus());
  return inputs;
}

// Rows of the data set, which must be good. Needs the spec's defaults.
absl::StatusOr<int64_t> Jobs::RequireValid(const DatasetRecord& dataset, const BaseRecord& base,
                                           const v1::JobSpec& spec, bool may_validate) {
  ValidationOptions options;
  options.may_validate = may_validate;
  options.max_seq_length = spec.training().max_seq_length();
  options.truncate = spec.training().truncate();
  options.loss_on = spec.training().loss_on();
  ASSIGN_OR_RETURN(const v1::ValidationReport report, datasets_.Report(dataset, base, options));
  if (report.valid()) return report.rows();
  std::string message = absl::StrCat(dataset.dataset.display_name(), " (", dataset.dataset.name(),
                                     ") cannot be trained on: ", report.error_count(),
                                     report.error_count() == 1 ? " error" : " errors");
  for (int i = 0; i < report.errors_size() && i < kFindingsInMessage; ++i) {
    const v1::Finding& finding = report.errors(i);
    absl::StrAppend(&message, "\n  ");
    if (finding.line() > 0) absl::StrAppend(&message, "line ", finding.line(), ": ");
    absl::StrAppend(&message, finding.message());
  }
  return absl::FailedPreconditionError(message);
}

absl::StatusOr<v1::Job> Jobs::Create(const Caller& caller, const v1::CreateJobRequest& request,
                                     bool may_validate) {
  const std::string hash = HashRequest(request);
  if (!request.validate_only()) {
    ASSIGN_OR_RETURN(const std::optional<v1::Job> repeated, FindRepeated(caller, request, hash));
    if (repeated.has_value()) return *repeated;
  }
  ASSIGN_OR_RETURN(const Inputs inputs, CheckInputs(caller, request));
  v1::Job job;
  job.set_display_name(request.job().display_name());
  *job.mutable_spec() = request.job().spec();
  *job.mutable_labels() = request.job().labels();
  job.set_state(v1::QUEUED);
  job.set_desired_state(v1::RUN);
  job.set_base_hash(inputs.base.hash.value);
  v1::JobSpec& spec = *job.mutable_spec();
  spec.set_base(inputs.base.info.base().display_name());
  FillDefaults(inputs.base.info.base(), spec);
  ASSIGN_OR_RETURN(const int64_t rows, RequireValid(inputs.train, inputs.base, spec, may_validate));
  if (inputs.validation.has_value()) {
    RETURN_IF_ERROR(RequireValid(*inputs.validation, inputs.base, spec, may_validate).status());
  }
  job.set_total_steps(TotalSteps(spec, rows));
  if (job.total_steps() > kMostSteps) {
    Violations violations;
    violations.Add("job.spec.training.epochs",
                   absl::StrCat("makes ", job.total_steps(), " steps; at most 100,000,000"));
    return violations.ToStatus();
  }
  if (request.validate_only()) return job;
  return Insert(caller, request, hash, std::move(job));
}

absl::StatusOr<v1::Job> Jobs::Insert(const Caller& caller, const v1::CreateJobRequest& request,
                                     const std::string& hash, v1::Job job) {
  const absl::Time now = context_->clock->Now();
  const std::string request_key = RequestKey(caller.tenant, kCreateMethod);
  JobRecord made;
  const auto insert = [&](Txn& txn) -> absl::StatusOr<std::string> {
    ASSIGN_OR_RETURN(const std::string earlier,
                     FindRequest(txn, request_key, request.request_id(), hash, now));
    if (!earlier.empty()) {
      ASSIGN_OR_RETURN(made, txn.GetJob({earlier}));
      return made.job.name();
    }
    RETURN_IF_ERROR(CheckJobQuota(txn, caller.tenant));
    // They may have been deleted since they were looked at.
    for (const std::string& name :
         {job.spec().dataset().train(), job.spec().dataset().validation()}) {
      if (!name.empty()) RETURN_IF_ERROR(txn.GetDataset({name.substr(9)}).status());
    }
    JobRecord record;
    record.id.value = NewIdValue("job");
    record.tenant = caller.tenant;
    record.job = job;
    record.job.set_name("jobs/" + record.id.value);
    *record.job.mutable_create_time() = ToProto(now);
    JobDraft draft(std::move(record), now);
    draft.AddEvent("Accepted");
    RETURN_IF_ERROR(txn.InsertJob(draft));
    made = draft.record();
    if (!request.request_id().empty()) {
      RETURN_IF_ERROR(
          txn.PutRequest({request_key, request.request_id(), hash, made.id.value, now}));
    }
    return made.job.name();
  };
  RETURN_IF_ERROR(WriteAudited(*context_, caller, insert));
  context_->controller->Kick();
  return Present(made);
}

absl::StatusOr<v1::Job> Jobs::Get(const Caller& caller, const v1::GetJobRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.name(), "jobs", "name"));
  JobRecord record;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(record, GetOwnJob(txn, caller, {id}));
    return absl::OkStatus();
  }));
  return Present(record);
}

absl::StatusOr<v1::ListJobsResponse> Jobs::List(const Caller& caller,
                                                const v1::ListJobsRequest& request) {
  JobQuery query;
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 50, 1000));
  ASSIGN_OR_RETURN(query.terms, ParseJobFilter(request.filter()));
  ASSIGN_OR_RETURN(query.oldest_first, ParseJobOrder(request.order_by()));
  const std::string_view list = query.oldest_first ? "jobs, oldest first" : "jobs";
  int64_t& bound = query.oldest_first ? query.after_key : query.before_key;
  ASSIGN_OR_RETURN(
      bound, context_->page_tokens->Parse(request.page_token(), list, request.filter(), bound));
  query.limit = size + 1;
  query.tenant = caller.Listed();
  std::vector<JobRecord> records;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(records, txn.ListJobs(query));
    return absl::OkStatus();
  }));
  v1::ListJobsResponse response;
  size_t bytes = 0;
  for (const JobRecord& record : records) {
    // Jobs with long samples make shorter pages: a message has its limit.
    bytes += record.job.ByteSizeLong();
    if (response.jobs_size() == size || (bytes > kMostPageBytes && response.jobs_size() > 0)) {
      // This one begins the next page.
      const int64_t next = query.oldest_first ? record.key - 1 : record.key + 1;
      response.set_next_page_token(context_->page_tokens->Make(list, request.filter(), next));
      break;
    }
    *response.add_jobs() = Present(record);
  }
  return response;
}

absl::StatusOr<v1::Job> Jobs::SetDesired(const Caller& caller, const std::string& name,
                                         v1::DesiredState desired, std::string_view event) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(name, "jobs", "name"));
  JobRecord changed;
  const auto change = [&](Txn& txn) -> absl::StatusOr<std::string> {
    ASSIGN_OR_RETURN(JobRecord record, GetOwnJob(txn, caller, {id}));
    if (desired == v1::CANCEL && record.job.state() == v1::CANCELLED) {
      changed = std::move(record);
      return name;
    }
    if (IsTerminal(record.job.state())) {
      return absl::FailedPreconditionError(
          absl::StrCat("jobs/", id, " has ended: it is ", StateName(record.job.state())));
    }
    if (desired != v1::CANCEL && record.job.desired_state() == v1::CANCEL) {
      return absl::FailedPreconditionError(absl::StrCat("jobs/", id, " is being cancelled"));
    }
    JobDraft draft(std::move(record), context_->clock->Now());
    if (draft.job().desired_state() != desired) {
      draft.job().set_desired_state(desired);
      draft.AddEvent(event);
      RETURN_IF_ERROR(txn.SaveJob(draft));
    }
    changed = draft.record();
    return name;
  };
  RETURN_IF_ERROR(WriteAudited(*context_, caller, change));
  context_->hub->Notify({id});
  context_->controller->Kick();
  return Present(changed);
}

absl::StatusOr<v1::Job> Jobs::Cancel(const Caller& caller, const v1::CancelJobRequest& request) {
  return SetDesired(caller, request.name(), v1::CANCEL, "Asked to cancel");
}

absl::StatusOr<v1::Job> Jobs::Pause(const Caller& caller, const v1::PauseJobRequest& request) {
  return SetDesired(caller, request.name(), v1::PAUSE, "Asked to pause");
}

absl::StatusOr<v1::Job> Jobs::Resume(const Caller& caller, const v1::ResumeJobRequest& request) {
  return SetDesired(caller, request.name(), v1::RUN, "Asked to go on");
}

absl::Status Jobs::Delete(const Caller& caller, const v1::DeleteJobRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.name(), "jobs", "name"));
  const auto remove = [&](Txn& txn) -> absl::StatusOr<std::string> {
    ASSIGN_OR_RETURN(const JobRecord record, GetOwnJob(txn, caller, {id}));
    if (!IsTerminal(record.job.state())) {
      const bool ends = record.job.state() == v1::CANCELLING;
      return absl::FailedPreconditionError(absl::StrCat(
          "jobs/", id, " is ", StateName(record.job.state()),
          ends ? ": it is being cancelled; wait until it has ended" : ": cancel it first"));
    }
    RETURN_IF_ERROR(txn.DeleteJob(record));
    return request.name();
  };
  RETURN_IF_ERROR(WriteAudited(*context_, caller, remove));
  context_->hub->Notify({id});
  return absl::OkStatus();
}

absl::StatusOr<v1::ListMetricsResponse> Jobs::ListMetrics(const Caller& caller,
                                                          const v1::ListMetricsRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.parent(), "jobs", "parent"));
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 1000, 10'000));
  ASSIGN_OR_RETURN(const TimelineStart start, StartOf(request, "metrics", *context_->page_tokens));
  v1::ListMetricsResponse response;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const JobRecord record, GetOwnJob(txn, caller, {id}));
    ASSIGN_OR_RETURN(std::vector<TimelineItem> items,
                     txn.ReadTimeline(record, start.after, TimelineKind::kMetrics, size + 1));
    for (TimelineItem& item : items) {
      if (response.metrics_size() == size) {
        response.set_next_page_token(context_->page_tokens->Make(
            "metrics", start.bound_to, response.metrics(size - 1).sequence()));
        break;
      }
      *response.add_metrics() = std::get<v1::StepMetrics>(std::move(item));
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<v1::ListEventsResponse> Jobs::ListEvents(const Caller& caller,
                                                        const v1::ListEventsRequest& request) {
  ASSIGN_OR_RETURN(const std::string id, ParseName(request.parent(), "jobs", "parent"));
  ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(request.page_size(), 1000, 10'000));
  ASSIGN_OR_RETURN(const TimelineStart start, StartOf(request, "events", *context_->page_tokens));
  v1::ListEventsResponse response;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const JobRecord record, GetOwnJob(txn, caller, {id}));
    ASSIGN_OR_RETURN(std::vector<TimelineItem> items,
                     txn.ReadTimeline(record, start.after, TimelineKind::kEvents, size + 1));
    for (TimelineItem& item : items) {
      if (response.events_size() == size) {
        response.set_next_page_token(context_->page_tokens->Make(
            "events", start.bound_to, response.events(size - 1).sequence()));
        break;
      }
      *response.add_events() = std::get<v1::JobEvent>(std::move(item));
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<Jobs::WatchPart> Jobs::Watch(const Caller& caller, const JobId& id,
                                            int64_t after_sequence, bool first, int32_t limit) {
  WatchPart part;
  part.last_sequence = after_sequence;
  RETURN_IF_ERROR(context_->store->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const JobRecord record, GetOwnJob(txn, caller, id));
    ASSIGN_OR_RETURN(std::vector<TimelineItem> items,
                     txn.ReadTimeline(record, after_sequence, TimelineKind::kAll, limit));
    const v1::Job job = Present(record);
    for (TimelineItem& item : items) {
      v1::WatchJobResponse& message = part.messages.emplace_back();
      const bool is_event = std::holds_alternative<v1::JobEvent>(item);
      if (first || is_event) *message.mutable_job() = job;
      first = false;
      if (is_event) {
        *message.mutable_event() = std::get<v1::JobEvent>(std::move(item));
        part.last_sequence = message.event().sequence();
      } else {
        *message.mutable_metrics() = std::get<v1::StepMetrics>(std::move(item));
        part.last_sequence = message.metrics().sequence();
      }
    }
    part.more = part.last_sequence < record.last_sequence;
    part.ended = !part.more && IsTerminal(record.job.state());
    return absl::OkStatus();
  }));
  return part;
}

}  // namespace tundra::coordinator
