#include "worker/collective/collective_nccl.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "worker/collective/collective_internal.h"
#include "worker/collective/nccl_group.h"
#include "worker/collective/nccl_star.h"

namespace tundra {
namespace {

using internal::CollectiveKind;
using internal::NcclCall;
using internal::NcclGroup;
using internal::NcclStar;
using SteadyClock = std::chrono::steady_clock;

class NcclCollective : public Collective {
 public:
  explicit NcclCollective(std::shared_ptr<NcclGroup> group) : group_(std::move(group)) {}
  ~NcclCollective() override { group_->Close(); }

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  MemorySpace memory_space() const override { return MemorySpace::kDevice; }

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
    return Run({.kind = CollectiveKind::kGather,
                .data = all.data(),
                .mine = mine.data(),
                .bytes = mine.size()},
               all.size(), options);
  }

  absl::Status Broadcast(std::span<std::byte> bytes, int root,
                         const CallOptions& options) override {
    RETURN_IF_ERROR(internal::CheckRoot(root, size()));
    return Run({.kind = CollectiveKind::kBroadcast,
                .root = root,
                .data = bytes.data(),
                .bytes = bytes.size()},
               bytes.size(), options);
  }

  absl::Status Barrier(const CallOptions& options) override {
    return Run({.kind = CollectiveKind::kBarrier}, 0, options);
  }

  void Abort(std::string_view reason) override {
    group_->Fail(absl::AbortedError(
        absl::StrCat("aborted: ", absl::string_view(reason.data(), reason.size()))));
  }

  absl::Status status() const override { return group_->status(); }
  CollectiveStats stats() const override { return stats_.Get(); }

 private:
  absl::Status Reduce(CollectiveKind kind, std::span<std::byte> data, const CallOptions& options) {
    return Run({.kind = kind, .data = data.data(), .bytes = data.size()}, data.size(), options);
  }

  absl::Status Run(NcclCall call, size_t result_bytes, const CallOptions& options) {
    RETURN_IF_ERROR(internal::CheckCallOptions(options));
    call.on_host = options.on_host && call.kind != CollectiveKind::kBarrier;
    call.stream = options.stream;
    const bool by_star = call.on_host || call.kind == CollectiveKind::kBarrier ||
                         call.kind == CollectiveKind::kMaxFloat ||
                         call.kind == CollectiveKind::kMaxDouble;
    if (by_star && result_bytes > kNcclMaxHostBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(internal::KindName(call.kind), ": ", result_bytes,
                       " bytes through the hosts, of at most ", kNcclMaxHostBytes,
                       "; keep the data on the device, or send it in parts"));
    }
    if (!by_star && !group_->has_communicator(options.channel)) {
      return absl::InvalidArgumentError(absl::StrCat(
          internal::KindName(call.kind), ": channel ", static_cast<int>(options.channel),
          " of this group has no communicator for calls on the device"));
    }
    const auto start = SteadyClock::now();
    const CollectiveKind kind = call.kind;
    const size_t bytes = call.bytes;
    const absl::Status status =
        group_->Run(options.channel, std::make_shared<NcclCall>(std::move(call)), options.timeout);
    stats_.Add(kind, bytes, size(), absl::FromChrono(SteadyClock::now() - start), status.ok());
    return status;
  }

  const std::shared_ptr<NcclGroup> group_;
  internal::StatsCounter stats_;
};

class NcclBootstrap : public CollectiveBootstrap {
 public:
  NcclBootstrap(NcclOptions options, internal::NcclAddress address, Fd listener)
      : options_(std::move(options)),
        address_(std::move(address)),
        listener_(std::move(listener)) {}

  std::string local_address() const override { return options_.rank == 0 ? address_.Encode() : ""; }

