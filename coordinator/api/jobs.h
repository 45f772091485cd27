// Jobs: what JobService does, without gRPC. Handlers validate, record and return;
// the controller moves states.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/api/context.h"
#include "coordinator/api/datasets.h"
#include "tundra/v1/job.pb.h"

namespace tundra::coordinator {

class Jobs {
 public:
  explicit Jobs(const Context* context) : context_(context), datasets_(context) {}

  // Without may_validate, a job whose data sets have yet to be validated, which may take long,
  // gets an error that NeedsValidation() knows.
  absl::StatusOr<v1::Job> Create(const Caller& caller, const v1::CreateJobRequest& request,
                                 bool may_validate);
  absl::StatusOr<v1::Job> Get(const Caller& caller, const v1::GetJobRequest& request);
  absl::StatusOr<v1::ListJobsResponse> List(const Caller& caller,
                                            const v1::ListJobsRequest& request);
  absl::StatusOr<v1::Job> Cancel(const Caller& caller, const v1::CancelJobRequest& request);
  absl::StatusOr<v1::Job> Pause(const Caller& caller, const v1::PauseJobRequest& request);
  absl::StatusOr<v1::Job> Resume(const Caller& caller, const v1::ResumeJobRequest& request);
  absl::Status Delete(const Caller& caller, const v1::DeleteJobRequest& request);
  absl::StatusOr<v1::ListMetricsResponse> ListMetrics(const Caller& caller,
                                                      const v1::ListMetricsRequest& request);
  absl::StatusOr<v1::ListEventsResponse> ListEvents(const Caller& caller,
                                                    const v1::ListEventsRequest& request);

  // The next part of a watch after a sequence number, at most `limit` messages.
  struct WatchPart {
    std::vector<v1::WatchJobResponse> messages;
    int64_t last_sequence = 0;
    // More is stored already.
    bool more = false;
    // The job has ended and everything was read.
    bool ended = false;
  };
  absl::StatusOr<WatchPart> Watch(const Caller& caller, const JobId& id, int64_t after_sequence,
                                  bool first, int32_t limit);

 private:
  struct Inputs {
    BaseRecord base;
    DatasetRecord train;
    std::optional<DatasetRecord> validation;
  };
  // The job made with the request id before, if any.
  absl::StatusOr<std::optional<v1::Job>> FindRepeated(const Caller& caller,
                                                      const v1::CreateJobRequest& request,
                                                      const std::string& hash);
  absl::StatusOr<Inputs> CheckInputs(const Caller& caller, const v1::CreateJobRequest& request);
  absl::StatusOr<int64_t> RequireValid(const DatasetRecord& dataset, const BaseRecord& base,
                                       const v1::JobSpec& spec, bool may_validate);
  absl::StatusOr<v1::Job> Insert(const Caller& caller, const v1::CreateJobRequest& request,
                                 const std::string& hash, v1::Job job);
  absl::StatusOr<v1::Job> SetDesired(const Caller& caller, const std::string& name,
                                     v1::DesiredState desired, std::string_view event);
  // The job as clients see it.
  v1::Job Present(const JobRecord& record);

  const Context* const context_;
  Datasets datasets_;
};

}  // namespace tundra::coordinator
