// Who holds which device, while one schedule is made: the pools of devices that
// may form a group together, what is free in them, and what is kept for whom.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/scheduler/schedule.h"

namespace tundra::coordinator {

// (worker, device).
using DeviceKey = std::pair<WorkerId, int32_t>;
// Only devices of one pool form a group: (numerics class, build).
using PoolKey = std::pair<std::string, std::string>;

struct PoolDevice {
  DeviceKey key;
  std::string incarnation;
  int64_t memory_bytes = 0;
  // The idle group it is in; empty for none.
  GroupId idle_group;
};

class DeviceTable {
 public:
  explicit DeviceTable(const Snapshot& snapshot);

  // Devices of workers that are connected, not draining, and hold the base, by
  // pool, busy ones too. Only pools of numerics_class unless that is empty.
  std::map<PoolKey, std::vector<PoolDevice>> Eligible(const BaseHash& base,
                                                      const std::string& numerics_class) const;

  // Nobody holds it; it may be in an idle group.
  bool IsFree(const DeviceKey& key) const { return !taken_.contains(key); }
  // Kept for an earlier job.
  bool IsReserved(const DeviceKey& key) const { return reserved_.contains(key); }
  void Take(const DeviceKey& key) { taken_.insert(key); }
  void Reserve(const DeviceKey& key) { reserved_.insert(key); }

  const WorkerView* Worker(const WorkerId& id) const;
  // Null when the worker has no such device.
  const DeviceView* Device(const DeviceKey& key) const;

 private:
  std::map<WorkerId, const WorkerView*> workers_;
  std::map<DeviceKey, GroupId> idle_;
  std::set<DeviceKey> taken_;
  std::set<DeviceKey> reserved_;
};

// Picks `count` of `from`: from as few workers as possible, devices of no group
// before those of idle groups. In rank order.
std::vector<PoolDevice> PickDevices(std::vector<PoolDevice> from, size_t count);

// How many slices for `devices` devices: `wanted`, or for 0 the smallest divisor
// whose slice of base_bytes fits into memory_bytes (the smallest device; 0 when
// unknown) with a quarter left for work; all devices when none fits.
int32_t ChooseShards(int32_t wanted, int32_t devices, int64_t base_bytes, int64_t memory_bytes);

// Rank order for `shards` slices, ranks [k · shards, (k + 1) · shards) being replica k: as many
// replicas as can be lie within a worker, so that the base's slices, the bulk of what ranks send
// each other, stay inside a machine and only gradients go between machines.
// Members of one worker come one after another in `members`.
std::vector<GroupMemberRecord> OrderForShards(const std::vector<GroupMemberRecord>& members,
                                              int32_t shards);

}  // namespace tundra::coordinator
