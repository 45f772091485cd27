#include "coordinator/workers/hub.h"

#include <algorithm>

namespace tundra::coordinator {

void Hub::Add(const JobId& job, std::weak_ptr<Watcher> watcher) {
  absl::MutexLock lock(&mu_);
  const auto gone = [](const std::weak_ptr<Watcher>& w) { return w.expired(); };
  // Jobs that nothing happens to any more, or that never were, leave theirs behind.
  if (watchers_.size() >= sweep_at_) {
    std::erase_if(watchers_, [&](const auto& entry) {
      return std::all_of(entry.second.begin(), entry.second.end(), gone);
    });
    sweep_at_ = std::max(kSweepFrom, 2 * watchers_.size());
  }
  std::vector<std::weak_ptr<Watcher>>& list = watchers_[job];
  std::erase_if(list, gone);
  list.push_back(std::move(watcher));
}

void Hub::Notify(const JobId& job) {
  std::vector<std::shared_ptr<Watcher>> awake;
  {
    absl::MutexLock lock(&mu_);
    const auto it = watchers_.find(job);
    if (it == watchers_.end()) return;
    for (const std::weak_ptr<Watcher>& weak : it->second) {
      if (auto watcher = weak.lock()) awake.push_back(std::move(watcher));
    }
    if (awake.empty()) watchers_.erase(it);
  }
  for (const auto& watcher : awake) watcher->Wake();
}

}  // namespace tundra::coordinator
