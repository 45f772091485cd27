#include "worker/supervisor.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "common/clock.h"
#include "common/files.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/rpc.h"
#include "common/status.h"
#include "common/version.h"

namespace tundra::worker {

using tundra::v1::GroupAssignment;
using tundra::v1::JobAssignment;
using tundra::v1::WorkerAssignment;

bool IsPlainId(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_';
  });
}

absl::StatusOr<std::string> OpenWorkerDir(const std::string& data_dir) {
  RETURN_IF_ERROR(MakeDirs(data_dir));
  const std::string lock_path = data_dir + "/lock";
  // Held until the process ends, on purpose.
  const int fd = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, lock_path);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd);
    return absl::FailedPreconditionError(absl::StrCat(
        data_dir, ": another tundra-worker uses this folder; give each its own --data-dir"));
  }
  const std::string id_path = data_dir + "/worker_id";
  if (FileExists(id_path)) {
    auto id = ReadFile(id_path, 256);
    if (id.ok() && !IsPlainId(*id)) {
      return absl::DataLossError(
          absl::StrCat(id_path, ": does not hold a worker's id; remove the file to get a new one"));
    }
    return id;
  }
  const std::string id = NewIdValue("worker");
  RETURN_IF_ERROR(WriteFileAtomically(id_path, id));
  return id;
}

Supervisor::Supervisor(SupervisorOptions options, BaseCatalog catalog, std::string worker_id)
    : options_(std::move(options)),
      catalog_(std::move(catalog)),
      worker_id_(std::move(worker_id)),
      incarnation_(NewIdValue("run")),
      channels_(options_.channels) {
  // What an earlier process left is known to nobody: its outboxes went with it.
  for (const char* name : {"/checkpoints", "/adapters"}) {
    std::error_code ignored;
    std::filesystem::remove_all(options_.data_dir + name, ignored);
  }
  transfers_ = std::make_unique<Transfers>(worker_id_, options_.data_dir + "/blobs", channels_);
  pool_ = std::make_unique<TaskPool>(2);
  session_ = std::make_unique<Session>(
      channels_, SessionHandler{[this](WorkerAssignment assignment) {
                                  Post([this, assignment = std::move(assignment)] {
                                    HandleAssignment(assignment);
                                  });
                                },
                                [this](bool connected) {
                                  absl::MutexLock lock(&mu_);
                                  status_.connected = connected;
                                }});
}

Supervisor::~Supervisor() {
  // Threads that may post events end first; none of them waits for the coordinator.
  transfers_->Stop();
  session_.reset();
  generations_.clear();
  pool_.reset();
  groups_.clear();
}

void Supervisor::Post(std::function<void()> event) {
  absl::MutexLock lock(&mu_);
  events_.push_back(std::move(event));
}

void Supervisor::Stop() {
  if (++stop_calls_ > 1) transfers_->Stop();
}

SupervisorStatus Supervisor::status() const {
  absl::MutexLock lock(&mu_);
  return status_;
}

std::string Supervisor::RenderMetrics() {
  const SupervisorStatus now = status();
  WorkerReadings readings;
  readings.connected = now.connected;
  readings.ranks_ready = now.ranks_ready;
  readings.ranks_lost = now.ranks_lost;
  readings.resident_shard_bytes = now.resident_shard_bytes;
  readings.gathered_buffer_bytes = now.gathered_buffer_bytes;
  readings.prepared_bytes = now.prepared_bytes;
  for (const auto& device : options_.devices) readings.device_total_bytes += device.memory_bytes();
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(options_.data_dir, error);
  if (!error) {
    readings.volume_size_bytes = static_cast<double>(space.capacity);
    readings.volume_available_bytes = static_cast<double>(space.available);
  }
  return metrics_.Render(readings);
}

