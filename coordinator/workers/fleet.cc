#include "coordinator/workers/fleet.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "coordinator/store/job_draft.h"

namespace tundra::coordinator {
namespace {

bool Holds(const v1::WorkerReport& report, const std::string& base_hash) {
  const std::string name = "bases/" + base_hash;
  return std::any_of(report.bases().begin(), report.bases().end(),
                     [&](const v1::BaseInfo& info) { return info.base().name() == name; });
}

// Prompts that one worker may have at once: its assignment is one message.
constexpr size_t kMostPromptBytes = size_t{2} << 20;
// Of an error that a rank reports.
constexpr size_t kMostErrorBytes = 1000;
// A worker that has been away for this long, and has no part in a group, is
// forgotten.
constexpr absl::Duration kMemory = absl::Hours(1);

// The start of a text, at most kMostErrorBytes, cut between characters.
std::string Clip(const std::string& text) {
  size_t end = std::min(text.size(), kMostErrorBytes);
  while (end > 0 && end < text.size() && (text[end] & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

// The part of a report that the scheduler decides on.
std::string Essence(const v1::WorkerReport& report) {
  v1::WorkerReport essence = report;
  essence.clear_jobs();
  std::string text = essence.SerializeAsString();
  for (const v1::JobReport& job : report.jobs()) {
    absl::StrAppend(&text, "|", job.job_id(), " ", job.attempt());
  }
  return text;
}

}  // namespace

Fleet::Fleet(Clock* clock, FleetOptions options)
    : clock_(clock), options_(options), start_(clock->Monotonic()) {}

bool Fleet::TakeReport(const std::shared_ptr<SessionLink>& link, const std::string& identity,
                       const v1::WorkerReport& report, std::vector<v1::JobAck> acks,
                       std::set<std::string> wanted_blobs) {
  std::shared_ptr<SessionLink> replaced;
  bool changed = false;
  {
    absl::MutexLock lock(&mu_);
    if (link->Ended()) return false;
    const WorkerId id{report.worker_id()};
    Worker& worker = workers_[id];
    // A late report of a session that a newer one has replaced.
    if (link->number() < worker.session) return false;
    worker.session = link->number();
    if (worker.link != link) {
      replaced = worker.link;
      worker.link = link;
      worker.sent.clear();
      changed = true;
      LogInfo("worker {} ({}) has a session: {} devices, {} bases", id.value, report.display_name(),
              report.devices_size(), report.bases_size());
    }
    worker.last_seen = clock_->Monotonic();
    std::string seen = Essence(report);
    changed |= seen != worker.seen;
    worker.seen = std::move(seen);
    worker.report = report;
    worker.identity = identity;
    worker.acks = std::move(acks);
    worker.wanted_blobs = std::move(wanted_blobs);
    // A new address may complete the rendezvous of a group on many workers.
    if (changed) {
      PushAll();
    } else {
      Push(id, worker);
    }
  }
  if (replaced != nullptr) {
    replaced->End(absl::AbortedError("a newer session of the same worker took over"));
  }
  return changed;
}

bool Fleet::Disconnect(const SessionLink* link) {
  absl::MutexLock lock(&mu_);
  for (auto& [id, worker] : workers_) {
    if (worker.link.get() != link) continue;
    LogInfo("worker {} ({}) is away", id.value, worker.report.display_name());
    worker.link = nullptr;
    worker.sent.clear();
    worker.last_seen = clock_->Monotonic();
    return true;
  }
  return false;
}

void Fleet::EndSessions() {
  std::vector<std::shared_ptr<SessionLink>> links;
  {
    absl::MutexLock lock(&mu_);
    for (auto& [id, worker] : workers_) {
      if (worker.link != nullptr) links.push_back(worker.link);
    }
  }
  for (const auto& link : links) link->End(absl::UnavailableError("the coordinator stops"));
}

void Fleet::SetDrained(std::set<WorkerId> drained) {
  absl::MutexLock lock(&mu_);
  drained_ = std::move(drained);
}

bool Fleet::IsDraining(const WorkerId& id, const Worker& worker) const {
  return worker.report.draining() || drained_.contains(id);
}

std::optional<std::string> Fleet::IdentityOf(const WorkerId& id) {
  absl::MutexLock lock(&mu_);
  const auto it = workers_.find(id);
  if (it == workers_.end() || it->second.session == 0) return std::nullopt;
  return it->second.identity;
}

void Fleet::SetPlan(std::vector<PlannedGroup> plan) {
  absl::MutexLock lock(&mu_);
  plan_ = std::move(plan);
  planned_ = true;
  const absl::Duration now = clock_->Monotonic();
  std::erase_if(workers_, [&](const auto& entry) {
    return entry.second.link == nullptr && now - entry.second.last_seen > kMemory;
  });
  // Members that have not reported since the start are given a lease from then on.
  for (const PlannedGroup& group : plan_) {
    for (const GroupMemberRecord& member : group.record.members) {
      const auto [it, inserted] = workers_.try_emplace(member.worker);
      if (inserted) it->second.last_seen = start_;
    }
  }
  PushAll();
}

void Fleet::BlobArrived(const std::string& sha256) {
  absl::MutexLock lock(&mu_);
  for (auto& [id, worker] : workers_) {
    if (worker.wanted_blobs.erase(sha256) > 0) Push(id, worker);
  }
}

absl::StatusOr<WorkerId> Fleet::AddGenerateTask(const v1::GenerateTask& task) {
  absl::MutexLock lock(&mu_);
  std::pair<const WorkerId, Worker>* best = nullptr;
  bool held = false;
  std::tuple<bool, bool, size_t> best_cost;
  for (auto& entry : workers_) {
    Worker& worker = entry.second;
    if (!IsAlive(worker) || IsDraining(entry.first, worker)) continue;
    if (!Holds(worker.report, task.base_hash())) continue;
    held = true;
    size_t bytes = task.prompt().size();
    for (const auto& [id, other] : worker.tasks) bytes += other.prompt().size();
    if (bytes > kMostPromptBytes) continue;
    const std::tuple<bool, bool, size_t> cost{!CanAnswer(entry.first, worker, task.base_hash()),
                                              Trains(entry.first), worker.tasks.size()};
    if (best != nullptr && best_cost <= cost) continue;
    best = &entry;
    best_cost = cost;
  }
  if (best == nullptr && held) {
    return absl::UnavailableError("the workers that hold the base have enough to do; try again");
  }
  if (best == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("no connected worker holds base bases/", task.base_hash()));
  }
  best->second.tasks[task.task_id()] = task;
  Push(best->first, best->second);
  return best->first;
}

void Fleet::RemoveGenerateTask(const std::string& task_id) {
  absl::MutexLock lock(&mu_);
  for (auto& [id, worker] : workers_) {
    if (worker.tasks.erase(task_id) > 0) Push(id, worker);
  }
}

std::vector<WorkerView> Fleet::Workers() {
  absl::MutexLock lock(&mu_);
  std::vector<WorkerView> views;
  const absl::Duration now = clock_->Monotonic();
  for (const auto& [id, worker] : workers_) {
    WorkerView& view = views.emplace_back();
    view.id = id;
    view.build = worker.report.build();
    view.incarnation = worker.report.incarnation();
    view.lost = now - worker.last_seen > options_.lease;
    view.connected = worker.link != nullptr && !view.lost;
    view.draining = IsDraining(id, worker);
    for (const auto& [task_id, task] : worker.tasks) {
      view.prompt_waits |= !CanAnswer(id, worker, task.base_hash());
    }
    for (const v1::DeviceInfo& device : worker.report.devices()) {
      view.devices.push_back({.index = device.index(),
                              .numerics_class = device.numerics_class(),
                              .memory_bytes = device.memory_bytes()});
    }
    for (const v1::BaseInfo& info : worker.report.bases()) {
      view.bases.insert(
          {info.base().name().substr(std::min<size_t>(6, info.base().name().size()))});
    }
  }
  return views;
}

const v1::GroupReport* Fleet::ReportOf(const GroupMemberRecord& member,
                                       const GroupRecord& record) const {
  const auto it = workers_.find(member.worker);
  if (it == workers_.end() || it->second.report.incarnation() != member.incarnation) return nullptr;
  for (const v1::GroupReport& report : it->second.report.groups()) {
    if (report.group_id() == record.id.value && report.epoch() == record.epoch) return &report;
  }
  return nullptr;
}

const v1::RankReport* Fleet::RankOf(const GroupRecord& record, size_t rank) const {
  const v1::GroupReport* const report = ReportOf(record.members[rank], record);
  if (report == nullptr) return nullptr;
  for (const v1::RankReport& r : report->ranks()) {
    if (r.rank() == static_cast<int32_t>(rank)) return &r;
  }
  return nullptr;
}

GroupView Fleet::View(const GroupRecord& record) {
  absl::MutexLock lock(&mu_);
  GroupView view;
  view.record = record;
  for (size_t rank = 0; rank < record.members.size(); ++rank) {
    const v1::RankReport* const report = RankOf(record, rank);
    if (report == nullptr || report->phase() != v1::LOST) continue;
    // A fault of the job's own tells more than those that follow from it.
    const bool tells = report->failure_code() != v1::FAILURE_CODE_UNSPECIFIED;
    if (!view.rank_lost || (tells && view.failure_code == v1::FAILURE_CODE_UNSPECIFIED)) {
      view.error = absl::StrCat("rank ", rank, report->error().empty() ? " ended" : ": ",
                                Clip(report->error()));
      view.failure_code = report->failure_code();
    }
    view.rank_lost = true;
  }
  return view;
}

bool Fleet::AttemptReported(const WorkerId& id, const JobId& job, int64_t attempt) {
  absl::MutexLock lock(&mu_);
  const auto it = workers_.find(id);
  if (it == workers_.end() || it->second.link == nullptr) return true;
  return std::any_of(it->second.report.jobs().begin(), it->second.report.jobs().end(),
                     [&](const v1::JobReport& report) {
                       return report.job_id() == job.value && report.attempt() == attempt;
                     });
}

bool Fleet::MayFetch(const WorkerId& id, const std::string& sha256) {
  absl::MutexLock lock(&mu_);
  const auto names = [&](const auto& files) {
    return std::any_of(files.begin(), files.end(),
                       [&](const v1::AdapterFile& file) { return file.sha256() == sha256; });
  };
  for (const PlannedGroup& group : plan_) {
    const bool member = std::any_of(group.record.members.begin(), group.record.members.end(),
                                    [&](const auto& m) { return m.worker == id; });
    if (!member || !group.job.has_value()) continue;
    const v1::JobAssignment& job = *group.job;
    if (job.train().sha256() == sha256 || job.validation().sha256() == sha256 ||
        job.resume().sha256() == sha256 || names(job.resume().adapter_files())) {
      return true;
    }
  }
  const auto it = workers_.find(id);
  if (it == workers_.end()) return false;
  for (const auto& [task_id, task] : it->second.tasks) {
    if (names(task.adapter_files())) return true;
  }
  return false;
}

int Fleet::CountHolders(const BaseHash& base) {
  absl::MutexLock lock(&mu_);
  int count = 0;
  for (const auto& [id, worker] : workers_) {
    count += IsAlive(worker) && Holds(worker.report, base.value) ? 1 : 0;
  }
  return count;
}

bool Fleet::IsConnected(const WorkerId& id) {
  absl::MutexLock lock(&mu_);
  const auto it = workers_.find(id);
  return it != workers_.end() && IsAlive(it->second);
}

std::map<std::string, int> Fleet::CountWorkers() {
  absl::MutexLock lock(&mu_);
  std::map<std::string, int> counts = {{"connected", 0}, {"draining", 0}, {"away", 0}};
  for (const auto& [id, worker] : workers_) {
    const char* const state = !IsAlive(worker)         ? "away"
                              : IsDraining(id, worker) ? "draining"
                                                       : "connected";
    ++counts[state];
  }
  return counts;
}

v1::GroupAssignment Fleet::Assignment(const PlannedGroup& group) const {
  const GroupRecord& record = group.record;
  v1::GroupAssignment out;
  out.set_group_id(record.id.value);
  out.set_epoch(record.epoch);
  out.set_base_hash(record.base.value);
  out.set_precision(record.precision);
  out.set_shards(record.shards);
  std::vector<std::string> addresses;
  for (size_t rank = 0; rank < record.members.size(); ++rank) {
    const v1::RankReport* const report = RankOf(record, rank);
    if (report == nullptr || report->rendezvous().empty()) break;
    addresses.push_back(report->rendezvous());
  }
  const bool complete = addresses.size() == record.members.size();
  for (size_t rank = 0; rank < record.members.size(); ++rank) {
    v1::GroupMember* const member = out.add_members();
    member->set_worker_id(record.members[rank].worker.value);
    member->set_device_index(record.members[rank].device);
    if (complete) member->set_rendezvous(addresses[rank]);
  }
  if (group.job.has_value()) *out.mutable_job() = *group.job;
  return out;
}

v1::WorkerAssignment Fleet::Wanted(const WorkerId& id, const Worker& worker) const {
  v1::WorkerAssignment wanted;
  *wanted.mutable_heartbeat_interval() = ToProto(options_.heartbeat_interval);
  for (const PlannedGroup& group : plan_) {
    const bool member = std::any_of(group.record.members.begin(), group.record.members.end(),
                                    [&](const auto& m) { return m.worker == id; });
    if (member) *wanted.add_groups() = Assignment(group);
  }
  for (const std::string& blob : worker.wanted_blobs) wanted.add_wanted_blobs(blob);
  for (const auto& [task_id, task] : worker.tasks) *wanted.add_generate() = task;
  for (const v1::JobAck& ack : worker.acks) *wanted.add_acks() = ack;
  return wanted;
}

void Fleet::Push(const WorkerId& id, Worker& worker) {
  if (!planned_ || worker.link == nullptr) return;
  const v1::WorkerAssignment wanted = Wanted(id, worker);
  std::string text = wanted.SerializeAsString();
  if (text == worker.sent) return;
  worker.sent = std::move(text);
  worker.link->Send(wanted);
}

void Fleet::PushAll() {
  for (auto& [id, worker] : workers_) Push(id, worker);
}

bool Fleet::CanAnswer(const WorkerId& id, const Worker& worker, const std::string& base) const {
  int taken = 0;
  for (const PlannedGroup& group : plan_) {
    const std::vector<GroupMemberRecord>& members = group.record.members;
    if (!members.empty() && members[0].worker == id && group.record.base.value == base) return true;
    taken += static_cast<int>(std::count_if(members.begin(), members.end(),
                                            [&](const auto& m) { return m.worker == id; }));
  }
  return taken < worker.report.devices_size();
}

bool Fleet::Trains(const WorkerId& id) const {
  return std::any_of(plan_.begin(), plan_.end(), [&](const PlannedGroup& group) {
    return group.job.has_value() &&
           std::any_of(group.record.members.begin(), group.record.members.end(),
                       [&](const auto& m) { return m.worker == id; });
  });
}

bool Fleet::IsAlive(const Worker& worker) const {
  return worker.link != nullptr && clock_->Monotonic() - worker.last_seen <= options_.lease;
}

}  // namespace tundra::coordinator
