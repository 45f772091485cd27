// Collective operations over the ranks of a group: what the engine needs from
// Gloo, NCCL or threads of one process, and no more.
//
// A group is made in two phases, the same for every backend. Each rank makes a
// CollectiveBootstrap and hands its local_address() to the coordinator, which
// gives every rank the addresses of all; then all call Connect. (Gloo: where
// each pair listens. NCCL: rank 0's unique ids and where it listens, nothing from
// the others.)
//
// Rules, kept by every backend and checked by one suite
// (collective_contract_test.cc):
// - All ranks make the same calls, with the same sizes, in the same order on
//   each channel. Ranks that disagree get an error, never mixed-up bytes.
// - Channels are independent: a call on kGather may run beside one on kCompute,
//   from another thread. On one channel, one call at a time.
// - Nothing throws and nothing blocks for longer than its timeout.
// - The first failure on a rank is final: that rank's connections are closed, so
//   that its peers fail too, and every later call returns the same status at
//   once. A group is never repaired; the next epoch makes a new one.
// - On failure the contents of output buffers are unspecified, and nothing
//   touches the buffers once the call has returned.
//
// Codes: kAborted (Abort was called here), kDeadlineExceeded (timeout here),
// kUnavailable (a peer died, aborted or timed out), kFailedPrecondition (ranks or
// threads disagree about the calls: a bug of the caller; a backend that can't see
// the peers' calls reports it as kDeadlineExceeded), kInvalidArgument (sizes or
// root out of range; nothing is sent then, and the group lives on).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tundra {

// Independent lanes of one group.
enum class Channel : int {
  kCompute = 0,  // headers, gradients, barriers: the thread that leads the step
  kGather = 1,   // the base's weights: the thread that runs ahead
};
inline constexpr int kChannels = 2;

// Where the bytes of a backend's spans lie.
enum class MemorySpace { kHost, kDevice };

// What a call may be told. The defaults suit the step's thread on a CPU.
struct CallOptions {
  absl::Duration timeout = absl::Seconds(60);  // > 0, on the monotonic clock
  Channel channel = Channel::kCompute;
  // Device backends (memory_space() == kDevice) take device pointers in their
  // spans, start after the work queued on this stream (a cudaStream_t), and
  // return once the result is there. Host backends ignore it.
  void* stream = nullptr;
  // The spans of this call lie on the host even where memory_space() is kDevice:
  // for headers, maxima and other small data (at most 64 MiB of results) that needs
  // no way through the device. Nothing waits for `stream` then. Equal on all ranks.
  // Host backends ignore it.
  bool on_host = false;
};

// Counters since the group was connected; for metrics.
struct CollectiveStats {
  int64_t bytes_reduced = 0;    // payload of sums and maxima, once each: 8 × elements for int64
  int64_t bytes_gathered = 0;   // received from other ranks: (size - 1) × own bytes
  int64_t bytes_broadcast = 0;  // payload, at every rank
  int64_t calls = 0;            // finished, failures included
  double reduce_seconds = 0;    // inside sums and maxima
  double gather_seconds = 0;    // inside gathers
  double other_seconds = 0;     // inside broadcasts and barriers
};

// Thread-safe within the rules above; Abort, status and stats at any time from
// any thread. The destructor closes the group and waits for no peer; no call may
// be running.
class Collective {
 public:
  virtual ~Collective() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual MemorySpace memory_space() const { return MemorySpace::kHost; }

  // values[i] := Σ over ranks of values[i], modulo 2^64 in two's complement, so
  // exact and free of order.
  virtual absl::Status AllReduceSum(std::span<int64_t> values, const CallOptions& options = {}) = 0;

  // values[i] := the largest over ranks. A NaN of any rank wins (as a quiet NaN),
  // so that one poisoned gradient is seen by all; +0 is larger than -0.
  virtual absl::Status AllReduceMax(std::span<float> values, const CallOptions& options = {}) = 0;
  virtual absl::Status AllReduceMax(std::span<double> values, const CallOptions& options = {}) = 0;

  // all := rank 0's bytes, rank 1's, …; all.size() == size() × mine.size(). mine
  // may be this rank's own slot in all, and must not overlap all otherwise.
  virtual absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all,
                                 const CallOptions& options = {}) = 0;

  // bytes := those of rank root, 0 <= root < size().
  virtual absl::Status Broadcast(std::span<std::byte> bytes, int root,
                                 const CallOptions& options = {}) = 0;

  // Returns when every rank has called it.
  virtual absl::Status Barrier(const CallOptions& options = {}) = 0;

  // Ends the group: every running and later call on this rank returns kAborted
  // with the reason, on every channel; peers get kUnavailable. Idempotent, from
  // any thread; the first reason stays. Does not wait for the calls to return.
  virtual void Abort(std::string_view reason) = 0;

  // OK while the group lives; else its first failure.
  virtual absl::Status status() const = 0;

  virtual CollectiveStats stats() const = 0;
};

// One rank's half-made group. Used by one thread.
class CollectiveBootstrap {
 public:
  virtual ~CollectiveBootstrap() = default;

  // Bytes for all other ranks, opaque to whoever carries them. At most 1 MiB.
  virtual std::string local_address() const = 0;

  // addresses[r] is rank r's local_address(). Blocks until this rank has a
  // connection to every other on every channel. May be called once.
  // Errors: kInvalidArgument for addresses that are malformed, of another
  // backend, or of another number of ranks; kDeadlineExceeded, kUnavailable.
  virtual absl::StatusOr<std::unique_ptr<Collective>> Connect(
      const std::vector<std::string>& addresses, absl::Duration timeout) = 0;
};

}  // namespace tundra
