#include "coordinator/workers/generation.h"

#include <vector>

#include "absl/strings/str_cat.h"

namespace tundra::coordinator {

absl::Status GenerationRelay::Start(const v1::GenerateTask& task, absl::Duration patience,
                                    std::function<void()> on_data) {
  {
    // Known before the worker can hear of it.
    absl::MutexLock lock(&mu_);
    Task& entry = tasks_[task.task_id()];
    entry.deadline = clock_->Monotonic() + patience;
    entry.on_data = std::move(on_data);
  }
  const absl::StatusOr<WorkerId> worker = fleet_->AddGenerateTask(task);
  absl::MutexLock lock(&mu_);
  if (!worker.ok()) {
    tasks_.erase(task.task_id());
    return worker.status();
  }
  const auto it = tasks_.find(task.task_id());
  if (it != tasks_.end()) it->second.worker = *worker;
  return absl::OkStatus();
}

GenerationRelay::Piece GenerationRelay::Take(const std::string& task_id) {
  Piece piece;
  std::function<void()> on_room;
  {
    absl::MutexLock lock(&mu_);
    const auto it = tasks_.find(task_id);
    if (it == tasks_.end()) return {std::nullopt, true, absl::CancelledError("cancelled")};
    Task& task = it->second;
    if (!task.queue.empty()) {
      if (task.queue.size() == kMaxQueued) on_room = task.on_room;
      piece.response = std::move(task.queue.front());
      task.queue.pop_front();
    } else if (task.end.has_value()) {
      piece.done = true;
      piece.status = *task.end;
    }
  }
  if (on_room) on_room();
  return piece;
}

void GenerationRelay::Forget(const std::string& task_id) {
  std::function<void()> on_room;
  {
    absl::MutexLock lock(&mu_);
    const auto it = tasks_.find(task_id);
    if (it == tasks_.end()) return;
    on_room = std::move(it->second.on_room);
    tasks_.erase(it);
  }
  fleet_->RemoveGenerateTask(task_id);
  if (on_room) on_room();
}

absl::Status GenerationRelay::Attach(const std::string& task_id, const WorkerId& worker,
                                     std::function<void()> on_room) {
  absl::MutexLock lock(&mu_);
  const auto it = tasks_.find(task_id);
  if (it == tasks_.end() || it->second.end.has_value()) {
    return absl::CancelledError(absl::StrCat("nobody waits for task ", task_id));
  }
  Task& task = it->second;
  if (task.attached || (!task.worker.empty() && task.worker != worker)) {
    return absl::FailedPreconditionError(
        absl::StrCat("task ", task_id, " is not for worker ", worker.value));
  }
  task.attached = true;
  task.worker = worker;
  task.on_room = std::move(on_room);
  return absl::OkStatus();
}

absl::StatusOr<bool> GenerationRelay::Push(const v1::GenerationChunk& chunk) {
  std::function<void()> on_data;
  bool room = true;
  {
    absl::MutexLock lock(&mu_);
    const auto it = tasks_.find(chunk.task_id());
    if (it == tasks_.end() || it->second.end.has_value()) {
      return absl::CancelledError("the reader has gone");
    }
    Task& task = it->second;
    if (chunk.error_code() != 0) {
      const int code = chunk.error_code() > 0 && chunk.error_code() <= 16 ? chunk.error_code() : 13;
      task.end = absl::Status(static_cast<absl::StatusCode>(code), chunk.error_message());
    } else {
      v1::GenerateResponse& response = task.queue.emplace_back();
      response.set_text(chunk.text());
      response.set_tokens(chunk.tokens());
      response.set_finish_reason(chunk.finish_reason());
      if (!chunk.finish_reason().empty()) task.end = absl::OkStatus();
    }
    room = task.queue.size() < kMaxQueued;
    on_data = task.on_data;
  }
  if (on_data) on_data();
  return room;
}

absl::StatusOr<bool> GenerationRelay::HasRoom(const std::string& task_id) {
  absl::MutexLock lock(&mu_);
  const auto it = tasks_.find(task_id);
  if (it == tasks_.end()) return absl::CancelledError("the reader has gone");
  return it->second.queue.size() < kMaxQueued;
}

void GenerationRelay::Detach(const std::string& task_id) {
  std::function<void()> on_data;
  {
    absl::MutexLock lock(&mu_);
    const auto it = tasks_.find(task_id);
    if (it == tasks_.end()) return;
    it->second.on_room = nullptr;
    if (!it->second.end.has_value()) {
      it->second.end = absl::UnavailableError(
          "the worker ended its answer early; try again, or look at its log");
    }
    on_data = it->second.on_data;
  }
  fleet_->RemoveGenerateTask(task_id);
  if (on_data) on_data();
}

void GenerationRelay::Expire() {
  std::vector<std::function<void()>> wake;
  std::vector<std::string> ended;
  {
    absl::MutexLock lock(&mu_);
    const absl::Duration now = clock_->Monotonic();
    for (auto& [id, task] : tasks_) {
      if (task.end.has_value() || task.worker.empty()) continue;
      if (!task.attached && now > task.deadline) {
        task.end = absl::UnavailableError("no worker was free in time; try again later");
      } else if (!fleet_->IsConnected(task.worker)) {
        task.end = absl::UnavailableError("the worker that served it went away; try again");
      } else {
        continue;
      }
      ended.push_back(id);
      wake.push_back(task.on_data);
      if (task.on_room) wake.push_back(task.on_room);
    }
  }
  for (const std::string& id : ended) fleet_->RemoveGenerateTask(id);
  for (const auto& fn : wake) {
    if (fn) fn();
  }
}

}  // namespace tundra::coordinator
