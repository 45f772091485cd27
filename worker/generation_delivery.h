// Sends the text of one GenerateTask to the coordinator as it is made, on a
// stream and thread of its own, so that a slow reader never holds up a rank.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/rpc.h"
#include "tundra/v1/worker.grpc.pb.h"

namespace tundra::worker {

class GenerationDelivery {
 public:
  // `on_broken` is called once, from the delivery's thread, when the coordinator
  // takes no more, because the reader has gone or the connection broke; not once
  // the destructor runs.
  GenerationDelivery(std::shared_ptr<ChannelSource> channels, std::function<void()> on_broken);
  // Gives what is queued a second if the last chunk is among it; else gives up at
  // once. Never waits for a coordinator that does not read.
  ~GenerationDelivery();

  void Add(tundra::v1::GenerationChunk chunk);

 private:
  void Run();

  const std::shared_ptr<ChannelSource> channels_;
  const std::function<void()> on_broken_;
  grpc::ClientContext context_;
  absl::Mutex mu_;
  std::deque<tundra::v1::GenerationChunk> chunks_ ABSL_GUARDED_BY(mu_);
  bool last_added_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

// Whether the chunk ends its task.
bool IsLast(const tundra::v1::GenerationChunk& chunk);

}  // namespace tundra::worker
