// A job that is being changed inside a transaction: collects moves (each asked
// of CanMove) and events, which Txn::SaveJob then writes with the row.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/store/records.h"

namespace tundra::coordinator {

// What a writer believes of a job; a write with another belief is fenced.
struct Fence {
  int64_t attempt = 0;
  int64_t epoch = 0;
};

class JobDraft {
 public:
  JobDraft(JobRecord record, absl::Time now) : record_(std::move(record)), now_(now) {}

  const JobRecord& record() const { return record_; }
  JobRecord& record() { return record_; }
  v1::Job& job() { return record_.job; }
  v1::JobState state() const { return record_.job.state(); }
  absl::Time now() const { return now_; }

  // kAborted unless the job is placed under exactly this attempt and epoch.
  absl::Status Check(const Fence& fence) const;

  // Moves the state, sets the times that go with it, and notes an event.
  // Errors: kFailedPrecondition when there is no such arrow.
  absl::Status Move(v1::JobState to, std::string_view message, bool warning = false);

  // Notes an event in the present state.
  void AddEvent(std::string_view message, bool warning = false);

  // The job gives up its devices.
  void Unplace();

  // Events noted and not written yet; a Txn takes them.
  std::vector<v1::JobEvent>& events() { return events_; }

 private:
  JobRecord record_;
  absl::Time now_;
  std::vector<v1::JobEvent> events_;
};

// Time as the protos carry it.
google::protobuf::Timestamp ToProto(absl::Time time);
google::protobuf::Duration ToProto(absl::Duration duration);

}  // namespace tundra::coordinator
