// The fleet as the API shows it.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "coordinator/store/job_draft.h"
#include "coordinator/workers/fleet.h"

namespace tundra::coordinator {
namespace {

std::string PhaseName(v1::RankPhase phase) {
  return phase == v1::RANK_PHASE_UNSPECIFIED ? ""
                                             : absl::AsciiStrToLower(v1::RankPhase_Name(phase));
}

}  // namespace

std::vector<v1::Worker> Fleet::ListWorkers() {
  absl::MutexLock lock(&mu_);
  std::map<std::pair<std::string, int32_t>, std::string> groups;
  for (const PlannedGroup& group : plan_) {
    for (const GroupMemberRecord& member : group.record.members) {
      groups[{member.worker.value, member.device}] = absl::StrCat("groups/", group.record.id.value);
    }
  }
  const absl::Time now = clock_->Now();
  const absl::Duration monotonic = clock_->Monotonic();
  std::vector<v1::Worker> workers;
  for (const auto& [id, worker] : workers_) {
    v1::Worker& out = workers.emplace_back();
    out.set_name(absl::StrCat("workers/", id.value));
    out.set_display_name(worker.report.display_name());
    out.set_state(!IsAlive(worker)         ? v1::AWAY
                  : IsDraining(id, worker) ? v1::DRAINING
                                           : v1::CONNECTED);
    out.set_build(worker.report.build());
    for (const v1::DeviceInfo& device : worker.report.devices()) {
      v1::WorkerDevice* const shown = out.add_devices();
      shown->set_index(device.index());
      shown->set_kind(device.kind());
      shown->set_display_name(device.name());
      shown->set_memory_bytes(device.memory_bytes());
      shown->set_numerics_class(device.numerics_class());
      const auto group = groups.find({id.value, device.index()});
      if (group != groups.end()) shown->set_group(group->second);
    }
    for (const v1::BaseInfo& base : worker.report.bases()) out.add_bases(base.base().name());
    out.set_drained(drained_.contains(id));
    // A member of a group that has not reported since the start was not seen yet.
    if (worker.session != 0)
      *out.mutable_last_seen_time() = ToProto(now - (monotonic - worker.last_seen));
  }
  return workers;
}

std::vector<v1::Group> Fleet::ListGroups() {
  absl::MutexLock lock(&mu_);
  std::vector<v1::Group> groups;
  for (const PlannedGroup& planned : plan_) {
    const GroupRecord& record = planned.record;
    v1::Group& out = groups.emplace_back();
    out.set_name(absl::StrCat("groups/", record.id.value));
    out.set_epoch(record.epoch);
    out.set_base(absl::StrCat("bases/", record.base.value));
    out.set_precision(record.precision);
    out.set_shards(record.shards);
    out.set_busy(!record.job.empty());
    if (!record.job.empty()) out.set_job(absl::StrCat("jobs/", record.job.value));
    for (size_t rank = 0; rank < record.members.size(); ++rank) {
      v1::GroupRank* const shown = out.add_ranks();
      shown->set_worker(absl::StrCat("workers/", record.members[rank].worker.value));
      shown->set_device_index(record.members[rank].device);
      const v1::RankReport* const report = RankOf(record, rank);
      if (report == nullptr) continue;
      shown->set_phase(PhaseName(report->phase()));
      shown->set_resident_bytes(report->resident_shard_bytes() + report->prepared_bytes());
    }
  }
  std::sort(groups.begin(), groups.end(),
            [](const v1::Group& a, const v1::Group& b) { return a.name() < b.name(); });
  return groups;
}

}  // namespace tundra::coordinator
