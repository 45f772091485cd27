#include "coordinator/scheduler/queue.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace tundra::coordinator {
namespace {

// What a job could use of one pool.
struct Offer {
  PoolKey pool;
  // Every device that could ever serve, and those that could serve now: of no
  // group, and of idle groups.
  std::vector<PoolDevice> all;
  std::vector<PoolDevice> loose;
  std::map<GroupId, std::vector<PoolDevice>> idle;
  size_t free = 0;
  size_t reserved = 0;
};

std::string Devices(int64_t n) { return n == 1 ? "1 device" : absl::StrCat(n, " devices"); }

class Queue {
 public:
  Queue(const Snapshot& snapshot, const std::set<GroupId>& gone, DeviceTable& devices,
        std::vector<Decision>& decisions)
      : snapshot_(snapshot), gone_(gone), devices_(devices), decisions_(decisions) {
    for (const auto& [tenant, most] : snapshot.device_quotas) left_[tenant] = most;
    for (const JobView& job : snapshot.jobs) {
      if (job.group.empty()) continue;
      for (const GroupView& group : snapshot.groups) {
        if (group.record.id == job.group) Charge(job, group.record.members.size());
      }
    }
    // Who waits for its tenant's quota takes nothing from anybody's fair part.
    for (const JobView& job : snapshot.jobs) {
      waiting_ += IsQueued(job) && Least(job) <= Allowed(job) ? 1 : 0;
    }
  }

  void Run() {
    int32_t position = 0;
    for (const JobView& job : snapshot_.jobs) {
      if (!IsQueued(job)) continue;
      if (Least(job) > Allowed(job)) {
        WaitForQuota(job, ++position);
      } else if (TakeWarmGroup(job) || FormGroup(job)) {
        --waiting_;
      } else {
        Wait(job, ++position);
      }
    }
  }

 private:
  static bool IsQueued(const JobView& job) {
    return job.state == v1::QUEUED && job.desired == v1::RUN;
  }

  static int32_t Multiple(const JobView& job) { return std::max(1, job.shards); }
  // The smallest group that serves: its bound, rounded up to whole slices.
  static int32_t Least(const JobView& job) {
    return (job.min_devices + Multiple(job) - 1) / Multiple(job) * Multiple(job);
  }

  // How many devices the job's tenant may have more.
  int32_t Allowed(const JobView& job) const {
    const auto left = left_.find(job.tenant);
    return left == left_.end() ? INT32_MAX : std::max(0, left->second);
  }
  void Charge(const JobView& job, size_t devices) {
    const auto left = left_.find(job.tenant);
    if (left != left_.end()) left->second -= static_cast<int32_t>(devices);
  }

  bool Usable(const PoolDevice& device) const {
    return devices_.IsFree(device.key) && !devices_.IsReserved(device.key) &&
           !gone_.contains(device.idle_group) && !dissolved_.contains(device.idle_group);
  }

  std::vector<Offer> OffersFor(const JobView& job) const {
    std::vector<Offer> offers;
    for (auto& [pool, all] : devices_.Eligible(job.base, job.numerics_class)) {
      Offer& offer = offers.emplace_back();
      offer.pool = pool;
      for (const PoolDevice& device : all) {
        if (devices_.IsFree(device.key)) {
          ++offer.free;
          if (devices_.IsReserved(device.key)) ++offer.reserved;
        }
        if (!Usable(device)) continue;
        if (device.idle_group.empty()) {
          offer.loose.push_back(device);
        } else {
          offer.idle[device.idle_group].push_back(device);
        }
      }
      offer.all = std::move(all);
    }
    return offers;
  }

  bool TakeWarmGroup(const JobView& job) {
    const GroupView* best = nullptr;
    for (const GroupView& group : snapshot_.groups) {
      const GroupRecord& record = group.record;
      const auto size = static_cast<int32_t>(record.members.size());
      if (!record.job.empty() || record.base != job.base || record.precision != job.precision ||
          (!job.numerics_class.empty() && record.numerics_class != job.numerics_class) ||
          size < job.min_devices || size > job.max_devices || size > Allowed(job) ||
          (job.shards > 0 && record.shards != job.shards) || !MembersUsable(record)) {
        continue;
      }
      if (best == nullptr || record.members.size() > best->record.members.size()) best = &group;
    }
    if (best == nullptr) return false;
    for (const GroupMemberRecord& m : best->record.members) devices_.Take({m.worker, m.device});
    Charge(job, best->record.members.size());
    decisions_.push_back(StartJob{job.id, best->record.id, {}});
    return true;
  }

