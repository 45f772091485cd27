#include "coordinator/store/job_draft.h"

#include "absl/strings/str_cat.h"
#include "coordinator/store/job_state.h"

namespace tundra::coordinator {

google::protobuf::Timestamp ToProto(absl::Time time) {
  google::protobuf::Timestamp out;
  const int64_t nanos = absl::ToUnixNanos(time);
  int64_t seconds = nanos / 1'000'000'000;
  int64_t rest = nanos % 1'000'000'000;
  if (rest < 0) {
    rest += 1'000'000'000;
    --seconds;
  }
  out.set_seconds(seconds);
  out.set_nanos(static_cast<int32_t>(rest));
  return out;
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration out;
  const int64_t nanos = absl::ToInt64Nanoseconds(duration);
  out.set_seconds(nanos / 1'000'000'000);
  out.set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  return out;
}

absl::Status JobDraft::Check(const Fence& fence) const {
  if (!IsPlaced(state())) {
    return absl::AbortedError(absl::StrCat("job ", record_.id.value, " is ", StateName(state()),
                                           ": it has no current attempt"));
  }
  if (record_.job.attempt() != fence.attempt || record_.epoch != fence.epoch) {
    return absl::AbortedError(absl::StrCat(
        "job ", record_.id.value, ": attempt ", fence.attempt, " epoch ", fence.epoch,
        " is not current (attempt ", record_.job.attempt(), " epoch ", record_.epoch, " is)"));
  }
  return absl::OkStatus();
}

absl::Status JobDraft::Move(v1::JobState to, std::string_view message, bool warning) {
  if (!CanMove(state(), to)) {
    return absl::FailedPreconditionError(absl::StrCat("job ", record_.id.value, " is ",
                                                      StateName(state()), ": it cannot become ",
                                                      StateName(to)));
  }
  record_.job.set_state(to);
  if (to == v1::RUNNING && !record_.job.has_start_time()) {
    *record_.job.mutable_start_time() = ToProto(now_);
  }
  if (IsTerminal(to)) {
    *record_.job.mutable_end_time() = ToProto(now_);
    record_.job.clear_time_left();
  }
  if (to != v1::PAUSED) record_.job.clear_paused_by();
  AddEvent(message, warning);
  if (!IsPlaced(to)) Unplace();
  return absl::OkStatus();
}

void JobDraft::AddEvent(std::string_view message, bool warning) {
  v1::JobEvent& event = events_.emplace_back();
  *event.mutable_time() = ToProto(now_);
  event.set_message(std::string(message));
  event.set_state(state());
  event.set_attempt(record_.job.attempt());
  event.set_epoch(record_.epoch);
  event.set_warning(warning);
}

void JobDraft::Unplace() {
  record_.group.value.clear();
  record_.epoch = 0;
}

}  // namespace tundra::coordinator
