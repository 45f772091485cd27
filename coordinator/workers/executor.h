// A few threads with a bounded queue: where work that blocks on the disk runs, so
// that gRPC's own threads never do.
#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace tundra::coordinator {

// Thread-safe. The destructor runs what is queued, then joins.
class Executor {
 public:
  Executor(int threads, size_t max_queue);
  ~Executor();
  // False when the queue is full or the executor stops: the caller answers
  // "busy" then, and work is not run.
  bool TryRun(std::function<void()> work);
  // Queues whatever the length: for work that holds a bounded resource already
  // (an open stream), at most one piece each. False once it stops.
  bool Run(std::function<void()> work);

 private:
  void Loop();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stopping_ || !queue_.empty(); }

  const size_t max_queue_;
  absl::Mutex mu_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace tundra::coordinator
