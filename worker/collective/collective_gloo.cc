// Gloo's TCP transport under the rules of Collective.
//
// Of Gloo this uses the transport (devices, pairs, unbound buffers), not its
// collectives: those wait on buffers that nobody else can reach, so that another
// thread could not wake them, and they count the timeout anew for every piece. The
// collectives here are a few lines each, wait against one deadline, and keep every
// buffer where Die() finds it.
//
// - Messages meet by a 64-bit slot, and one whose size does not fit the receiver
//   would end the process. So a slot is a hash of the group, the call's number,
//   kind, size and root: calls that differ never meet, and end at their deadline.
// - A listening pair accepts whoever comes. So Connect ends with a barrier on each
//   channel; its slots hash the addresses of all ranks, so that a stranger, or a
//   rank of an older epoch, never completes it.
// - A send is lost without a word when the peer's request for it and the peer's end come
//   together: Gloo's thread takes it off its list, fails to write it, and nobody wakes who
//   waits for it. So waits are woken now and then (Pulse), and one that still has nothing asks
//   the connections that it waits for whether they live (Probe).
// - Closing a pair wakes the peer, not the waits of this process on their buffers.
//   Those are aborted one by one; an abort lasts for one wait, so the group's
//   status is looked at before each.
#include "worker/collective/collective_gloo.h"

#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "worker/collective/collective_internal.h"
#include "worker/collective/gloo_mesh.h"

namespace tundra {
namespace {

using gloo::transport::UnboundBuffer;
using internal::CollectiveKind;
using internal::GlooMesh;
using SteadyClock = std::chrono::steady_clock;

// Sums and maxima up to this many bytes go to everybody at once: one message's
// latency instead of 2 (size − 1).
constexpr size_t kSmallReduceBytes = 32 << 10;

constexpr std::chrono::milliseconds kPulse{500};

// How long a wait for a peer that has closed goes on: what came from it, or went to it, is
// through then, or never will be.
constexpr std::chrono::milliseconds kGraceForClosed{1000};

// Mixes value into seed (splitmix64's finaliser).
uint64_t Mix(uint64_t seed, uint64_t value) {
  uint64_t x = (seed + 0x9E3779B97F4A7C15u) ^ (value * 0xD1342543DE82EF95u);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t HashOf(const std::vector<std::string>& addresses) {
  uint64_t hash = addresses.size();
  for (const std::string& address : addresses) {
    hash = Mix(hash, address.size());
    for (const char c : address) hash = Mix(hash, static_cast<unsigned char>(c));
  }
  return hash;
}

// Elements [begin, end) of `total`: part p of `parts`.
struct Range {
  size_t begin = 0;
  size_t end = 0;
};
Range Part(size_t total, int p, int parts) {
  const auto n = static_cast<size_t>(parts);
  const auto i = static_cast<size_t>(p);
  const size_t base = total / n, rest = total % n;
  const size_t begin = i * base + std::min(i, rest);
  return {begin, begin + base + (i < rest ? 1 : 0)};
}

// Thrown and caught in this file: the group has ended; the deadline has passed.
struct GroupEnded {};
struct DeadlinePassed {};

// What the calls and Die() share: whether the group lives, and the buffers that
// somebody may be waiting on. Thread-safe.
class Life {
 public:
  absl::Status status() const {
    const std::lock_guard<std::mutex> lock(mu_);
    return status_;
  }
  void Check() const {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!status_.ok()) throw GroupEnded{};
  }
  void Add(UnboundBuffer* buffer) {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!status_.ok()) throw GroupEnded{};
    active_.insert(buffer);
  }
  void Remove(UnboundBuffer* buffer) {
    const std::lock_guard<std::mutex> lock(mu_);
    active_.erase(buffer);
  }
  // Waits that nothing has come for return, and look around.
  void Wake() {
    const std::lock_guard<std::mutex> lock(mu_);
    for (UnboundBuffer* buffer : active_) {
      buffer->abortWaitRecv();
      buffer->abortWaitSend();
    }
  }
  // False when the group had ended already. Wakes all waits.
  bool End(const absl::Status& why) {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!status_.ok()) return false;
    status_ = why;
    for (UnboundBuffer* buffer : active_) {
      buffer->abortWaitRecv();
      buffer->abortWaitSend();
    }
    return true;
  }

 private:
  mutable std::mutex mu_;
  absl::Status status_;
  std::set<UnboundBuffer*> active_;
};

