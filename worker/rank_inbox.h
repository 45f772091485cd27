// What a rank's supervisor wants of it, as last told. A thread of the rank fills
// it from the link; the rank's main thread looks at it between rounds. When the
// supervisor goes, the rank process ends at once.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/files.h"
#include "worker/link.h"
#include "worker/rank_control.pb.h"

namespace tundra::worker {

// Thread-safe. Lives as long as the process.
class RankInbox {
 public:
  explicit RankInbox(Link* link);

  // The job to run, each attempt once.
  std::optional<StartJob> TakeStart();
  // What is wanted of an attempt; RUN until told otherwise.
  tundra::v1::DesiredState Desired(const std::string& job_id, int64_t attempt) const;

  std::optional<GenerateOrder> TakeGenerate();
  bool IsCancelled(const std::string& task_id) const;

  bool quit() const;

  // Waits for the message that every group begins with. Errors: kDeadlineExceeded.
  absl::StatusOr<std::pair<RankSetup, std::vector<Fd>>> WaitForSetup(absl::Duration timeout);
  absl::StatusOr<std::pair<GroupPeers, std::vector<Fd>>> WaitForPeers(absl::Duration timeout);

  // Returns when something new came since the last call, or after `timeout`.
  void WaitForNews(absl::Duration timeout);

 private:
  void Read();

  Link* const link_;
  mutable absl::Mutex mu_;
  bool news_ ABSL_GUARDED_BY(mu_) = false;
  bool quit_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<std::pair<RankSetup, std::vector<Fd>>> setup_ ABSL_GUARDED_BY(mu_);
  std::optional<std::pair<GroupPeers, std::vector<Fd>>> peers_ ABSL_GUARDED_BY(mu_);
  std::optional<StartJob> start_ ABSL_GUARDED_BY(mu_);
  std::map<std::pair<std::string, int64_t>, tundra::v1::DesiredState> desired_ ABSL_GUARDED_BY(mu_);
  std::deque<GenerateOrder> generate_ ABSL_GUARDED_BY(mu_);
  std::set<std::string> cancelled_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace tundra::worker