  absl::StatusOr<std::unique_ptr<Collective>> Connect(const std::vector<std::string>& addresses,
                                                      absl::Duration timeout) override {
    if (std::exchange(connected_, true)) {
      return absl::FailedPreconditionError("nccl: Connect called twice");
    }
    if (timeout <= absl::ZeroDuration()) {
      return absl::InvalidArgumentError("nccl: Connect needs a timeout above 0");
    }
    timeout = std::min(timeout, absl::Hours(8760));
    const auto deadline = SteadyClock::now() + absl::ToChronoNanoseconds(timeout);
    RETURN_IF_ERROR(CheckAddresses(addresses));
    ASSIGN_OR_RETURN(auto star, Meet(deadline));
    auto group = NcclGroup::Start(options_, address_.ids, std::move(star));
    auto collective = std::make_unique<NcclCollective>(group);
    RETURN_IF_ERROR(group->WaitUntilReady(deadline, timeout));
    // Communicators come up rank by rank; after this they are there on all.
    const absl::Duration left = absl::FromChrono(deadline - SteadyClock::now());
    RETURN_IF_ERROR(Annotate(group->Run(Channel::kCompute, std::make_shared<NcclCall>(),
                                        std::max(left, absl::Milliseconds(1))),
                             "nccl: connecting"));
    return collective;
  }

 private:
  // Takes over rank 0's address.
  absl::Status CheckAddresses(const std::vector<std::string>& addresses) {
    if (addresses.size() != static_cast<size_t>(options_.size)) {
      return absl::InvalidArgumentError(absl::StrCat("nccl: connect: ", addresses.size(),
                                                     " addresses for ", options_.size, " ranks"));
    }
    for (size_t r = 1; r < addresses.size(); ++r) {
      if (!addresses[r].empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat("nccl: connect: rank ", r,
                         " has an address, as only rank 0 should; do all "
                         "ranks use the same collective?"));
      }
    }
    ASSIGN_OR_RETURN(auto address, internal::NcclAddress::Decode(
                                       addresses[0], internal::Communicators(options_)));
    if (address.size != options_.size) {
      return absl::InvalidArgumentError(absl::StrCat("nccl: connect: the address is of a group of ",
                                                     address.size, " ranks, not ", options_.size));
    }
    if (options_.rank == 0 && addresses[0] != address_.Encode()) {
      return absl::InvalidArgumentError("nccl: connect: the address of rank 0 is another's");
    }
    address_ = std::move(address);
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<NcclStar>> Meet(internal::NcclDeadline deadline) {
    if (options_.rank != 0) return NcclStar::Join(address_, options_.rank, deadline);
    return NcclStar::Accept(std::move(listener_), options_.size, address_.secret, deadline);
  }

  const NcclOptions options_;
  internal::NcclAddress address_;  // rank 0's; of the others once they connect
  Fd listener_;                    // rank 0's
  bool connected_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CollectiveBootstrap>> NewNcclBootstrap(const NcclOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("nccl: rank ", options.rank, " is not one of ", options.size));
  }
  if (options.api == nullptr || options.abort_grace <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("nccl: no library, or no time to abort, given");
  }
  internal::NcclAddress address;
  Fd listener;
  if (options.rank == 0) {
    address.size = options.size;
    // The system's randomness, not a generator of ours.
    std::random_device random;
    for (char& c : address.secret) c = static_cast<char>(random());
    for (size_t i = 0; i < internal::Communicators(options); ++i) {
      NcclUniqueId& id = address.ids.emplace_back();
      const NcclResult result = options.api->get_unique_id(&id);
      if (result != NcclResult::kSuccess) {
        return absl::UnavailableError(
            absl::StrCat("nccl: ncclGetUniqueId: ", options.api->error_string(result), ": ",
                         options.api->last_error(nullptr),
                         "; NCCL needs a network interface: set NCCL_SOCKET_IFNAME to one, or to "
                         "lo for one host"));
      }
    }
    ASSIGN_OR_RETURN(listener,
                     internal::ListenOn(options.hostname, &address.host, &address.port));
  }
  return std::unique_ptr<CollectiveBootstrap>(
      new NcclBootstrap(options, std::move(address), std::move(listener)));
}

}  // namespace tundra