void Supervisor::Run() {
  PublishReport();
  while (true) {
    std::deque<std::function<void()>> events;
    {
      absl::MutexLock lock(&mu_);
      const auto wake = [this] {
        mu_.AssertReaderHeld();
        return !events_.empty();
      };
      mu_.AwaitWithTimeout(absl::Condition(&wake), absl::Milliseconds(100));
      events.swap(events_);
    }
    for (const auto& event : events) event();
    const absl::Duration now = Clock::System()->Monotonic();
    for (auto& [id, group] : groups_) {
      group->Advance(now);
      HandleJob(*group);
    }
    for (auto& [id, generation] : generations_) {
      if (!generation.sent) {
        StartGeneration(generation);
      } else if (!generation.finished && !groups_.contains(generation.group_id)) {
        FailGeneration(id,
                       absl::UnavailableError("the group that was answering has ended; try again"));
      }
    }
    SendWanted(now);
    DropIdleSolo();
    ForgetDone();
    RemoveJobDirs();
    if (stop_calls_ > 0 && !draining_) {
      drain_deadline_ = now + options_.drain_timeout;
      BeginDrain();
    }
    PublishReport();
    if (stop_calls_ > 1 || (draining_ && (Drained() || now > drain_deadline_))) return;
  }
}

void Supervisor::PublishReport() {
  tundra::v1::WorkerReport report;
  report.set_worker_id(worker_id_);
  report.set_display_name(options_.display_name);
  report.set_build(ProgramVersion());
  report.set_incarnation(incarnation_);
  report.set_draining(draining_);
  for (const auto& device : options_.devices) *report.add_devices() = device;
  for (const auto& base : catalog_.bases()) *report.add_bases() = base;
  SupervisorStatus status;
  for (const auto& [id, group] : groups_) {
    const auto group_report = group->Report();
    for (const auto& rank : group_report.ranks()) {
      status.ranks_ready += rank.phase() == tundra::v1::READY;
      status.ranks_lost += rank.phase() == tundra::v1::LOST;
      status.resident_shard_bytes += rank.resident_shard_bytes();
      status.gathered_buffer_bytes += rank.gathered_buffer_bytes();
      status.prepared_bytes += rank.prepared_bytes();
    }
    if (!solo_last_use_.contains(id)) *report.add_groups() = group_report;
  }
  for (const auto& [key, outbox] : outboxes_) *report.add_jobs() = outbox.Report();
  {
    absl::MutexLock lock(&mu_);
    status.connected = status_.connected;
    status_ = status;
  }
  if (report.SerializeAsString() == last_report_) return;
  last_report_ = report.SerializeAsString();
  session_->SetReport(std::move(report));
}

void Supervisor::HandleAssignment(const WorkerAssignment& assignment) {
  HandleGroups(assignment);
  std::map<std::string, absl::Duration> wanted;
  for (const std::string& sha256 : assignment.wanted_blobs()) {
    const auto it = wanted_blobs_.find(sha256);
    wanted[sha256] = it == wanted_blobs_.end() ? absl::ZeroDuration() : it->second;
  }
  wanted_blobs_ = std::move(wanted);
  for (const auto& ack : assignment.acks()) {
    const auto it = outboxes_.find({ack.job_id(), ack.attempt()});
    if (it == outboxes_.end()) continue;
    it->second.Acknowledge(ack);
    // The job never goes back behind what the coordinator has stored.
    DropCheckpoints(ack.job_id(), [&](int64_t step) { return step < ack.checkpoint_step(); });
  }
  HandleGenerate(assignment);
}

std::unique_ptr<LocalGroup> Supervisor::NewGroup(const GroupAssignment& assignment,
                                                 const std::string& base_dir) {
  LocalGroupOptions options;
  options.worker_id = worker_id_;
  options.base_dir = base_dir;
  options.device_kind = options_.devices.empty() ? "cpu" : options_.devices[0].kind();
  options.device_ordinals = options_.device_ordinals;
  options.threads_per_rank = options_.threads_per_rank;
  options.collective_host = options_.collective_host;
  options.collective_timeout = options_.collective_timeout;
  options.hang_timeout = options_.hang_timeout;
  options.network_gather = options_.network_gather;
  options.collective = options_.collective;
  const std::string id = assignment.group_id();
  const int64_t epoch = assignment.epoch();
  options.on_message = [this, id, epoch](int rank, FromRank message, std::vector<Fd> fds) {
    // std::function wants copies; descriptors have one owner.
    auto held = std::make_shared<std::vector<Fd>>(std::move(fds));
    Post([=, this, message = std::move(message)]() mutable {
      HandleRank(id, epoch, rank, std::move(message), std::move(*held));
    });
  };
  options.on_hang = [this] { metrics_.OnCollectiveAbort("hang"); };
  options.on_exit = [this, id, epoch](int rank, std::string how) {
    Post([=, this] {
      const auto it = groups_.find(id);
      if (it != groups_.end() && it->second->epoch() == epoch) it->second->OnExit(rank, how);
    });
  };
  return std::make_unique<LocalGroup>(assignment, std::move(options), &shards_);
}

