// The worker's end of its session with the coordinator: keeps one stream open,
// reconnects for ever, sends the latest report whenever it changes and at each
// heartbeat, and hands every assignment on.
#pragma once

#include <functional>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/rpc.h"
#include "tundra/v1/worker.grpc.pb.h"

namespace tundra::worker {

struct SessionHandler {
  // Both are called from the session's threads.
  std::function<void(tundra::v1::WorkerAssignment)> on_assignment;
  std::function<void(bool connected)> on_connection;
};

// Thread-safe.
class Session {
 public:
  Session(std::shared_ptr<ChannelSource> channels, SessionHandler handler);
  // Ends the stream and waits for the threads.
  ~Session();

  // Replaces the report; reports that were not sent yet are skipped.
  void SetReport(tundra::v1::WorkerReport report);

 private:
  void Run();
  void RunStream();
  bool Stopped() {
    absl::MutexLock lock(&mu_);
    return stopped_;
  }

  const std::shared_ptr<ChannelSource> channels_;
  const SessionHandler handler_;
  absl::Mutex mu_;
  tundra::v1::WorkerReport report_ ABSL_GUARDED_BY(mu_);
  bool have_report_ ABSL_GUARDED_BY(mu_) = false;
  bool changed_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  // The stream's, while there is one: so that the destructor can end a call that
  // waits for a coordinator that neither reads nor answers.
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mu_) = nullptr;
  // How the last stream ended; OK since one has begun.
  absl::Status last_end_ ABSL_GUARDED_BY(mu_);
  absl::Duration heartbeat_ ABSL_GUARDED_BY(mu_) = absl::Seconds(1);
  std::thread thread_;
};

}  // namespace tundra::worker
