// Joins a client that asks for text with the worker that makes it. The worker's
// stream is read only as fast as the client takes the text: at most kMaxQueued
// chunks wait in between.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "coordinator/workers/fleet.h"
#include "tundra/v1/generate.pb.h"

namespace tundra::coordinator {

// Thread-safe. Callbacks are called without locks held, on any thread, and must
// not block.
class GenerationRelay {
 public:
  GenerationRelay(Fleet* fleet, Clock* clock) : fleet_(fleet), clock_(clock) {}

  // ---- The client's side ----
  // Starts a task; its worker has `patience` to begin. on_data is called when
  // Take may have something. Errors: kUnavailable.
  absl::Status Start(const v1::GenerateTask& task, absl::Duration patience,
                     std::function<void()> on_data);
  // The next piece of text, or the end (done, with its status), or neither.
  struct Piece {
    std::optional<v1::GenerateResponse> response;
    bool done = false;
    absl::Status status;
  };
  Piece Take(const std::string& task_id);
  // The client has gone, or has had the end.
  void Forget(const std::string& task_id);

  // ---- The worker's side ----
  // The stream that delivers a task begins. on_room is called when Push may be
  // called again after it returned false, or when the client has gone.
  // Errors: kCancelled when the client has gone; kFailedPrecondition when the
  // task is not this worker's.
  absl::Status Attach(const std::string& task_id, const WorkerId& worker,
                      std::function<void()> on_room);
  // True: go on reading. False: wait for on_room. Errors: kCancelled.
  absl::StatusOr<bool> Push(const v1::GenerationChunk& chunk);
  absl::StatusOr<bool> HasRoom(const std::string& task_id);
  // The stream has ended; without a last chunk, the client gets UNAVAILABLE.
  void Detach(const std::string& task_id);

  // Ends tasks whose worker has gone or has not begun in time. Called each second.
  void Expire();

 private:
  static constexpr size_t kMaxQueued = 64;
  struct Task {
    WorkerId worker;
    absl::Duration deadline;
    std::function<void()> on_data;
    std::function<void()> on_room;
    std::deque<v1::GenerateResponse> queue;
    bool attached = false;
    std::optional<absl::Status> end;
  };

  Fleet* const fleet_;
  Clock* const clock_;
  absl::Mutex mu_;
  std::map<std::string, Task> tasks_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tundra::coordinator
