#include "worker/generation_delivery.h"

#include <chrono>

namespace tundra::worker {

bool IsLast(const tundra::v1::GenerationChunk& chunk) {
  return !chunk.finish_reason().empty() || chunk.error_code() != 0;
}

GenerationDelivery::GenerationDelivery(std::shared_ptr<grpc::ChannelInterface> channel,
                                       std::function<void()> on_broken)
    : channel_(std::move(channel)), on_broken_(std::move(on_broken)), thread_([this] { Run(); }) {}

GenerationDelivery::~GenerationDelivery() {
  {
    absl::MutexLock lock(&mu_);
    stopped_ = true;
  }
  thread_.join();
}

void GenerationDelivery::Add(tundra::v1::GenerationChunk chunk) {
  absl::MutexLock lock(&mu_);
  last_added_ |= IsLast(chunk);
  chunks_.push_back(std::move(chunk));
}

void GenerationDelivery::Run() {
  auto stub = tundra::v1::WorkerService::NewStub(channel_);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::hours(1));
  tundra::v1::GenerationAck ack;
  auto writer = stub->DeliverGeneration(&context, &ack);
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
    context.TryCancel();
  }
  const bool delivered = writer->Finish().ok() && finished;
  if (!delivered) on_broken_();
}

}  // namespace tundra::worker
