// Which blobs each worker has sent whole. Only those it may name in its reports:
// whoever knows no more of a blob than its hash must not get hold of it, nor learn
// whether it is there.
//
// In memory alone: after a restart of the coordinator a worker is asked for what
// it names once more.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>

#include "absl/synchronization/mutex.h"
#include "common/ids.h"

namespace tundra::coordinator {

// Thread-safe. Remembers the latest kMost of each worker.
class DeliveredBlobs {
 public:
  static constexpr size_t kMost = 4096;

  void Add(const WorkerId& worker, const BlobId& blob) {
    absl::MutexLock lock(&mu_);
    Worker& known = workers_[worker];
    if (!known.blobs.insert(blob).second) return;
    known.order.push_back(blob);
    if (known.order.size() <= kMost) return;
    known.blobs.erase(known.order.front());
    known.order.pop_front();
  }
  bool Has(const WorkerId& worker, const BlobId& blob) const {
    absl::MutexLock lock(&mu_);
    const auto known = workers_.find(worker);
    return known != workers_.end() && known->second.blobs.contains(blob);
  }

 private:
  struct Worker {
    std::set<BlobId> blobs;
    std::deque<BlobId> order;
  };
  mutable absl::Mutex mu_;
  std::map<WorkerId, Worker> workers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tundra::coordinator