// Wakes the waits of a group now and then, from a thread of its own.
class Pulse {
 public:
  explicit Pulse(Life& life)
      : thread_([this, &life] {
          std::unique_lock<std::mutex> lock(mu_);
          while (!stop_changed_.wait_for(lock, kPulse, [this] { return stop_; })) life.Wake();
        }) {}
  ~Pulse() {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      stop_ = true;
    }
    stop_changed_.notify_all();
    thread_.join();
  }
  Pulse(const Pulse&) = delete;
  Pulse& operator=(const Pulse&) = delete;

 private:
  std::mutex mu_;
  std::condition_variable stop_changed_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses the others
};

// One call: its deadline, its slots, and its messages in flight. Once it is
// destroyed, Gloo touches no memory of the caller.
class Call {
 public:
  Call(Life& life, gloo::transport::Context& context, uint64_t slot, size_t chunk_bytes,
       SteadyClock::time_point deadline)
      : life_(life), context_(context), slot_(slot), chunk_(chunk_bytes), deadline_(deadline) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() {
    for (const auto& buffer : buffers_) {
      for (const auto& [peer, part] : buffer->peers) life_.Remove(part.gloo.get());
    }
  }

  // What passes between a buffer and one peer. Of its own, since Gloo doesn't tell which
  // peer's message is through.
  struct Part {
    std::unique_ptr<UnboundBuffer> gloo;
    size_t sends = 0;  // started and not yet waited for
    size_t receives = 0;
  };
  struct Buffer {
    void* data = nullptr;
    size_t bytes = 0;
    std::map<int, Part> peers;
  };

  // Memory to send from, and to receive into unless it is const.
  Buffer& Use(const void* data, size_t bytes) {
    buffers_.push_back(std::make_unique<Buffer>(Buffer{const_cast<void*>(data), bytes, {}}));
    return *buffers_.back();
  }

  // Memory of this call's own. It outlives the messages even when the call fails,
  // which the body's locals don't.
  std::span<std::byte> Scratch(size_t bytes) { return scratch_.emplace_back(bytes); }

  // Start to send/receive bytes [begin, end) of the buffer, in chunks. `message`
  // tells apart what one call sends from one rank to another; equal at both.
  void Send(Buffer& from, int to, uint64_t message, size_t begin, size_t end) {
    Part& part = PartOf(from, to);
    ForChunks(message, begin, end, [&](uint64_t slot, size_t at, size_t bytes) {
      part.gloo->send(to, slot, at, bytes);
      part.sends++;
    });
  }
  void Receive(Buffer& into, int from, uint64_t message, size_t begin, size_t end) {
    Part& part = PartOf(into, from);
    ForChunks(message, begin, end, [&](uint64_t slot, size_t at, size_t bytes) {
      part.gloo->recv(from, slot, at, bytes);
      part.receives++;
    });
  }

  // Waits for everything started on the buffer.
  void Wait(Buffer& buffer) {
    for (auto& [peer, part] : buffer.peers) {
      UnboundBuffer& gloo = *part.gloo;
      WaitFor(peer, part.receives, [&](auto timeout) { return gloo.waitRecv(nullptr, timeout); });
    }
    for (auto& [peer, part] : buffer.peers) {
      UnboundBuffer& gloo = *part.gloo;
      WaitFor(peer, part.sends, [&](auto timeout) { return gloo.waitSend(nullptr, timeout); });
    }
  }

 private:
  Part& PartOf(Buffer& buffer, int peer) {
    Part& part = buffer.peers[peer];
    if (part.gloo == nullptr) {
      part.gloo = context_.createUnboundBuffer(buffer.data, buffer.bytes);
      life_.Add(part.gloo.get());
    }
    return part;
  }

  // wait(timeout) takes one message that is through; false when it was woken instead.
  template <typename WaitFn>
  void WaitFor(int peer, size_t& pending, WaitFn wait) {
    while (pending > 0) {
      life_.Check();
      if (const auto closed = closed_.find(peer);
          closed != closed_.end() && SteadyClock::now() >= closed->second + kGraceForClosed) {
        throw std::runtime_error(absl::StrCat("rank ", peer, " closed its connection"));
      }
      if (wait(Left())) {
        --pending;
      } else {
        Probe(peer);
      }
    }
  }

  // Notes it when the connection to `peer` has closed: then Gloo refuses to receive from it.
  // Otherwise this leaves a receive behind that is never matched.
  void Probe(int peer) {
    if (probe_ == nullptr) probe_ = context_.createUnboundBuffer(&probed_, sizeof(probed_));
    try {
      probe_->recv(peer, Mix(slot_, UINT64_MAX), 0, sizeof(probed_));
    } catch (const std::exception&) {
      closed_.emplace(peer, SteadyClock::now());
    }
  }