  bool MembersUsable(const GroupRecord& group) const {
    if (gone_.contains(group.id) || dissolved_.contains(group.id)) return false;
    return std::all_of(group.members.begin(), group.members.end(), [&](const auto& m) {
      const WorkerView* const worker = devices_.Worker(m.worker);
      return worker != nullptr && worker->connected && !worker->lost && !worker->draining &&
             devices_.IsFree({m.worker, m.device}) && !devices_.IsReserved({m.worker, m.device});
    });
  }

  // The usable devices of a pool: those of no group, and, while these are too
  // few, whole idle groups, of other bases first, small ones first.
  std::vector<PoolDevice> Gather(const JobView& job, const Offer& offer) const {
    std::vector<PoolDevice> usable = offer.loose;
    std::vector<std::pair<bool, const std::vector<PoolDevice>*>> idle;
    for (const auto& [id, devices] : offer.idle) {
      bool same_base = false;
      for (const GroupView& group : snapshot_.groups) {
        if (group.record.id == id) same_base = group.record.base == job.base;
      }
      idle.emplace_back(same_base, &devices);
    }
    std::stable_sort(idle.begin(), idle.end(), [](const auto& a, const auto& b) {
      return std::make_pair(a.first, a.second->size()) < std::make_pair(b.first, b.second->size());
    });
    for (const auto& [same_base, devices] : idle) {
      if (usable.size() >= static_cast<size_t>(Least(job))) break;
      usable.insert(usable.end(), devices->begin(), devices->end());
    }
    return usable;
  }

  // As many as the job may have, but a fair part when others wait too.
  int32_t SizeFor(const JobView& job, size_t usable) const {
    const auto all = static_cast<int32_t>(usable);
    const int32_t fair = std::max(1, all / std::max(1, waiting_));
    const int32_t size = std::min(
        {std::clamp(fair, Least(job), std::max(Least(job), job.max_devices)), all, Allowed(job)});
    return size / Multiple(job) * Multiple(job);
  }

  bool FormGroup(const JobView& job) {
    std::vector<PoolDevice> best;
    PoolKey best_pool;
    int32_t best_size = 0;
    for (const Offer& offer : OffersFor(job)) {
      std::vector<PoolDevice> usable = Gather(job, offer);
      const int32_t size = SizeFor(job, usable.size());
      if (size < Least(job) || size > job.max_devices || size <= best_size) continue;
      best = std::move(usable);
      best_pool = offer.pool;
      best_size = size;
    }
    if (best_size == 0) return false;
    Charge(job, static_cast<size_t>(best_size));
    StartJob start{.job = job.id, .warm_group = {}, .plan = {}};
    start.plan.base = job.base;
    start.plan.precision = job.precision;
    start.plan.numerics_class = best_pool.first;
    start.plan.build = best_pool.second;
    int64_t memory = INT64_MAX;
    for (const PoolDevice& device : PickDevices(best, static_cast<size_t>(best_size))) {
      start.plan.members.push_back({device.key.first, device.key.second, device.incarnation});
      memory = std::min(memory, device.memory_bytes);
      devices_.Take(device.key);
      if (!device.idle_group.empty() && dissolved_.insert(device.idle_group).second) {
        decisions_.push_back(DissolveGroup{device.idle_group, "its devices serve another job"});
      }
    }
    const auto base = snapshot_.bases.find(job.base);
    start.plan.shards = ChooseShards(
        job.shards, best_size, base == snapshot_.bases.end() ? 0 : base->second.size_bytes, memory);
    start.plan.members = OrderForShards(start.plan.members, start.plan.shards);
    decisions_.push_back(std::move(start));
    return true;
  }

  void WaitForQuota(const JobView& job, int32_t position) {
    const int32_t most = snapshot_.device_quotas.at(job.tenant);
    WaitJob wait{.job = job.id, .waiting = {}};
    wait.waiting.set_position(position);
    wait.waiting.set_reason(absl::StrCat("needs ", Devices(Least(job)), ", and tenant ",
                                         job.tenant.value, " holds ", most - left_.at(job.tenant),
                                         " of the ", most, " that it may"));
    decisions_.push_back(std::move(wait));
  }

