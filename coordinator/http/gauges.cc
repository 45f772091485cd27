#include "coordinator/http/gauges.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <vector>

#include "common/status.h"
#include "coordinator/store/job_state.h"
#include "coordinator/workers/controller.h"
#include "coordinator/workers/quota_use.h"

namespace tundra::coordinator {
namespace {

absl::Time FromProto(const google::protobuf::Timestamp& t) {
  return absl::FromUnixSeconds(t.seconds()) + absl::Nanoseconds(t.nanos());
}

void Raise(double& largest, absl::Duration value) {
  largest = std::max(largest, absl::ToDoubleSeconds(value));
}

}  // namespace

absl::Status MeasureJobs(ReadTxn& txn, absl::Time now, JobWatch& watch, GaugeReadings& readings) {
  for (const v1::JobState state : AllJobStates()) readings.jobs[StateName(state)] = 0;
  ASSIGN_OR_RETURN(const auto counts, txn.CountJobs());
  for (const auto& [state, count] : counts) {
    readings.jobs[StateName(state)] = static_cast<double>(count);
  }
  // One query for all: asked job by job it would be thousands.
  ASSIGN_OR_RETURN(const auto checkpoints, txn.NewestCheckpoints(v1::RUNNING));
  ASSIGN_OR_RETURN(const std::vector<JobRecord> jobs, txn.ListActiveJobs());
  for (const JobRecord& job : jobs) {
    // A tenant without a queue has 0, once it was seen.
    double& queued = readings.queue_devices[job.tenant.value];
    if (job.job.state() == v1::QUEUED) {
      JobView view;
      FillFromSpec(job.job.spec(), view);
      queued += view.min_devices;
      Raise(readings.queue_oldest_seconds, now - FromProto(job.job.create_time()));
    } else if (job.job.state() == v1::RUNNING) {
      const auto newest = checkpoints.find(job.key);
      Raise(readings.checkpoint_oldest_age_seconds,
            now - FromProto(newest == checkpoints.end() ? job.job.start_time()
                                                        : newest->second.checkpoint.create_time()));
      readings.stalled_jobs += watch.IsStalled(job) ? 1 : 0;
    }
  }
  return absl::OkStatus();
}

absl::Status MeasureQuotas(ReadTxn& txn, GaugeReadings& readings) {
  ASSIGN_OR_RETURN(const std::vector<TenantRecord> tenants, txn.ListTenants());
  ASSIGN_OR_RETURN(const auto held, DevicesHeld(txn));
  for (const TenantRecord& tenant : tenants) {
    const v1::Quota& quota = tenant.quota;
    const auto note = [&](const char* resource, bool bounded, int64_t used, int64_t most) {
      // Whoever may have nothing uses all of it.
      if (!bounded) return;
      readings.quota_used_ratio[{tenant.id.value, resource}] =
          most == 0 ? 1 : static_cast<double>(used) / static_cast<double>(most);
    };
    if (!quota.has_devices() && !quota.has_active_jobs() && !quota.has_dataset_bytes()) continue;
    ASSIGN_OR_RETURN(const TenantCounts counts, txn.CountTenant(tenant.id));
    const auto devices = held.find(tenant.id);
    note("devices", quota.has_devices(), devices == held.end() ? 0 : devices->second,
         quota.devices());
    note("active_jobs", quota.has_active_jobs(), counts.active_jobs, quota.active_jobs());
    note("dataset_bytes", quota.has_dataset_bytes(), counts.dataset_bytes, quota.dataset_bytes());
  }
  return absl::OkStatus();
}

void MeasureVolume(const std::string& data_dir, GaugeReadings& readings) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(data_dir, error);
  if (error) return;
  readings.volume_size_bytes = static_cast<double>(space.capacity);
  readings.volume_available_bytes = static_cast<double>(space.available);
}

}  // namespace tundra::coordinator