void Supervisor::HandleGroups(const WorkerAssignment& assignment) {
  std::set<std::string> wanted;
  for (const GroupAssignment& group : assignment.groups()) {
    if (!IsPlainId(group.group_id()) || (group.has_job() && !IsPlainId(group.job().job_id()))) {
      LogError("an assignment with the id '{}' is refused", group.group_id());
      continue;
    }
    wanted.insert(group.group_id());
    const auto it = groups_.find(group.group_id());
    if (it != groups_.end() && it->second->epoch() == group.epoch()) {
      it->second->Update(group);
      continue;
    }
    if (it != groups_.end() && it->second->epoch() > group.epoch()) continue;  // A late message.
    const auto dir = catalog_.DirOf(group.base_hash());
    if (!dir.ok()) {
      LogError("group {}: {}", group.group_id(), dir.status().ToString());
      continue;
    }
    if (it != groups_.end()) {
      // Ends the ranks of the older epoch, most of which may not have noticed yet why.
      for (int rank = it->second->ready_ranks(); rank > 0; --rank) {
        metrics_.OnCollectiveAbort("next_epoch");
      }
      groups_.erase(it);
    }
    jobs_.erase(group.group_id());
    for (const auto& member : group.members()) {
      if (member.worker_id() != worker_id_) continue;
      // The coordinator gives a device once; a base kept for prompts makes way.
      std::erase_if(groups_, [&](const auto& item) {
        return solo_last_use_.contains(item.first) &&
               item.second->UsesDevice(member.device_index());
      });
    }
    groups_[group.group_id()] = NewGroup(group, *dir);
  }
  std::erase_if(groups_, [&](const auto& item) {
    if (wanted.contains(item.first) || solo_last_use_.contains(item.first)) return false;
    LogInfo("group {} is not wanted any more", item.first);
    jobs_.erase(item.first);
    return true;
  });
  std::erase_if(solo_last_use_, [&](const auto& item) { return !groups_.contains(item.first); });
  DropUnusedShards();
}

void Supervisor::DropUnusedShards() {
  std::set<std::pair<std::string, int>> used;
  for (const auto& [id, group] : groups_) {
    used.emplace(group->assignment().base_hash(), group->assignment().shards());
  }
  std::erase_if(shards_, [&](const auto& item) {
    return !used.contains({item.first.base_hash, item.first.shards});
  });
}

JobOutbox& Supervisor::OutboxOf(const JobAssignment& job, int64_t epoch) {
  return outboxes_.try_emplace({job.job_id(), job.attempt()}, job.job_id(), job.attempt(), epoch)
      .first->second;
}

