// Threads of one process as ranks. A call is a meeting: each rank leaves pointers
// to its buffers, and the last to arrive computes the result for all, under the
// group's mutex, while the others wait inside their calls (so that the pointers
// live). A rank that fails marks every other rank failed too, as closed
// connections would.
#include "worker/collective/collective_local.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/collective/collective_internal.h"

namespace tundra {
namespace {

using internal::CollectiveKind;

// What one rank brings to a meeting.
struct Arrival {
  bool here = false;
  CollectiveKind kind = CollectiveKind::kBarrier;
  int root = 0;
  std::byte* buffer = nullptr;      // result; for all but gathers the input as well
  const std::byte* mine = nullptr;  // gathers only
  size_t bytes = 0;                 // of this rank's payload
};

struct Meeting {
  int64_t number = 0;  // meetings finished on this channel
  int arrived = 0;
  std::vector<Arrival> ranks;
};

std::string AddressOf(const void* group, int rank) {
  return absl::StrCat("local:", reinterpret_cast<uintptr_t>(group), ":", rank);
}

}  // namespace

struct LocalGroup::Shared {
  explicit Shared(int group_size)
      : size(group_size),
        taken(static_cast<size_t>(group_size), false),
        status(static_cast<size_t>(group_size)),
        calls(static_cast<size_t>(group_size), 0) {
    for (Meeting& meeting : channels) meeting.ranks.resize(static_cast<size_t>(group_size));
  }

  // Ends `rank` with `why`, and every other rank with kUnavailable.
  void Fail(int rank, const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    if (!status[static_cast<size_t>(rank)].ok()) return;
    status[static_cast<size_t>(rank)] = why;
    for (absl::Status& other : status) {
      if (other.ok()) {
        other =
            absl::UnavailableError(absl::StrCat("rank ", rank, " left the group: ", why.message()));
      }
    }
    changed.SignalAll();
  }

  const int size;
  absl::Mutex mu;
  absl::CondVar changed;
  std::vector<bool> taken ABSL_GUARDED_BY(mu);
  int connected ABSL_GUARDED_BY(mu) = 0;
  std::vector<absl::Status> status ABSL_GUARDED_BY(mu);
  std::vector<int64_t> calls ABSL_GUARDED_BY(mu);
  std::map<std::pair<int, int64_t>, LocalFault> faults ABSL_GUARDED_BY(mu);
  Meeting channels[kChannels] ABSL_GUARDED_BY(mu);
};

namespace {

using Shared = LocalGroup::Shared;

// Does the call that all ranks have arrived for.
void Perform(Meeting& meeting) {
  std::vector<Arrival>& ranks = meeting.ranks;
  const CollectiveKind kind = ranks[0].kind;
  const size_t bytes = ranks[0].bytes;
  switch (kind) {
    case CollectiveKind::kSum:
    case CollectiveKind::kMaxFloat:
    case CollectiveKind::kMaxDouble: {
      const size_t count = bytes / internal::ElementBytes(kind);
      // Combining rank 0 with itself first would change a sum, so only a lone
      // rank's maximum does it, to make its NaN the same as everyone's.
      if (ranks.size() == 1 && kind != CollectiveKind::kSum) {
        internal::Combine(kind, ranks[0].buffer, ranks[0].buffer, count);
      }
      for (size_t r = 1; r < ranks.size(); ++r) {
        internal::Combine(kind, ranks[0].buffer, ranks[r].buffer, count);
      }
      for (size_t r = 1; r < ranks.size() && bytes > 0; ++r) {
        std::memcpy(ranks[r].buffer, ranks[0].buffer, bytes);
      }
      return;
    }
    case CollectiveKind::kGather:
      for (Arrival& to : ranks) {
        for (size_t from = 0; from < ranks.size() && bytes > 0; ++from) {
          std::memmove(to.buffer + from * bytes, ranks[from].mine, bytes);
        }
      }
      return;
    case CollectiveKind::kBroadcast: {
      const auto root = static_cast<size_t>(ranks[0].root);
      for (size_t r = 0; r < ranks.size() && bytes > 0; ++r) {
        if (r != root) std::memcpy(ranks[r].buffer, ranks[root].buffer, bytes);
      }
      return;
    }
    case CollectiveKind::kBarrier:
      return;
  }
}

bool SameCall(const Arrival& a, const Arrival& b) {
  return a.kind == b.kind && a.root == b.root && a.bytes == b.bytes;
}

class LocalCollective : public Collective {
 public:
  LocalCollective(std::shared_ptr<Shared> shared, int rank)
      : shared_(std::move(shared)), rank_(rank) {}

