// Writes checkpoints beside the training: the step copies its state and goes on; a
// thread encodes, hashes and hands the bytes to a sink (a file, the supervisor's
// memory, a blob).
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/train/checkpoint.h"

namespace tundra {

// Called on the writer's thread, one state at a time, in order of submission.
using CheckpointSink = std::function<absl::Status(int64_t step, std::string bytes)>;

// A sink that writes dir/checkpoint-STEP.safetensors atomically and keeps the newest
// `keep`. A full disk leaves what was there.
CheckpointSink FileCheckpointSink(std::string dir, int keep);

// Thread-safe.
class CheckpointWriter {
 public:
  CheckpointWriter(LoraLayout layout, CheckpointSink sink);
  // Writes what was submitted, then ends.
  ~CheckpointWriter();

  // Takes a copy and returns at once. When `kMaxWaiting` states wait already, the
  // oldest of them is given up (counted in `dropped`): the disk is too slow.
  void Submit(JobState state);

  // Waits until everything submitted was written or failed. Returns the first error
  // since the last Flush. Errors: those of the sink; kDeadlineExceeded.
  absl::Status Flush(absl::Duration timeout);

  int64_t written() const;
  int64_t dropped() const;
  // Of the last state that the sink took; -1 for none.
  int64_t last_written_step() const;

  static constexpr size_t kMaxWaiting = 4;

 private:
  void Run();

  const LoraLayout layout_;
  const CheckpointSink sink_;
  mutable absl::Mutex mu_;
  std::deque<JobState> waiting_ ABSL_GUARDED_BY(mu_);
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  int64_t written_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t last_step_ ABSL_GUARDED_BY(mu_) = -1;
  absl::Status error_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace tundra
