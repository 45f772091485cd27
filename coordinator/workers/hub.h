// Tells watchers that a job has something new. It carries no data: a watcher
// reads on from the store at its own pace, so a slow one costs nothing.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "common/ids.h"

namespace tundra::coordinator {

class Watcher {
 public:
  virtual ~Watcher() = default;
  // May be called on any thread, also for nothing new. Must not block.
  virtual void Wake() = 0;
};

// Thread-safe.
class Hub {
 public:
  // Until the watcher is destroyed.
  void Add(const JobId& job, std::weak_ptr<Watcher> watcher);
  // After the commit of a change of the job.
  void Notify(const JobId& job);

 private:
  static constexpr size_t kSweepFrom = 64;

  absl::Mutex mu_;
  std::map<JobId, std::vector<std::weak_ptr<Watcher>>> watchers_ ABSL_GUARDED_BY(mu_);
  size_t sweep_at_ ABSL_GUARDED_BY(mu_) = kSweepFrom;  // jobs
};

}  // namespace tundra::coordinator
