#include "worker/generation_delivery.h"

#include <chrono>

#include "absl/time/time.h"

namespace tundra::worker {
namespace {

// For chunks that are on their way when nobody waits for them here any more.
constexpr absl::Duration kLastWords = absl::Seconds(1);

}  // namespace

bool IsLast(const tundra::v1::GenerationChunk& chunk) {
  return !chunk.finish_reason().empty() || chunk.error_code() != 0;
}

GenerationDelivery::GenerationDelivery(std::shared_ptr<ChannelSource> channels,
                                       std::function<void()> on_broken)
    : channels_(std::move(channels)),
      on_broken_(std::move(on_broken)),
      thread_([this] { Run(); }) {}

GenerationDelivery::~GenerationDelivery() {
  {
    absl::MutexLock lock(&mu_);
    stopped_ = true;
    if (last_added_) mu_.AwaitWithTimeout(absl::Condition(&ended_), kLastWords);
    if (!ended_) context_.TryCancel();
  }
  thread_.join();
}

void GenerationDelivery::Add(tundra::v1::GenerationChunk chunk) {
  absl::MutexLock lock(&mu_);
  if (ended_) return;  // Nobody will send it.
  last_added_ |= IsLast(chunk);
  chunks_.push_back(std::move(chunk));
}

void GenerationDelivery::Run() {
  auto stub = tundra::v1::WorkerService::NewStub(channels_->Get());
  context_.set_deadline(std::chrono::system_clock::now() + std::chrono::hours(1));
  tundra::v1::GenerationAck ack;
  auto writer = stub->DeliverGeneration(&context_, &ack);
  bool finished = false;
  while (!finished) {
    tundra::v1::GenerationChunk chunk;
    {
      absl::MutexLock lock(&mu_);
      const auto wake = [this] {
        mu_.AssertReaderHeld();
        return stopped_ || !chunks_.empty();
      };
      mu_.Await(absl::Condition(&wake));
      if (stopped_ && !last_added_) break;
      if (chunks_.empty()) break;
      chunk = std::move(chunks_.front());
      chunks_.pop_front();
    }
    if (!writer->Write(chunk)) break;
    finished = IsLast(chunk);
  }
  if (finished) {
    writer->WritesDone();
  } else {
    context_.TryCancel();
  }
  const bool delivered = writer->Finish().ok() && finished;
  bool stopped = false;
  {
    absl::MutexLock lock(&mu_);
    ended_ = true;
    stopped = stopped_;
    chunks_.clear();
  }
  if (!delivered && !stopped) on_broken_();
}

}  // namespace tundra::worker
