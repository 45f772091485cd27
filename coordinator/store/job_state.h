// The states of a job and the moves between them, in one place: every write of
// a job's state asks CanMove first.
//
//   QUEUED -> STARTING -> RUNNING -> SUCCEEDED
//   QUEUED | STARTING | RUNNING -> FAILED
//   STARTING | RUNNING -> PREEMPTING -> QUEUED
//   QUEUED -> PAUSED;  STARTING | RUNNING -> PAUSING -> PAUSED -> QUEUED
//   QUEUED | PAUSED -> CANCELLED
//   STARTING | RUNNING | PAUSING | PREEMPTING -> CANCELLING -> CANCELLED
//   RUNNING -> STARTING (a rank was lost: next epoch and attempt)
#pragma once

#include <string>
#include <vector>

#include "tundra/v1/job.pb.h"

namespace tundra::coordinator {

// True for the arrows above and nothing else; a state is no move to itself.
bool CanMove(v1::JobState from, v1::JobState to);

// SUCCEEDED, FAILED, CANCELLED: no move leads out.
bool IsTerminal(v1::JobState state);

// The job has devices: STARTING, RUNNING, PREEMPTING, PAUSING, CANCELLING.
bool IsPlaced(v1::JobState state);

// All states but UNSPECIFIED, in the order of the proto.
const std::vector<v1::JobState>& AllJobStates();

// "RUNNING".
std::string StateName(v1::JobState state);

}  // namespace tundra::coordinator
