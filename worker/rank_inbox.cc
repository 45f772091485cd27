#include "worker/rank_inbox.h"

#include <unistd.h>

#include "common/status.h"

namespace tundra::worker {

RankInbox::RankInbox(Link* link) : link_(link), thread_([this] { Read(); }) { thread_.detach(); }

void RankInbox::Read() {
  while (true) {
    ToRank message;
    std::vector<Fd> fds;
    // A rank without a supervisor has nobody to answer to, and may be stuck in a
    // collective: no clean-up, just out.
    if (!link_->Receive(&message, &fds).ok()) ::_exit(1);
    absl::MutexLock lock(&mu_);
    news_ = true;
    switch (message.message_case()) {
      case ToRank::kSetup:
        setup_.emplace(message.setup(), std::move(fds));
        break;
      case ToRank::kPeers:
        peers_.emplace(message.peers(), std::move(fds));
        break;
      case ToRank::kStart:
        start_ = message.start();
        break;
      case ToRank::kSteer:
        desired_[{message.steer().job_id(), message.steer().attempt()}] = message.steer().desired();
        break;
      case ToRank::kGenerate:
        if (message.generate().cancel()) {
          cancelled_.insert(message.generate().task().task_id());
        } else {
          generate_.push_back(message.generate());
        }
        break;
      case ToRank::kQuit:
        quit_ = true;
        break;
      case ToRank::MESSAGE_NOT_SET:
        break;
    }
  }
}

std::optional<StartJob> RankInbox::TakeStart() {
  absl::MutexLock lock(&mu_);
  return std::exchange(start_, std::nullopt);
}

tundra::v1::DesiredState RankInbox::Desired(const std::string& job_id, int64_t attempt) const {
  absl::MutexLock lock(&mu_);
  const auto it = desired_.find({job_id, attempt});
  return it == desired_.end() ? tundra::v1::RUN : it->second;
}

std::optional<GenerateOrder> RankInbox::TakeGenerate() {
  absl::MutexLock lock(&mu_);
  if (generate_.empty()) return std::nullopt;
  GenerateOrder order = std::move(generate_.front());
  generate_.pop_front();
  return order;
}

bool RankInbox::IsCancelled(const std::string& task_id) const {
  absl::MutexLock lock(&mu_);
  return cancelled_.contains(task_id);
}

bool RankInbox::quit() const {
  absl::MutexLock lock(&mu_);
  return quit_;
}

absl::StatusOr<std::pair<RankSetup, std::vector<Fd>>> RankInbox::WaitForSetup(
    absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const auto here = [this] {
    mu_.AssertReaderHeld();
    return setup_.has_value();
  };
  if (!mu_.AwaitWithTimeout(absl::Condition(&here), timeout)) {
    return absl::DeadlineExceededError("the supervisor sent no setup");
  }
  return *std::exchange(setup_, std::nullopt);
}

absl::StatusOr<std::pair<GroupPeers, std::vector<Fd>>> RankInbox::WaitForPeers(
    absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const auto here = [this] {
    mu_.AssertReaderHeld();
    return peers_.has_value();
  };
  if (!mu_.AwaitWithTimeout(absl::Condition(&here), timeout)) {
    return absl::DeadlineExceededError("the addresses of the other ranks did not come in time");
  }
  return *std::exchange(peers_, std::nullopt);
}

void RankInbox::WaitForNews(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(&news_), timeout);
  news_ = false;
}

}  // namespace tundra::worker
