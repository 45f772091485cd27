// The collective of CUDA ranks: NCCL for what lies on the device, and a star of TCP
// connections between the ranks' hosts (rank 0 in its middle) for everything else.
//
// The star is there because NCCL alone can't keep the rules of Collective: over
// NVLink a rank does not notice that a peer has died, ranks that disagree about
// sizes hang or mix up bytes, and two communicators whose work is launched in
// different orders may block each other. So each call first meets on the star.
// When all ranks have come and agree, rank 0 says go, in one order for all
// communicators, and only then anything is launched: no kernel ever waits for a
// rank that has not come. What lies on the host (headers, maxima) travels with
// these messages and never touches the device.
//
// What fails: nccl_group.h.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/collective/collective.h"
#include "worker/collective/nccl_api.h"

namespace tundra {

struct NcclOptions {
  const NcclApi* api = nullptr;  // outlives the process's last collective
  int rank = 0;                  // 0 <= rank < size
  int size = 1;
  int device = 0;  // CUDA's number of this rank's device; no two ranks share one
  // The channels with calls on device memory. Each has a communicator, which takes device memory
  // of its own; on the others such calls are kInvalidArgument, but for maxima, which go through
  // the hosts. Equal on all ranks.
  std::array<bool, kChannels> device_channels = {true, true};
  // Where rank 0 listens for the others: a host name or address. The connections
  // are neither encrypted nor, beyond a secret in rank 0's address, authenticated,
  // hence loopback.
  std::string hostname = "127.0.0.1";
  // How long a failed group may take to let go of the device. Calls that fail
  // return after that at the latest, even if NCCL or the driver is stuck.
  absl::Duration abort_grace = absl::Seconds(10);
  // Called once, from a thread of its own and even after the collective's
  // destruction, when NCCL or CUDA did not return within abort_grace after a
  // failure. Nothing frees such a device but the end of the process, so that is
  // what a rank process does here; its supervisor starts another. Until it ends,
  // the device may still write to the buffers of the failed call.
  std::function<void(const std::string& reason)> on_wedged;
};

// Rank 0 makes the communicators' ids and listens; its address carries both. The
// others' addresses are empty.
//
// The collective's memory_space() is kDevice: spans are device pointers, or host
// pointers with CallOptions::on_host. AllReduceMax, and every call on the host,
// takes at most kNcclMaxHostBytes (kInvalidArgument).
// Errors: kInvalidArgument; kUnavailable when NCCL gives no id or the address can't
// be listened on.
absl::StatusOr<std::unique_ptr<CollectiveBootstrap>> NewNcclBootstrap(const NcclOptions& options);

// Largest result of a call whose data goes through the hosts.
inline constexpr size_t kNcclMaxHostBytes = size_t{64} << 20;

}  // namespace tundra