  ~LocalCollective() override {
    absl::MutexLock lock(&shared_->mu);
    shared_->Fail(rank_, absl::UnavailableError("the collective was closed"));
  }

  int rank() const override { return rank_; }
  int size() const override { return shared_->size; }

  absl::Status AllReduceSum(std::span<int64_t> values, const CallOptions& options) override {
    return Reduce(CollectiveKind::kSum, std::as_writable_bytes(values), options);
  }
  absl::Status AllReduceMax(std::span<float> values, const CallOptions& options) override {
    return Reduce(CollectiveKind::kMaxFloat, std::as_writable_bytes(values), options);
  }
  absl::Status AllReduceMax(std::span<double> values, const CallOptions& options) override {
    return Reduce(CollectiveKind::kMaxDouble, std::as_writable_bytes(values), options);
  }

  absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all,
                         const CallOptions& options) override {
    RETURN_IF_ERROR(internal::CheckGatherSizes(mine.size(), all.size(), size()));
    return Call({.kind = CollectiveKind::kGather,
                 .buffer = all.data(),
                 .mine = mine.data(),
                 .bytes = mine.size()},
                options);
  }

  absl::Status Broadcast(std::span<std::byte> bytes, int root,
                         const CallOptions& options) override {
    RETURN_IF_ERROR(internal::CheckRoot(root, size()));
    return Call({.kind = CollectiveKind::kBroadcast,
                 .root = root,
                 .buffer = bytes.data(),
                 .bytes = bytes.size()},
                options);
  }

  absl::Status Barrier(const CallOptions& options) override {
    return Call({.kind = CollectiveKind::kBarrier}, options);
  }

  void Abort(std::string_view reason) override {
    absl::MutexLock lock(&shared_->mu);
    shared_->Fail(rank_, absl::AbortedError(absl::StrCat(
                             "aborted: ", absl::string_view(reason.data(), reason.size()))));
  }

  absl::Status status() const override {
    absl::MutexLock lock(&shared_->mu);
    return shared_->status[static_cast<size_t>(rank_)];
  }

  CollectiveStats stats() const override { return stats_.Get(); }

 private:
  absl::Status Reduce(CollectiveKind kind, std::span<std::byte> bytes, const CallOptions& options) {
    return Call({.kind = kind, .buffer = bytes.data(), .bytes = bytes.size()}, options);
  }

  absl::Status Call(Arrival arrival, const CallOptions& options) {
    RETURN_IF_ERROR(internal::CheckCallOptions(options));
    arrival.here = true;
    const auto start = std::chrono::steady_clock::now();
    const absl::Status status = Meet(arrival, options);
    stats_.Add(arrival.kind, arrival.bytes, size(),
               absl::FromChrono(std::chrono::steady_clock::now() - start), status.ok());
    return status;
  }

  // True when the call never gets to its peers.
  bool Strike(const absl::Status& mine) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shared_->mu) {
    const auto fault = shared_->faults.find({rank_, shared_->calls[static_cast<size_t>(rank_)]++});
    if (fault == shared_->faults.end() || !mine.ok()) return false;
    switch (fault->second) {
      case LocalFault::kHang:
        break;
      case LocalFault::kAbort:
        shared_->Fail(rank_, absl::AbortedError("aborted: fault injected by the test"));
        break;
      case LocalFault::kDie:
        shared_->Fail(rank_, absl::UnavailableError("killed: fault injected by the test"));
        break;
    }
    return true;
  }

  absl::Status Meet(const Arrival& arrival, const CallOptions& options) {
    absl::MutexLock lock(&shared_->mu);
    absl::Status& mine = shared_->status[static_cast<size_t>(rank_)];
    Meeting& meeting = shared_->channels[static_cast<int>(options.channel)];
    const bool hangs = Strike(mine);
    if (!mine.ok()) return mine;
    const int64_t number = meeting.number;
    if (!hangs) Arrive(arrival, meeting);
    // Abseil waits on the wall clock. A jump of it can't hurt tests, which is what
    // this backend is for.
    const absl::Time deadline = absl::Now() + options.timeout;
    while (mine.ok() && (hangs || meeting.number == number)) {
      if (shared_->changed.WaitWithDeadline(&shared_->mu, deadline) && mine.ok() &&
          (hangs || meeting.number == number)) {
        shared_->Fail(rank_, absl::DeadlineExceededError(absl::StrCat(
                                 internal::KindName(arrival.kind), ": rank ", rank_, " waited ",
                                 absl::FormatDuration(options.timeout), " for its peers")));
      }
    }
    // A meeting that was held stays held, even if the group has ended since.
    if (!hangs && meeting.number != number) return absl::OkStatus();
    // The pointers die with this call.
    meeting.ranks[static_cast<size_t>(rank_)] = Arrival{};
    return mine;
  }

