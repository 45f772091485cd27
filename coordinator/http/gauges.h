// What the store says of jobs when somebody looks at the metrics.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/http/job_watch.h"
#include "coordinator/http/metrics.h"
#include "coordinator/store/store.h"

namespace tundra::coordinator {

// Fills in jobs, queue_devices, queue_oldest_seconds, checkpoint_oldest_age_seconds and
// stalled_jobs. The work grows with the jobs that have not ended, not with all.
// Errors: those of the store.
absl::Status MeasureJobs(ReadTxn& txn, absl::Time now, JobWatch& watch, GaugeReadings& readings);

// Fills in quota_used_ratio, of tenants that have a quota: devices, active_jobs, dataset_bytes.
// Errors: those of the store.
absl::Status MeasureQuotas(ReadTxn& txn, GaugeReadings& readings);

// Fills in volume_size_bytes and volume_available_bytes.
void MeasureVolume(const std::string& data_dir, GaugeReadings& readings);

}  // namespace tundra::coordinator
