// The one thread that moves jobs: looks at everything, asks Schedule what should
// happen, writes it, and tells the fleet. Everything else only writes what is
// desired or observed and kicks it.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <thread>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "coordinator/store/store.h"
#include "coordinator/workers/fleet.h"
#include "coordinator/workers/hub.h"

namespace tundra::coordinator {

// A job and the devices that it holds.
struct HeldDevices {
  JobId job;
  std::string tenant;
  int devices = 0;
};

struct ControllerOptions {
  // How often it looks without being kicked (leases, estimates).
  absl::Duration interval = absl::Seconds(1);
  // Told of each decision that was carried out.
  std::function<void(const Decision&)> on_decision = [](const Decision&) {};
  // Told of each plan, as of now.
  std::function<void(const std::vector<HeldDevices>&)> on_plan = [](const auto&) {};
};

class Controller {
 public:
  Controller(Store* store, Fleet* fleet, Hub* hub, Clock* clock, ControllerOptions options);
  ~Controller();

  // Looks once, on this thread, so that sessions find a plan; then starts the
  // thread. Errors: those of the store.
  absl::Status Start();
  void Stop();
  // Something changed. Thread-safe, returns at once.
  void Kick();
  // Why a queued job waits, as of the last look; nullopt when it does not.
  // Thread-safe.
  std::optional<v1::Waiting> WaitingOf(const JobId& job);

  // One look: bounded work. Returns whether anything was decided that calls for
  // another. Errors: those of the store.
  absl::StatusOr<bool> Tick();

 private:
  void Loop();
  absl::StatusOr<Snapshot> Look();
  JobView View(const JobRecord& record, const std::map<GroupId, GroupRecord>& groups);
  absl::Status Publish();
  bool IsKicked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return kicked_ || stopping_; }

  Store* const store_;
  Fleet* const fleet_;
  Hub* const hub_;
  Clock* const clock_;
  const ControllerOptions options_;
  // Since when each job is in its state; used by Tick only.
  std::map<JobId, std::pair<v1::JobState, absl::Duration>> since_;
  bool published_ = false;

  absl::Mutex mu_;
  std::map<JobId, v1::Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  bool kicked_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

// Group bounds and the like, as the scheduler sees a job's spec.
void FillFromSpec(const v1::JobSpec& spec, JobView& view);

}  // namespace tundra::coordinator