  void Wait(const JobView& job, int32_t position) {
    WaitJob wait{.job = job.id, .waiting = {}};
    wait.waiting.set_position(position);
    const std::vector<Offer> offers = OffersFor(job);
    size_t most = 0, free = 0, reserved = 0;
    for (const Offer& offer : offers) {
      if (offer.all.size() < static_cast<size_t>(Least(job))) {
        most = std::max(most, offer.all.size());
        continue;
      }
      most = std::max(most, offer.all.size());
      free = std::max(free, offer.free);
      reserved = std::max(reserved, offer.reserved);
      for (const PoolDevice& device : offer.all) devices_.Reserve(device.key);
    }
    wait.waiting.set_reason(Reason(job, most, free, reserved));
    const std::optional<absl::Duration> estimate = Estimate(job, offers);
    if (estimate.has_value()) {
      wait.waiting.mutable_estimate()->set_seconds(absl::ToInt64Seconds(*estimate));
    }
    decisions_.push_back(std::move(wait));
  }

  std::string Reason(const JobView& job, size_t most, size_t free, size_t reserved) const {
    const auto base = snapshot_.bases.find(job.base);
    const std::string name =
        base == snapshot_.bases.end() ? job.base.value : base->second.display_name;
    const auto least = static_cast<size_t>(Least(job));
    if (most == 0) {
      if (!job.numerics_class.empty() && !devices_.Eligible(job.base, "").empty()) {
        return absl::StrCat("no free worker has devices of numerics class ", job.numerics_class,
                            ", which its first start fixed");
      }
      return absl::StrCat("no connected worker holds base ", name);
    }
    const std::string needs = absl::StrCat("needs ", Devices(Least(job)));
    if (most < least) {
      return absl::StrCat(needs, " of one kind, and the workers that hold base ", name, " have ",
                          most);
    }
    if (free >= least && reserved > 0) {
      return absl::StrCat(needs, ", for which an earlier job waits");
    }
    return absl::StrCat(needs, ", ", free, free == 1 ? " is free" : " are free");
  }

  // When enough devices of a pool are free, if the jobs on them end as expected.
  // Only for who is first in line for them.
  std::optional<absl::Duration> Estimate(const JobView& job,
                                         const std::vector<Offer>& offers) const {
    std::optional<absl::Duration> best;
    for (const Offer& offer : offers) {
      if (offer.all.size() < static_cast<size_t>(Least(job)) || offer.reserved > 0) continue;
      std::vector<std::pair<absl::Duration, size_t>> ends;
      for (const JobView& other : snapshot_.jobs) {
        if (other.group.empty() || !other.time_left.has_value()) continue;
        size_t held = 0;
        for (const GroupView& group : snapshot_.groups) {
          if (group.record.id != other.group) continue;
          for (const GroupMemberRecord& m : group.record.members) {
            held += std::any_of(offer.all.begin(), offer.all.end(), [&](const PoolDevice& d) {
              return d.key == DeviceKey{m.worker, m.device};
            });
          }
        }
        if (held > 0) ends.emplace_back(*other.time_left, held);
      }
      std::sort(ends.begin(), ends.end());
      size_t free = offer.free;
      for (const auto& [end, held] : ends) {
        free += held;
        if (free < static_cast<size_t>(Least(job))) continue;
        if (!best.has_value() || end < *best) best = end;
        break;
      }
    }
    return best;
  }

  const Snapshot& snapshot_;
  const std::set<GroupId>& gone_;
  DeviceTable& devices_;
  std::vector<Decision>& decisions_;
  std::set<GroupId> dissolved_;
  // Devices that a tenant with a quota may have more.
  std::map<TenantId, int32_t> left_;
  int32_t waiting_ = 0;
};

}  // namespace

void PlaceQueue(const Snapshot& snapshot, const std::set<GroupId>& gone, DeviceTable& devices,
                std::vector<Decision>& decisions) {
  Queue(snapshot, gone, devices, decisions).Run();
}

}  // namespace tundra::coordinator