  void Arrive(const Arrival& arrival, Meeting& meeting) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shared_->mu) {
    Arrival& place = meeting.ranks[static_cast<size_t>(rank_)];
    if (place.here) {
      shared_->Fail(rank_, absl::FailedPreconditionError(
                               "two threads of one rank call the same channel at once"));
      return;
    }
    for (size_t r = 0; r < meeting.ranks.size(); ++r) {
      if (meeting.ranks[r].here && !SameCall(meeting.ranks[r], arrival)) {
        shared_->Fail(
            rank_, absl::FailedPreconditionError(absl::StrCat(
                       "ranks disagree: rank ", rank_, " calls ", internal::KindName(arrival.kind),
                       " of ", arrival.bytes, " bytes, rank ", r, " ",
                       internal::KindName(meeting.ranks[r].kind), " of ", meeting.ranks[r].bytes)));
        return;
      }
    }
    place = arrival;
    if (++meeting.arrived < shared_->size) return;
    Perform(meeting);
    std::fill(meeting.ranks.begin(), meeting.ranks.end(), Arrival{});
    meeting.arrived = 0;
    meeting.number++;
    shared_->changed.SignalAll();
  }

  const std::shared_ptr<Shared> shared_;
  const int rank_;
  internal::StatsCounter stats_;
};

class LocalBootstrap : public CollectiveBootstrap {
 public:
  LocalBootstrap(std::shared_ptr<Shared> shared, int rank)
      : shared_(std::move(shared)), rank_(rank) {}

  std::string local_address() const override { return AddressOf(shared_.get(), rank_); }

  absl::StatusOr<std::unique_ptr<Collective>> Connect(const std::vector<std::string>& addresses,
                                                      absl::Duration timeout) override {
    if (addresses.size() != static_cast<size_t>(shared_->size)) {
      return absl::InvalidArgumentError(
          absl::StrCat("connect: ", addresses.size(), " addresses for ", shared_->size, " ranks"));
    }
    for (int r = 0; r < shared_->size; ++r) {
      if (addresses[static_cast<size_t>(r)] != AddressOf(shared_.get(), r)) {
        return absl::InvalidArgumentError(
            absl::StrCat("connect: not the address of rank ", r, " of this group"));
      }
    }
    absl::MutexLock lock(&shared_->mu);
    if (connected_) return absl::FailedPreconditionError("connect: called twice");
    connected_ = true;
    shared_->connected++;
    shared_->changed.SignalAll();
    const absl::Time deadline = absl::Now() + timeout;
    absl::Status& mine = shared_->status[static_cast<size_t>(rank_)];
    while (mine.ok() && shared_->connected < shared_->size) {
      if (shared_->changed.WaitWithDeadline(&shared_->mu, deadline) &&
          shared_->connected < shared_->size) {
        shared_->Fail(rank_, absl::DeadlineExceededError(absl::StrCat(
                                 "connect: ", shared_->connected, " of ", shared_->size,
                                 " ranks came within ", absl::FormatDuration(timeout))));
      }
    }
    if (!mine.ok()) return mine;
    return std::unique_ptr<Collective>(new LocalCollective(shared_, rank_));
  }

 private:
  const std::shared_ptr<Shared> shared_;
  const int rank_;
  bool connected_ = false;
};

}  // namespace

LocalGroup::LocalGroup(int size) {
  TUNDRA_CHECK(size >= 1) << "a group of " << size << " ranks";
  shared_ = std::make_shared<Shared>(size);
}

LocalGroup::~LocalGroup() = default;

absl::StatusOr<std::unique_ptr<CollectiveBootstrap>> LocalGroup::Bootstrap(int rank) {
  absl::MutexLock lock(&shared_->mu);
  if (rank < 0 || rank >= shared_->size || shared_->taken[static_cast<size_t>(rank)]) {
    return absl::InvalidArgumentError(
        absl::StrCat("bootstrap: rank ", rank, " is taken or not one of ", shared_->size));
  }
  shared_->taken[static_cast<size_t>(rank)] = true;
  return std::unique_ptr<CollectiveBootstrap>(new LocalBootstrap(shared_, rank));
}

void LocalGroup::Inject(int rank, int64_t call, LocalFault fault) {
  absl::MutexLock lock(&shared_->mu);
  shared_->faults[{rank, call}] = fault;
}

}  // namespace tundra