  template <typename Fn>
  void ForChunks(uint64_t message, size_t begin, size_t end, Fn fn) {
    const uint64_t slot = Mix(slot_, message);
    uint64_t number = 0;
    for (size_t at = begin; at < end; at += chunk_) {
      fn(Mix(slot, number++), at, std::min(chunk_, end - at));
    }
  }

  std::chrono::milliseconds Left() const {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - SteadyClock::now());
    if (left.count() <= 0) throw DeadlinePassed{};
    return left;
  }

  Life& life_;
  gloo::transport::Context& context_;
  const uint64_t slot_;
  const size_t chunk_;
  const SteadyClock::time_point deadline_;
  // Peers whose connection is known to have closed, and since when.
  std::map<int, SteadyClock::time_point> closed_;
  std::byte probed_{};
  std::unique_ptr<UnboundBuffer> probe_;
  std::vector<std::vector<std::byte>> scratch_;  // before buffers_: dies after them
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

class GlooCollective : public Collective {
 public:
  GlooCollective(const GlooOptions& options, std::unique_ptr<GlooMesh> mesh, uint64_t group_hash)
      : rank_(options.rank),
        size_(options.size),
        chunk_bytes_(options.chunk_bytes),
        group_hash_(group_hash),
        mesh_(std::move(mesh)),
        pulse_(size_ > 1 ? std::make_unique<Pulse>(life_) : nullptr) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

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
                         const CallOptions& options) override;
  absl::Status Broadcast(std::span<std::byte> bytes, int root, const CallOptions& options) override;
  absl::Status Barrier(const CallOptions& options) override;

  void Abort(std::string_view reason) override {
    Die(absl::AbortedError(
        absl::StrCat("aborted: ", absl::string_view(reason.data(), reason.size()))));
  }
  absl::Status status() const override { return life_.status(); }
  CollectiveStats stats() const override { return stats_.Get(); }

 private:
  struct Lane {
    std::atomic<bool> busy{false};
    uint64_t calls = 0;  // of whoever holds busy
  };

  void Die(const absl::Status& why) {
    if (life_.End(why)) mesh_->Close();
  }

  // Runs body under all the rules: one call a lane, group's status, deadline,
  // exceptions, counters. bytes is this rank's payload; body is not run when there
  // are no peers.
  absl::Status Run(CollectiveKind kind, size_t bytes, int root, const CallOptions& options,
                   const std::function<void(Call&)>& body);
  absl::Status RunOnLane(CollectiveKind kind, size_t bytes, int root, const CallOptions& options,
                         const std::function<void(Call&)>& body);

  absl::Status Reduce(CollectiveKind kind, std::span<std::byte> data, const CallOptions& options);
  void ReduceSmall(Call& call, CollectiveKind kind, std::span<std::byte> data) const;
  void ReduceRing(Call& call, CollectiveKind kind, std::span<std::byte> data) const;

  template <typename Fn>
  void ForPeers(Fn fn) const {
    // Starting after itself, so that not all ranks send to rank 0 first.
    for (int i = 1; i < size_; ++i) fn((rank_ + i) % size_);
  }

  const int rank_;
  const int size_;
  const size_t chunk_bytes_;
  const uint64_t group_hash_;
  const std::unique_ptr<GlooMesh> mesh_;
  internal::StatsCounter stats_;
  Life life_;
  Lane lanes_[kChannels];
  const std::unique_ptr<Pulse> pulse_;
};

absl::Status GlooCollective::Run(CollectiveKind kind, size_t bytes, int root,
                                 const CallOptions& options,
                                 const std::function<void(Call&)>& body) {
  RETURN_IF_ERROR(internal::CheckCallOptions(options));
  const auto start = SteadyClock::now();
  Lane& lane = lanes_[static_cast<int>(options.channel)];
  absl::Status status;
  if (lane.busy.exchange(true)) {
    Die(absl::FailedPreconditionError(absl::StrCat(
        internal::KindName(kind), ": another thread is in a call on the same channel")));
    status = life_.status();
  } else {
    status = RunOnLane(kind, bytes, root, options, body);
    lane.busy = false;
  }
  stats_.Add(kind, bytes, size_, absl::FromChrono(SteadyClock::now() - start), status.ok());
  return status;
}

