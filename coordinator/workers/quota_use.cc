#include "coordinator/workers/quota_use.h"

#include "common/status.h"

namespace tundra::coordinator {

absl::StatusOr<std::map<TenantId, int32_t>> DevicesHeld(ReadTxn& txn) {
  std::map<JobId, int32_t> by_job;
  ASSIGN_OR_RETURN(const std::vector<GroupRecord> groups, txn.ListGroups());
  for (const GroupRecord& group : groups) {
    if (!group.job.empty()) by_job[group.job] += static_cast<int32_t>(group.members.size());
  }
  std::map<TenantId, int32_t> held;
  for (const auto& [job, devices] : by_job) {
    const absl::StatusOr<JobRecord> record = txn.GetJob(job);
    if (record.ok()) held[record->tenant] += devices;
  }
  return held;
}

}  // namespace tundra::coordinator
