// What happens to jobs over time, for the metrics alone: recoveries, steps done once more,
// devices held, jobs that stand still. It is kept in memory, begins anew with the process, and
// nothing is decided from it.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/http/metrics.h"
#include "coordinator/scheduler/schedule.h"
#include "coordinator/store/records.h"
#include "coordinator/workers/controller.h"
#include "coordinator/workers/job_reports.h"

namespace tundra::coordinator {

// A running job is stalled when its last step is older than both: seconds that no healthy step
// takes, and many times its own.
inline constexpr absl::Duration kStalledAfter = absl::Minutes(10);
inline constexpr double kStalledSteps = 20;

// Thread-safe.
class JobWatch {
 public:
  // Both outlive it.
  JobWatch(Metrics* metrics, Clock* clock) : metrics_(metrics), clock_(clock) {}

  // A decision was carried out.
  void OnDecision(const Decision& decision);
  // The devices that jobs hold from now on.
  void OnPlan(const std::vector<HeldDevices>& held);
  // A report was stored or refused.
  void OnReport(const JobReportResult& report);

  // Counts the device seconds up to now.
  void CountDeviceSeconds();
  // Whether a job in RUNNING stands still. Its time begins with the first call or report.
  bool IsStalled(const JobRecord& job);

 private:
  struct Progress {
    int64_t attempt = 0;
    int64_t step = 0;
    absl::Duration since;
    // Steps of this attempt up to here were counted as done once more.
    int64_t replayed_to = 0;
  };
  struct Recovery {
    absl::Duration since;
    // Reports of it are of the time before.
    int64_t lost_attempt = 0;
  };

  void BeginRecovery(const JobId& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountReplayed(const JobReportResult& report, Progress& progress)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndRecovery(const JobId& job, const JobReportResult& report)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountHeld() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Metrics* const metrics_;
  Clock* const clock_;
  absl::Mutex mu_;
  std::map<JobId, Progress> progress_ ABSL_GUARDED_BY(mu_);  // of placed jobs
  std::map<JobId, Recovery> recovering_ ABSL_GUARDED_BY(mu_);
  std::vector<HeldDevices> held_ ABSL_GUARDED_BY(mu_);
  absl::Duration counted_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tundra::coordinator