absl::Status GlooCollective::RunOnLane(CollectiveKind kind, size_t bytes, int root,
                                       const CallOptions& options,
                                       const std::function<void(Call&)>& body) {
  RETURN_IF_ERROR(life_.status());
  Lane& lane = lanes_[static_cast<int>(options.channel)];
  const uint64_t number = lane.calls++;
  if (size_ == 1) return absl::OkStatus();
  // A year stands for any longer timeout, so that no sum overflows.
  const auto deadline =
      SteadyClock::now() + absl::ToChronoNanoseconds(std::min(options.timeout, absl::Hours(8760)));
  uint64_t slot = group_hash_;
  for (const uint64_t part : {number, static_cast<uint64_t>(kind), static_cast<uint64_t>(bytes),
                              static_cast<uint64_t>(root)}) {
    slot = Mix(slot, part);
  }
  const auto describe = [&](std::string_view what) {
    return absl::StrCat(internal::KindName(kind), " at rank ", rank_, " of ", size_, ": ",
                        absl::string_view(what.data(), what.size()));
  };
  const auto too_late = [&] {
    return absl::DeadlineExceededError(describe(std::string("the peers did not finish within ") +
                                                absl::FormatDuration(options.timeout)));
  };
  Call call(life_, mesh_->channel(static_cast<int>(options.channel)), slot, chunk_bytes_, deadline);
  try {
    body(call);
    return absl::OkStatus();
  } catch (const GroupEnded&) {
  } catch (const DeadlinePassed&) {
    Die(too_late());
  } catch (const std::exception& e) {
    Die(SteadyClock::now() >= deadline ? too_late() : absl::UnavailableError(describe(e.what())));
  }
  // Even when another thread has ended the group and is still closing it: once a
  // pair is closed, Gloo's thread has let go of the caller's memory.
  mesh_->Close();
  return life_.status();
}

absl::Status GlooCollective::AllGather(std::span<const std::byte> mine, std::span<std::byte> all,
                                       const CallOptions& options) {
  RETURN_IF_ERROR(internal::CheckGatherSizes(mine.size(), all.size(), size_));
  const size_t n = mine.size();
  std::byte* own = all.data() + n * static_cast<size_t>(rank_);
  RETURN_IF_ERROR(Run(CollectiveKind::kGather, n, 0, options, [&](Call& call) {
    Call::Buffer& into = call.Use(all.data(), all.size());
    Call::Buffer& from = call.Use(mine.data(), n);
    ForPeers([&](int peer) {
      const size_t begin = n * static_cast<size_t>(peer);
      call.Receive(into, peer, 0, begin, begin + n);
    });
    ForPeers([&](int peer) { call.Send(from, peer, 0, 0, n); });
    call.Wait(into);
    call.Wait(from);
  }));
  if (n > 0 && own != mine.data()) std::memmove(own, mine.data(), n);
  return absl::OkStatus();
}

absl::Status GlooCollective::Broadcast(std::span<std::byte> bytes, int root,
                                       const CallOptions& options) {
  RETURN_IF_ERROR(internal::CheckRoot(root, size_));
  return Run(CollectiveKind::kBroadcast, bytes.size(), root, options, [&](Call& call) {
    Call::Buffer& buffer = call.Use(bytes.data(), bytes.size());
    if (rank_ == root) {
      ForPeers([&](int peer) { call.Send(buffer, peer, 0, 0, bytes.size()); });
    } else {
      call.Receive(buffer, root, 0, 0, bytes.size());
    }
    call.Wait(buffer);
  });
}

absl::Status GlooCollective::Barrier(const CallOptions& options) {
  return Run(CollectiveKind::kBarrier, 0, 0, options, [&](Call& call) {
    const std::span<std::byte> tokens = call.Scratch(static_cast<size_t>(size_) + 1);
    Call::Buffer& buffer = call.Use(tokens.data(), tokens.size());
    ForPeers([&](int peer) {
      const auto at = static_cast<size_t>(peer);
      call.Receive(buffer, peer, 0, at, at + 1);
    });
    const auto own = static_cast<size_t>(size_);
    ForPeers([&](int peer) { call.Send(buffer, peer, 0, own, own + 1); });
    call.Wait(buffer);
  });
}

absl::Status GlooCollective::Reduce(CollectiveKind kind, std::span<std::byte> data,
                                    const CallOptions& options) {
  RETURN_IF_ERROR(Run(kind, data.size(), 0, options, [&](Call& call) {
    if (data.size() <= kSmallReduceBytes) {
      ReduceSmall(call, kind, data);
    } else {
      ReduceRing(call, kind, data);
    }
  }));
  // A lone rank's NaN becomes the same NaN as everyone's.
  if (size_ == 1 && kind != CollectiveKind::kSum) {
    internal::Combine(kind, data.data(), data.data(), data.size() / internal::ElementBytes(kind));
  }
  return absl::OkStatus();
}

