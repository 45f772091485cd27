// Life and death of an NCCL group: callers, failure, undertaker. The pump is in
// nccl_pump.cc.
#include "worker/collective/nccl_group.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace tundra::internal {
namespace {

// How long peers may have to wait for news of a failure because the pump is stuck.
constexpr std::chrono::seconds kNewsDelay{1};

// A year stands for any longer timeout, so that no sum overflows.
std::chrono::nanoseconds Bounded(absl::Duration timeout) {
  return absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(8760)));
}

}  // namespace

NcclGroup::NcclGroup(NcclOptions options, std::unique_ptr<NcclStar> star)
    : options_(std::move(options)),
      api_(*options_.api),
      star_(std::move(star)),
      grace_(Bounded(options_.abort_grace)) {
  for (Lane& lane : lanes_) lane.arrivals.resize(static_cast<size_t>(options_.size));
}

std::shared_ptr<NcclGroup> NcclGroup::Start(NcclOptions options, std::vector<NcclUniqueId> ids,
                                            std::unique_ptr<NcclStar> star) {
  std::shared_ptr<NcclGroup> group(new NcclGroup(std::move(options), std::move(star)));
  std::thread([group, ids = std::move(ids)] { group->Pump(ids); }).detach();
  return group;
}

absl::Status NcclGroup::WaitUntilReady(NcclDeadline deadline, absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mu_);
  changed_.wait_until(lock, deadline, [&] { return ready_ || !status_.ok(); });
  if (!ready_ && status_.ok()) {
    FailLocked(absl::DeadlineExceededError(
        absl::StrCat("nccl: connect: rank ", options_.rank, " of ", options_.size,
                     " had no communicators within ", absl::FormatDuration(timeout),
                     "; NCCL_DEBUG=INFO in the worker's environment tells what NCCL waits for")));
  }
  return status_;
}

absl::Status NcclGroup::Run(Channel channel, std::shared_ptr<NcclCall> call,
                            absl::Duration timeout) {
  const auto deadline = Clock::now() + Bounded(timeout);
  Lane& lane = lanes_[static_cast<size_t>(channel)];
  std::unique_lock<std::mutex> lock(mu_);
  if (!status_.ok()) return status_;
  if (lane.busy) {
    FailLocked(absl::FailedPreconditionError(
        absl::StrCat(KindName(call->kind), ": another thread is in a call on the same channel")));
    return status_;
  }
  lane.busy = true;
  lane.call = call;
  star_->Wake();
  changed_.wait_until(lock, deadline, [&] { return call->done || !status_.ok(); });
  if (!call->done && status_.ok()) {
    FailLocked(absl::DeadlineExceededError(
        absl::StrCat(KindName(call->kind), " at rank ", options_.rank, " of ", options_.size,
                     ": the peers did not finish within ", absl::FormatDuration(timeout))));
  }
  // The undertaker ends this wait: it declares the group wedged in bounded time.
  changed_.wait(
      lock, [&] { return call->done || (pump_left_ && (quiet_ || !call->launched)) || wedged_; });
  lane.busy = false;
  lane.call = nullptr;
  return call->done ? absl::OkStatus() : status_;
}

void NcclGroup::Fail(const absl::Status& why) {
  const std::lock_guard<std::mutex> lock(mu_);
  FailLocked(why);
}

void NcclGroup::FailLocked(const absl::Status& why) {
  if (!status_.ok()) return;
  status_ = why;
  if (origin_why_.empty()) {
    origin_ = options_.rank;
    origin_why_ = std::string(why.message());
  }
  std::thread([self = shared_from_this()] { self->Undertake(); }).detach();
  star_->Wake();
  changed_.notify_all();
}

void NcclGroup::Close() {
  const std::lock_guard<std::mutex> lock(mu_);
  closing_ = true;
  star_->Wake();
}

absl::Status NcclGroup::status() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return status_;
}

void NcclGroup::Undertake() {
  const auto end = Clock::now() + grace_;
  std::unique_lock<std::mutex> lock(mu_);
  const auto left = [&] { return pump_left_; };
  if (!changed_.wait_until(lock, std::min(end, Clock::now() + kNewsDelay), left)) {
    star_->Shutdown();
  }
  if (!changed_.wait_until(lock, end, left)) {
    lock.unlock();
    return Wedge("a function of NCCL or CUDA");
  }
  for (Lane& lane : lanes_) aborting_ += lane.comm != nullptr ? 1 : 0;
  for (Lane& lane : lanes_) {
    if (lane.comm == nullptr) continue;
    std::thread([self = shared_from_this(), comm = lane.comm] {
      self->api_.set_device(self->options_.device);
      // What it returns changes nothing: the communicator is gone either way.
      self->api_.abort(comm);
      const std::lock_guard<std::mutex> done(self->mu_);
      --self->aborting_;
      self->changed_.notify_all();
    }).detach();
  }
  if (!changed_.wait_until(lock, end, [&] { return aborting_ == 0; })) {
    lock.unlock();
    return Wedge("ncclCommAbort");
  }
  quiet_ = true;
  changed_.notify_all();
  lock.unlock();
  api_.set_device(options_.device);
  FreeCuda();
}

void NcclGroup::Wedge(const std::string& what) {
  std::string reason;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    wedged_ = true;
    changed_.notify_all();
    reason =
        absl::StrCat(what, " has not returned within ", absl::FormatDuration(options_.abort_grace),
                     " at rank ", options_.rank, ", after: ", status_.message(),
                     "; only the end of the process frees device ", options_.device);
  }
  if (options_.on_wedged) options_.on_wedged(reason);
}

// Failures to free are of no interest: the device has no more use for this group.
void NcclGroup::FreeCuda() {
  for (Lane& lane : lanes_) {
    if (lane.event != nullptr) api_.event_destroy(lane.event);
    if (lane.stream != nullptr) api_.stream_destroy(lane.stream);
  }
}

}  // namespace tundra::internal
