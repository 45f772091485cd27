// Where the bytes of a unit of the base come from, as a device can read them.
//
//   mapped    all shards lie in memory of this host. A CPU reads them there. A device with
//             memory of its own keeps the whole base if it is not sharded, else copies one
//             unit after the other.
//   network   this rank has one shard, and a unit is gathered from all ranks' shards: in
//             host memory, from which a device gets a copy, or, where the collective works
//             on device memory, from a shard that the device keeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/model/resident_shard.h"
#include "worker/model/shard_plan.h"

namespace tundra {

// all := the bytes of shard 0, of shard 1, …, `mine` being this rank's; a collective
// call that is bounded in time (worker/train/gather.h makes one of a Collective). It starts
// after the work of the stream, and the bytes are there when it returns.
using ShardGather = std::function<absl::Status(Stream* stream, std::span<const std::byte> mine,
                                               std::span<std::byte> all)>;

struct UnitBytesOptions {
  // Mapped: the memory of every shard, by shard. Network: this rank's, alone.
  std::vector<int> shard_fds;
  // Null for mapped.
  ShardGather gather;
  // Whether the gather takes device memory; it takes the host's otherwise.
  bool gather_on_device = false;
};

// Used by one thread.
class UnitBytes {
 public:
  // A unit's bytes; equal ones where a CPU computes.
  struct Unit {
    const std::byte* device = nullptr;
    const std::byte* host = nullptr;  // null where they never were there
  };

  // Copies what the device keeps. `ctx` is of the thread that will read.
  // Errors: kInvalidArgument when the memories don't fit the plan, kResourceExhausted,
  // kUnimplemented for an f16 base whose units never are in host memory, where they are widened.
  static absl::StatusOr<UnitBytes> Create(const ShardPlan& plan, Device* device, Ctx ctx,
                                          UnitBytesOptions options);

  // Valid until the next read into the same buffer, which grows to the largest unit where one
  // is needed. On the device they are there for work that is put on ctx.stream later.
  absl::StatusOr<Unit> Read(int unit, Ctx ctx, Buffer& buffer);

  bool network() const { return options_.gather != nullptr; }
  // Whether a unit is there without a copy or a gather.
  bool resident() const { return !network() && (direct_ || plan_->shards() == 1); }
  // Mapped sources only.
  const std::byte* HostAddress(int unit) const;

  // Bytes of the device that the kept base or shard takes.
  uint64_t device_bytes() const { return kept_.size(); }
  // Since creation: bytes received from other ranks, and the time that took.
  uint64_t gather_bytes() const { return gather_bytes_; }
  double gather_seconds() const { return gather_seconds_; }

 private:
  UnitBytes(const ShardPlan* plan, Device* device, UnitBytesOptions options);
  absl::Status Keep(Ctx ctx, std::span<const std::byte> bytes);
  absl::StatusOr<Unit> Gather(const tundra::Unit& unit, int index, Ctx ctx, Buffer& buffer);
  absl::Status Grow(Buffer& buffer) const;

  const ShardPlan* plan_;
  Device* device_;
  UnitBytesOptions options_;
  bool direct_ = false;  // the device computes in host memory
  MappedBase mapped_;    // mapped sources
  MappedShard own_;      // network sources
  Buffer kept_;          // on the device
  std::vector<std::byte> staging_;
  uint64_t gather_bytes_ = 0;
  double gather_seconds_ = 0;
};

}  // namespace tundra
