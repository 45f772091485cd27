// The fleet as FleetService shows it: workers from their last reports, groups from the plan
// and what their ranks report.
#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "coordinator/store/job_draft.h"
#include "coordinator/workers/fleet.h"

namespace tundra::coordinator {
namespace {

// "awaiting_peers"; empty when unspecified.
std::string PhaseName(v1::RankPhase phase) {
  return phase == v1::RANK_PHASE_UNSPECIFIED ? ""
                                             : absl::AsciiStrToLower(v1::RankPhase_Name(phase));
}

}  // namespace

v1::WorkerState Fleet::StateOf(const Worker& worker) const {
  if (!IsAlive(worker)) return v1::AWAY;
  return worker.report.draining() ? v1::DRAINING : v1::CONNECTED;
}

std::vector<v1::Worker> Fleet::ListWorkers() {
  absl::MutexLock lock(&mu_);
  std::map<std::pair<WorkerId, int32_t>, std::string> group_of;
  for (const PlannedGroup& group : plan_) {
    for (const GroupMemberRecord& member : group.record.members) {
      group_of[{member.worker, member.device}] = "groups/" + group.record.id.value;
    }
  }
  // Reports are timed by the monotonic clock, which no jump of the wall clock moves.
  const absl::Time wall_zero = clock_->Now() - clock_->Monotonic();
  std::vector<v1::Worker> list;
  for (const auto& [id, worker] : workers_) {
    v1::Worker& out = list.emplace_back();
    out.set_name("workers/" + id.value);
    out.set_display_name(worker.report.display_name());
    out.set_state(StateOf(worker));
    out.set_build(worker.report.build());
    for (const v1::DeviceInfo& device : worker.report.devices()) {
      v1::WorkerDevice* const shown = out.add_devices();
      shown->set_index(device.index());
      shown->set_kind(device.kind());
      shown->set_display_name(device.name());
      shown->set_memory_bytes(device.memory_bytes());
      shown->set_numerics_class(device.numerics_class());
      const auto group = group_of.find({id, device.index()});
      if (group != group_of.end()) shown->set_group(group->second);
    }
    for (const v1::BaseInfo& base : worker.report.bases()) out.add_bases(base.base().name());
    // Members of stored groups are known before their first report.
    if (!worker.report.worker_id().empty()) {
      *out.mutable_last_seen_time() = ToProto(wall_zero + worker.last_seen);
    }
  }
  return list;
}

std::vector<v1::Group> Fleet::ListGroups() {
  absl::MutexLock lock(&mu_);
  std::vector<v1::Group> list;
  for (const PlannedGroup& group : plan_) {
    const GroupRecord& record = group.record;
    v1::Group& out = list.emplace_back();
    out.set_name("groups/" + record.id.value);
    out.set_epoch(record.epoch);
    out.set_base("bases/" + record.base.value);
    out.set_precision(record.precision);
    out.set_shards(record.shards);
    for (size_t rank = 0; rank < record.members.size(); ++rank) {
      v1::GroupRank* const shown = out.add_ranks();
      shown->set_worker("workers/" + record.members[rank].worker.value);
      shown->set_device_index(record.members[rank].device);
      const v1::RankReport* const report = RankOf(record, rank);
      if (report == nullptr) continue;
      shown->set_phase(PhaseName(report->phase()));
      shown->set_resident_bytes(report->resident_shard_bytes() + report->prepared_bytes());
    }
    out.set_busy(!record.job.value.empty());
    if (out.busy()) out.set_job("jobs/" + record.job.value);
  }
  std::sort(list.begin(), list.end(),
            [](const v1::Group& a, const v1::Group& b) { return a.name() < b.name(); });
  return list;
}

}  // namespace tundra::coordinator
