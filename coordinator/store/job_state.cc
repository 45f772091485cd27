#include "coordinator/store/job_state.h"

namespace tundra::coordinator {
namespace {

bool IsOneOf(v1::JobState state, std::initializer_list<v1::JobState> states) {
  for (const v1::JobState s : states) {
    if (s == state) return true;
  }
  return false;
}

}  // namespace

// No `default:`, so that the compiler names this function when a state is added.
bool CanMove(v1::JobState from, v1::JobState to) {
  switch (from) {
    case v1::QUEUED:
      return IsOneOf(to, {v1::STARTING, v1::FAILED, v1::PAUSED, v1::CANCELLED});
    case v1::STARTING:
      return IsOneOf(to, {v1::RUNNING, v1::FAILED, v1::PREEMPTING, v1::PAUSING, v1::CANCELLING});
    case v1::RUNNING:
      return IsOneOf(to, {v1::STARTING, v1::SUCCEEDED, v1::FAILED, v1::PREEMPTING, v1::PAUSING,
                          v1::CANCELLING});
    case v1::PREEMPTING:
      return IsOneOf(to, {v1::QUEUED, v1::CANCELLING});
    case v1::PAUSING:
      return IsOneOf(to, {v1::PAUSED, v1::CANCELLING});
    case v1::PAUSED:
      return IsOneOf(to, {v1::QUEUED, v1::CANCELLED});
    case v1::CANCELLING:
      return to == v1::CANCELLED;
    case v1::JOB_STATE_UNSPECIFIED:
    case v1::SUCCEEDED:
    case v1::FAILED:
    case v1::CANCELLED:
    case v1::JobState_INT_MIN_SENTINEL_DO_NOT_USE_:
    case v1::JobState_INT_MAX_SENTINEL_DO_NOT_USE_:
      return false;
  }
  return false;
}

bool IsTerminal(v1::JobState state) {
  return IsOneOf(state, {v1::SUCCEEDED, v1::FAILED, v1::CANCELLED});
}

bool IsPlaced(v1::JobState state) {
  return IsOneOf(state, {v1::STARTING, v1::RUNNING, v1::PREEMPTING, v1::PAUSING, v1::CANCELLING});
}

const std::vector<v1::JobState>& AllJobStates() {
  static const auto* const states = new std::vector<v1::JobState>{
      v1::QUEUED, v1::STARTING,   v1::RUNNING,   v1::PREEMPTING, v1::PAUSING,
      v1::PAUSED, v1::CANCELLING, v1::SUCCEEDED, v1::FAILED,     v1::CANCELLED};
  return *states;
}

std::string StateName(v1::JobState state) { return v1::JobState_Name(state); }

}  // namespace tundra::coordinator
