// The coordinator's Prometheus metrics: prefix tundra_, base units, and no job, adapter, worker
// or user in a label. deploy/monitoring/README.md lists them all; a test compares the list with
// this page.
//
// Series have a bound, 5,000 for the whole page: at most 100 tenants, then `other`; at most 64
// methods and 200 pairs of method and code, then the code `OTHER`; at most 20 reasons and 8
// resources.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/workers/rpc_observer.h"

namespace tundra::coordinator {

// Gauges that are asked for when somebody looks.
struct GaugeReadings {
  // This process holds the data folder and serves.
  bool leader = false;
  std::map<std::string, double> jobs;           // by state
  std::map<std::string, double> workers;        // by state
  std::map<std::string, double> queue_devices;  // by tenant
  // Used part of a limit, 0 to 1 and above where a limit was lowered; by tenant and resource.
  std::map<std::pair<std::string, std::string>, double> quota_used_ratio;
  double queue_oldest_seconds = 0;
  double checkpoint_oldest_age_seconds = 0;
  double stalled_jobs = 0;
  // Of the file system that holds the data folder; 0 where it cannot be asked.
  double volume_size_bytes = 0;
  double volume_available_bytes = 0;
};

// Thread-safe.
class Metrics : public RpcObserver {
 public:
  // `version` goes into build_info.
  explicit Metrics(const std::string& version);
  ~Metrics() override;

  void OnRpc(std::string_view method, int code, absl::Duration took) override;
  void OnCommit(absl::Duration took);
  // Steps that became durable for the first time, and what their devices spent on them.
  void OnSteps(const std::string& tenant, int64_t steps, int64_t tokens, double device_seconds);
  // Steps that were done once more, after a loss.
  void OnReplayedSteps(int64_t steps);
  // Devices held by jobs.
  void OnDeviceSeconds(const std::string& tenant, double seconds);
  // From the moment a loss was noticed to the job's next step.
  void OnRecovery(absl::Duration took);
  void OnFailure(const std::string& reason);
  void OnFencedWrite();
  // A call that was refused for its credentials: a short word, the same for all such.
  void OnAuthFailure(std::string_view reason);
  // The end of the certificate that is served; not exported before it is known.
  void SetCertExpiry(absl::Time expiry);

  // Sets the gauges, and returns everything in the text format.
  std::string Render(const GaugeReadings& readings);

 private:
  struct Families;
  void RenderTenants(const GaugeReadings& readings) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;  // of the caps alone: families have their own
  std::unique_ptr<Families> families_;
};

}  // namespace tundra::coordinator