// Everyone sends all it has to everyone, and adds up alone.
void GlooCollective::ReduceSmall(Call& call, CollectiveKind kind, std::span<std::byte> data) const {
  const size_t n = data.size();
  const std::span<std::byte> theirs = call.Scratch(n * static_cast<size_t>(size_));
  Call::Buffer& into = call.Use(theirs.data(), theirs.size());
  Call::Buffer& from = call.Use(data.data(), n);
  ForPeers([&](int peer) {
    const size_t begin = n * static_cast<size_t>(peer);
    call.Receive(into, peer, 0, begin, begin + n);
  });
  ForPeers([&](int peer) { call.Send(from, peer, 0, 0, n); });
  call.Wait(into);
  call.Wait(from);
  ForPeers([&](int peer) {
    internal::Combine(kind, data.data(), theirs.data() + n * static_cast<size_t>(peer),
                      n / internal::ElementBytes(kind));
  });
}

// The ring: size − 1 rounds in which each rank passes on one part of the data and
// combines the one it gets, after which it has one whole part; then size − 1 rounds
// in which whole parts go round. Each rank sends 2 (size − 1) / size of the data.
void GlooCollective::ReduceRing(Call& call, CollectiveKind kind, std::span<std::byte> data) const {
  const size_t element = internal::ElementBytes(kind);
  const size_t count = data.size() / element;
  const int next = (rank_ + 1) % size_;
  const int previous = (rank_ + size_ - 1) % size_;
  const auto part = [&](int index) { return Part(count, (index % size_ + size_) % size_, size_); };
  // Part 0 is a largest.
  const std::span<std::byte> scratch = call.Scratch(Part(count, 0, size_).end * element);
  Call::Buffer& all = call.Use(data.data(), data.size());
  Call::Buffer& theirs = call.Use(scratch.data(), scratch.size());
  for (int round = 0; round + 1 < size_; ++round) {
    const Range out = part(rank_ - round), in = part(rank_ - round - 1);
    const size_t n = in.end - in.begin;
    const auto message = static_cast<uint64_t>(round);
    call.Receive(theirs, previous, message, 0, n * element);
    call.Send(all, next, message, out.begin * element, out.end * element);
    call.Wait(theirs);
    internal::Combine(kind, data.data() + in.begin * element, scratch.data(), n);
    call.Wait(all);
  }
  for (int round = 0; round + 1 < size_; ++round) {
    const Range out = part(rank_ + 1 - round), in = part(rank_ - round);
    const auto message = static_cast<uint64_t>(size_ + round);
    call.Receive(all, previous, message, in.begin * element, in.end * element);
    call.Send(all, next, message, out.begin * element, out.end * element);
    call.Wait(all);
  }
}

class GlooBootstrap : public CollectiveBootstrap {
 public:
  GlooBootstrap(const GlooOptions& options, std::unique_ptr<GlooMesh> mesh)
      : options_(options), mesh_(std::move(mesh)) {
    address_ = mesh_->address();
  }

  std::string local_address() const override { return address_; }

  absl::StatusOr<std::unique_ptr<Collective>> Connect(const std::vector<std::string>& addresses,
                                                      absl::Duration timeout) override {
    if (mesh_ == nullptr) return absl::FailedPreconditionError("gloo: Connect called twice");
    if (timeout <= absl::ZeroDuration()) {
      return absl::InvalidArgumentError("gloo: Connect needs a timeout above 0");
    }
    const auto start = SteadyClock::now();
    std::unique_ptr<GlooMesh> mesh = std::move(mesh_);
    timeout = std::min(timeout, absl::Hours(8760));
    RETURN_IF_ERROR(mesh->Connect(addresses, timeout));
    auto group = std::make_unique<GlooCollective>(options_, std::move(mesh), HashOf(addresses));
    for (const Channel channel : {Channel::kCompute, Channel::kGather}) {
      const absl::Duration left = timeout - absl::FromChrono(SteadyClock::now() - start);
      RETURN_IF_ERROR(Annotate(
          group->Barrier({.timeout = std::max(left, absl::Milliseconds(1)), .channel = channel}),
          "gloo: connecting"));
    }
    return group;
  }

 private:
  const GlooOptions options_;
  std::unique_ptr<GlooMesh> mesh_;
  std::string address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CollectiveBootstrap>> NewGlooBootstrap(const GlooOptions& options) {
  ASSIGN_OR_RETURN(auto mesh, GlooMesh::Listen(options));
  return std::unique_ptr<CollectiveBootstrap>(new GlooBootstrap(options, std::move(mesh)));
}

}  // namespace tundra