void Supervisor::HandleRank(const std::string& group_id, int64_t epoch, int rank, FromRank message,
                            std::vector<Fd> fds) {
  // Counts are of ranks of older epochs, too.
  if (message.has_figures()) return metrics_.OnFigures(message.figures());
  if (!message.state().abort_reason().empty()) {
    metrics_.OnCollectiveAbort(message.state().abort_reason());
  }
  const auto it = groups_.find(group_id);
  if (it == groups_.end() || it->second->epoch() != epoch) return;
  LocalGroup& group = *it->second;
  switch (message.message_case()) {
    case FromRank::kState: {
      group.OnState(rank, message.state(), std::move(fds));
      const auto solo = solo_last_use_.find(group_id);
      if (solo == solo_last_use_.end() || message.state().heartbeat()) return;
      // A group of one has nobody to meet: its own address is all there is.
      GroupAssignment own = group.assignment();
      own.mutable_members(0)->set_rendezvous(message.state().report().rendezvous());
      group.Update(std::move(own));
      return;
    }
    case FromRank::kGeneration: {
      const auto generation = generations_.find(message.generation().task_id());
      if (generation == generations_.end()) return;
      message.mutable_generation()->set_worker_id(worker_id_);
      generation->second.delivery->Add(message.generation());
      if (IsLast(message.generation())) {
        generation->second.finished = true;
        RemoveAdapterDir(generation->first);
      }
      return;
    }
    case FromRank::kJob:
    case FromRank::kMetrics:
    case FromRank::kCheckpoint:
      HandleJobMessage(group, std::move(message));
      return;
    case FromRank::kFigures:
    case FromRank::MESSAGE_NOT_SET:
      return;
  }
}

void Supervisor::BeginDrain() {
  draining_ = true;
  LogInfo("draining: jobs save their state and stop");
  SteerAll(tundra::v1::PAUSE);
  for (const auto& [id, job] : jobs_) {
    if (!job.started) StopBeforeStart(*groups_.at(id), job.assignment);
  }
}

bool Supervisor::Drained() const {
  // A job that another worker leads needs the ranks here for its last step; the
  // coordinator, which knows that this worker drains, takes it from the group.
  const bool led_elsewhere = std::any_of(jobs_.begin(), jobs_.end(), [&](const auto& item) {
    const auto group = groups_.find(item.first);
    return item.second.started && group != groups_.end() && !group->second->leads() &&
           group->second->ready();
  });
  return !led_elsewhere && std::all_of(outboxes_.begin(), outboxes_.end(),
                                       [](const auto& item) { return item.second.done(); });
}

void Supervisor::SteerAll(tundra::v1::DesiredState desired) {
  for (auto& [id, job] : jobs_) {
    if (job.started) Steer(*groups_.at(id), job, desired);
  }
}

void Supervisor::ForgetDone() {
  std::erase_if(outboxes_, [](const auto& item) { return item.second.done(); });
}

// A job's checkpoints go once it is neither reported nor held by a group here: a
// rank of its next attempt may be about to read the one it goes on from.
void Supervisor::RemoveJobDirs() {
  for (auto it = job_dirs_.begin(); it != job_dirs_.end();) {
    const bool used = std::any_of(outboxes_.begin(), outboxes_.end(),
                                  [&](const auto& item) { return item.first.first == *it; }) ||
                      std::any_of(groups_.begin(), groups_.end(), [&](const auto& item) {
                        return item.second->assignment().job().job_id() == *it;
                      });
    if (used) {
      ++it;
      continue;
    }
    std::erase_if(checkpoints_, [&](const auto& item) { return item.second.job_id == *it; });
    std::error_code ignored;
    std::filesystem::remove_all(options_.data_dir + "/checkpoints/" + *it, ignored);
    it = job_dirs_.erase(it);
  }
}

void Supervisor::DropCheckpoints(const std::string& job_id,
                                 const std::function<bool(int64_t step)>& which) {
  std::erase_if(checkpoints_, [&](const auto& item) {
    if (item.second.job_id != job_id || !which(item.second.step)) return false;
    std::error_code ignored;
    std::filesystem::remove_all(item.second.dir, ignored);
    return true;
  });
}

void Supervisor::PruneBlobs() {
  std::set<std::string> in_use;
  for (const auto& [id, job] : jobs_) {
    in_use.insert(job.assignment.train().sha256());
    in_use.insert(job.assignment.validation().sha256());
    in_use.insert(job.assignment.resume().sha256());
  }
  for (const auto& [id, generation] : generations_) {
    for (const auto& file : generation.task.adapter_files()) in_use.insert(file.sha256());
  }
  transfers_->Prune(options_.max_blob_bytes, in_use);
}

}  // namespace tundra::worker
