// Carries out the scheduler's decisions in the store. Each checks in its own
// transaction that what it was decided on still holds.
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/scheduler/schedule.h"
#include "coordinator/store/store.h"

namespace tundra::coordinator {

// The job that was changed, empty for none. Errors: kFailedPrecondition,
// kAborted or kNotFound when the world has moved on: look again and decide anew.
absl::StatusOr<JobId> ApplyDecision(Txn& txn, const Decision& decision, absl::Time now);

// Errors: kNotFound.
absl::StatusOr<GroupRecord> FindGroup(ReadTxn& txn, const GroupId& id);

// The group keeps its ranks and has no job any more. OK when there is no group.
absl::Status FreeGroup(Txn& txn, const GroupId& id, const JobId& job);

// Step of the job's latest checkpoint; -1 for none.
absl::StatusOr<int64_t> LatestCheckpointStep(ReadTxn& txn, const JobRecord& job);

}  // namespace tundra::coordinator
