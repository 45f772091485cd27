#include "coordinator/scheduler/devices.h"

#include <algorithm>
#include <tuple>

namespace tundra::coordinator {

DeviceTable::DeviceTable(const Snapshot& snapshot) {
  for (const WorkerView& worker : snapshot.workers) workers_[worker.id] = &worker;
  for (const GroupView& group : snapshot.groups) {
    for (const GroupMemberRecord& member : group.record.members) {
      const DeviceKey key{member.worker, member.device};
      if (group.record.job.empty()) {
        idle_[key] = group.record.id;
      } else {
        taken_.insert(key);
      }
    }
  }
}

std::map<PoolKey, std::vector<PoolDevice>> DeviceTable::Eligible(
    const BaseHash& base, const std::string& numerics_class) const {
  std::map<PoolKey, std::vector<PoolDevice>> pools;
  for (const auto& [id, worker] : workers_) {
    if (!worker->connected || worker->lost || worker->draining) continue;
    if (!worker->bases.contains(base)) continue;
    for (const DeviceView& device : worker->devices) {
      if (!numerics_class.empty() && device.numerics_class != numerics_class) continue;
      const DeviceKey key{id, device.index};
      const auto idle = idle_.find(key);
      pools[{device.numerics_class, worker->build}].push_back(
          {.key = key,
           .incarnation = worker->incarnation,
           .memory_bytes = device.memory_bytes,
           .idle_group = idle == idle_.end() ? GroupId{} : idle->second});
    }
  }
  return pools;
}

const WorkerView* DeviceTable::Worker(const WorkerId& id) const {
  const auto it = workers_.find(id);
  return it == workers_.end() ? nullptr : it->second;
}

const DeviceView* DeviceTable::Device(const DeviceKey& key) const {
  const WorkerView* const worker = Worker(key.first);
  if (worker == nullptr) return nullptr;
  for (const DeviceView& device : worker->devices) {
    if (device.index == key.second) return &device;
  }
  return nullptr;
}

std::vector<PoolDevice> PickDevices(std::vector<PoolDevice> from, size_t count) {
  std::map<WorkerId, size_t> per_worker;
  for (const PoolDevice& device : from) ++per_worker[device.key.first];
  // A worker that can give all alone comes first, the tightest fit of these; then
  // those that give most.
  const auto rank = [&](const PoolDevice& device) {
    const size_t gives = per_worker[device.key.first];
    const bool alone = gives >= count;
    return std::make_tuple(!alone, alone ? gives : SIZE_MAX - gives, device.key.first.value,
                           !device.idle_group.empty(), device.key.second);
  };
  std::sort(from.begin(), from.end(),
            [&](const PoolDevice& a, const PoolDevice& b) { return rank(a) < rank(b); });
  from.resize(std::min(count, from.size()));
  std::sort(from.begin(), from.end(),
            [](const PoolDevice& a, const PoolDevice& b) { return a.key < b.key; });
  return from;
}

std::vector<GroupMemberRecord> OrderForShards(const std::vector<GroupMemberRecord>& members,
                                              int32_t shards) {
  const auto whole = static_cast<std::ptrdiff_t>(std::max(1, shards));
  std::vector<GroupMemberRecord> ordered, left;
  for (auto begin = members.begin(); begin != members.end();) {
    const auto end = std::find_if(
        begin, members.end(), [&](const auto& member) { return member.worker != begin->worker; });
    const auto cut = begin + (end - begin) / whole * whole;
    ordered.insert(ordered.end(), begin, cut);
    left.insert(left.end(), cut, end);
    begin = end;
  }
  ordered.insert(ordered.end(), left.begin(), left.end());
  return ordered;
}

int32_t ChooseShards(int32_t wanted, int32_t devices, int64_t base_bytes, int64_t memory_bytes) {
  if (wanted > 0) return wanted;
  if (memory_bytes <= 0) return 1;
  for (int32_t shards = 1; shards <= devices; ++shards) {
    if (devices % shards == 0 && base_bytes / shards <= memory_bytes / 4 * 3) return shards;
  }
  return devices;
}

}  // namespace tundra::coordinator
