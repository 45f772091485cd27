// One rank's part in an NCCL group: its communicators, and who may touch them when.
// For the NCCL collective only.
//
// Threads:
// - A caller leaves its call here and waits, on nothing but a condition variable,
//   until the call is done, the group has failed, or its deadline has passed. No
//   NCCL or CUDA function runs on it, so it is its own watchdog: it returns
//   whatever these functions do.
// - The pump alone drives the star and uses the communicators, streams and events.
//   It meets the other ranks, launches in the order that rank 0 gives, and polls
//   events and ncclCommGetAsyncError.
// - The first failure starts the undertaker. The pump lets go of the communicators,
//   then the undertaker aborts every one of them, each on a thread of its own: an
//   abort may wait for the device, hence for a kernel that only another
//   communicator's abort ends. ncclCommDestroy is never called on a group that failed.
//   Whatever does not return within the grace period makes the group wedged.
// - A rank that is closed tells the others, and all finalize and destroy what they
//   have. A call in flight is not touched by it: the one who left had finished it.
//
// The threads keep the group alive and end by themselves; nobody joins them, since
// nobody could if NCCL is stuck.
//
// The way of a call (Stage), in the pump:
//
//   kPosted ─► kDraining ─► kArrived ─► kQueued ─► kEnqueuing ─► kRunning ─► kFlushing ─► done
//        the caller's    all ranks    for the     NCCL takes   the event   rank 0: its
//        stream is done    come        launch      the work     is past    words are out
//
// Calls on the host go from kPosted to kArrived and from there to kFlushing, maxima
// on the device through a copy on the host: from kArrived to kRunning.
#pragma once

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/collective/collective_internal.h"
#include "worker/collective/collective_nccl.h"
#include "worker/collective/nccl_star.h"

namespace tundra::internal {

// How many communicators a group has: one for each channel with calls on the device.
inline size_t Communicators(const NcclOptions& options) {
  return static_cast<size_t>(
      std::count(options.device_channels.begin(), options.device_channels.end(), true));
}

struct NcclCall {
  // Given by the caller. For all but gathers `data` is both what the rank brings and
  // the result; bytes is each rank's payload.
  CollectiveKind kind = CollectiveKind::kBarrier;
  int root = 0;
  bool on_host = false;
  std::byte* data = nullptr;
  const std::byte* mine = nullptr;  // gathers only
  size_t bytes = 0;
  CudaStream stream = nullptr;  // the caller's

  // Of the pump.
  enum class Stage { kPosted, kDraining, kArrived, kQueued, kEnqueuing, kRunning, kFlushing };
  Stage stage = Stage::kPosted;
  std::vector<std::byte> staging = {};  // maxima of the device, on the host

  // Guarded by the group's mutex. `launched`: the device may be writing to data.
  bool launched = false;
  bool done = false;
};

class NcclGroup : public std::enable_shared_from_this<NcclGroup> {
 public:
  // Starts to make the communicators, one for each of ids, in the order of the channels.
  static std::shared_ptr<NcclGroup> Start(NcclOptions options, std::vector<NcclUniqueId> ids,
                                          std::unique_ptr<NcclStar> star);

  // Returns once the communicators are there. Past the deadline the group fails.
  absl::Status WaitUntilReady(NcclDeadline deadline, absl::Duration timeout);

  // Does the call. Once it has returned nothing touches the caller's memory, unless
  // the group is wedged.
  absl::Status Run(Channel channel, std::shared_ptr<NcclCall> call, absl::Duration timeout);

  // The first failure counts. Doesn't wait.
  void Fail(const absl::Status& why);

  // Ends the group as its owner goes. Doesn't wait.
  void Close();

  absl::Status status() const;
  int rank() const { return options_.rank; }
  int size() const { return options_.size; }
  bool has_communicator(Channel channel) const {
    return options_.device_channels[static_cast<size_t>(channel)];
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Stage = NcclCall::Stage;

  struct Lane {
    // Guarded by mu_.
    bool busy = false;
    std::shared_ptr<NcclCall> call;  // waits for the pump or is in it
    // Of the pump.
    NcclComm comm = nullptr;  // only of channels with calls on the device
    CudaStream stream = nullptr;
    CudaEvent event = nullptr;
    uint64_t calls = 0;  // that have arrived
    // At rank 0: who has come to the call that is next on this channel.
    std::vector<std::optional<StarMessage>> arrivals;
    int arrived = 0;
  };

  NcclGroup(NcclOptions options, std::unique_ptr<NcclStar> star);

  // --- the pump (nccl_pump.cc) ---
  void Pump(const std::vector<NcclUniqueId>& ids);
  absl::Status Open(const std::vector<NcclUniqueId>& ids);
  absl::Status OpenComm(Lane& lane, const NcclUniqueId& id);
  std::array<std::shared_ptr<NcclCall>, kChannels> TakeCalls();
  bool alive() const;
  void Step(int channel, NcclCall& call);
  void Drain(int channel, NcclCall& call);
  void Arrive(int channel, NcclCall& call);
  void Launch();
  void Watch(int channel, NcclCall& call);
  void Finish(int channel, NcclCall& call);
  void CheckComms();
  void ReadStar(std::chrono::nanoseconds wait);
  void Handle(StarMessage message);
  void HubArrive(int channel, StarMessage message);
  absl::Status HubGo(int channel);
  void Go(int channel, const std::vector<std::byte>& payload);
  void Leave();
  void Free();
  bool FinalizeAll();
  absl::Status Nccl(NcclResult result, const char* what, NcclComm comm) const;
  absl::Status Cuda(CudaResult result, const char* what) const;

  // --- life and death (nccl_group.cc) ---
  void FailLocked(const absl::Status& why);
  void Undertake();
  void Wedge(const std::string& what);
  void FreeCuda();

  const NcclOptions options_;
  const NcclApi& api_;
  const std::unique_ptr<NcclStar> star_;
  const std::chrono::nanoseconds grace_;

  // Of the pump, and of the undertaker once pump_left_.
  std::array<Lane, kChannels> lanes_;
  std::deque<int> launches_;                                 // channels, in rank 0's order
  std::array<std::shared_ptr<NcclCall>, kChannels> active_;  // taken from the lanes
  absl::Status leaving_;                                     // a peer has closed
  int64_t polls_ = 0;                                        // of the device, without progress

  mutable std::mutex mu_;
  std::condition_variable changed_;
  absl::Status status_;
  int origin_ = 0;          // the rank whose failure status_ is
  std::string origin_why_;  // in its own words
  bool ready_ = false;
  bool closing_ = false;
  bool pump_left_ = false;  // the pump touches no communicator and no caller's memory
  bool quiet_ = false;      // every communicator is aborted
  bool wedged_ = false;
  int aborting_ = 0;  // communicators
};

}  // namespace tundra::internal
