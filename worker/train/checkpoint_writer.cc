#include "worker/train/checkpoint_writer.h"

#include <utility>

#include "common/files.h"
#include "common/logging.h"
#include "common/status.h"

namespace tundra {

CheckpointSink FileCheckpointSink(std::string dir, int keep) {
  return [dir = std::move(dir), keep](int64_t step, std::string bytes) -> absl::Status {
    RETURN_IF_ERROR(MakeDirs(dir));
    RETURN_IF_ERROR(WriteFileAtomically(dir + "/" + CheckpointFileName(step), bytes));
    return PruneCheckpoints(dir, keep);
  };
}

CheckpointWriter::CheckpointWriter(LoraLayout layout, CheckpointSink sink)
    : layout_(std::move(layout)), sink_(std::move(sink)), thread_([this] { Run(); }) {}

CheckpointWriter::~CheckpointWriter() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
  }
  thread_.join();
}

void CheckpointWriter::Submit(JobState state) {
  absl::MutexLock lock(&mu_);
  if (waiting_.size() >= kMaxWaiting) {
    waiting_.pop_front();
    ++dropped_;
  }
  waiting_.push_back(std::move(state));
}

void CheckpointWriter::Run() {
  while (true) {
    JobState state;
    {
      absl::MutexLock lock(&mu_);
      const auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stop_ || !waiting_.empty();
      };
      mu_.Await(absl::Condition(&wake));
      if (waiting_.empty()) return;
      state = std::move(waiting_.front());
      waiting_.pop_front();
      busy_ = true;
    }
    const absl::Status status = sink_(state.step, EncodeCheckpoint(layout_, state));
    absl::MutexLock lock(&mu_);
    busy_ = false;
    if (status.ok()) {
      ++written_;
      last_step_ = state.step;
    } else {
      LogWarning("checkpoint of step {} not written: {}", state.step, std::string(status.message()));
      if (error_.ok()) error_ = status;
    }
  }
}

absl::Status CheckpointWriter::Flush(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !busy_ && waiting_.empty();
  };
  if (!mu_.AwaitWithTimeout(absl::Condition(&idle), timeout)) {
    return absl::DeadlineExceededError("writing checkpoints takes longer than the time given");
  }
  return std::exchange(error_, absl::OkStatus());
}

int64_t CheckpointWriter::written() const {
  absl::MutexLock lock(&mu_);
  return written_;
}
int64_t CheckpointWriter::dropped() const {
  absl::MutexLock lock(&mu_);
  return dropped_;
}
int64_t CheckpointWriter::last_written_step() const {
  absl::MutexLock lock(&mu_);
  return last_step_;
}

}  // namespace tundra
