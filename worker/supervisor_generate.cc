// The supervisor's part in prompts: each task goes to a local group that has its
// base, or to a group of one on an idle device, made for the purpose.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "common/clock.h"
#include "common/files.h"
#include "common/logging.h"
#include "common/status.h"
#include "worker/supervisor.h"

namespace tundra::worker {

using tundra::v1::GenerateTask;
using tundra::v1::GroupAssignment;

void Supervisor::HandleGenerate(const tundra::v1::WorkerAssignment& assignment) {
  std::set<std::string> wanted;
  for (const GenerateTask& task : assignment.generate()) {
    if (!IsPlainId(task.task_id())) {
      LogError("a prompt with the id '{}' is refused", task.task_id());
      continue;
    }
    wanted.insert(task.task_id());
    if (generations_.contains(task.task_id())) continue;
    Generation& generation = generations_[task.task_id()];
    generation.task = task;
    generation.delivery =
        std::make_unique<GenerationDelivery>(channels_, [this, id = task.task_id()] {
          Post([this, id] {
            const auto it = generations_.find(id);
            if (it == generations_.end() || it->second.finished) return;
            it->second.finished = true;
            const auto group = groups_.find(it->second.group_id);
            if (group == groups_.end()) return;
            ToRank message;
            message.mutable_generate()->mutable_task()->set_task_id(id);
            message.mutable_generate()->set_cancel(true);
            group->second->SendToLeader(message);
          });
        });
  }
  for (auto it = generations_.begin(); it != generations_.end();) {
    if (wanted.contains(it->first)) {
      ++it;
      continue;
    }
    if (!it->second.finished && it->second.sent) {
      if (const auto group = groups_.find(it->second.group_id); group != groups_.end()) {
        ToRank message;
        message.mutable_generate()->mutable_task()->set_task_id(it->first);
        message.mutable_generate()->set_cancel(true);
        group->second->SendToLeader(message);
      }
    }
    RemoveAdapterDir(it->first);
    it = generations_.erase(it);
  }
}

LocalGroup* Supervisor::GroupFor(const GenerateTask& task) {
  for (auto& [id, group] : groups_) {
    if (group->assignment().base_hash() == task.base_hash() && group->leads()) return group.get();
  }
  return SpawnSolo(task.base_hash());
}

LocalGroup* Supervisor::SpawnSolo(const std::string& base_hash) {
  const auto dir = catalog_.DirOf(base_hash);
  if (!dir.ok()) return nullptr;
  for (const auto& device : options_.devices) {
    const bool used = std::any_of(groups_.begin(), groups_.end(), [&](const auto& item) {
      return item.second->UsesDevice(device.index());
    });
    if (used) continue;
    GroupAssignment assignment;
    assignment.set_group_id(absl::StrCat("solo-", device.index(), "-", base_hash.substr(0, 12)));
    assignment.set_epoch(++solo_epoch_);
    assignment.set_base_hash(base_hash);
    assignment.set_precision(tundra::v1::F32);
    assignment.set_shards(1);
    assignment.add_members()->set_worker_id(worker_id_);
    assignment.mutable_members(0)->set_device_index(device.index());
    const std::string id = assignment.group_id();
    solo_last_use_[id] = Clock::System()->Monotonic();
    groups_[id] = NewGroup(assignment, *dir);
    return groups_[id].get();
  }
  return nullptr;
}

// Tries again on every turn of the loop until the group is ready.
void Supervisor::StartGeneration(Generation& generation) {
  LocalGroup* group = nullptr;
  if (const auto it = groups_.find(generation.group_id); it != groups_.end()) {
    group = it->second.get();
  } else {
    group = GroupFor(generation.task);
  }
  if (group == nullptr) {
    // A free device may come; the caller's deadline bounds the wait.
    return;
  }
  generation.group_id = group->id();
  if (solo_last_use_.contains(group->id())) {
    solo_last_use_[group->id()] = Clock::System()->Monotonic();
    const tundra::v1::GroupReport report = group->Report();
    for (const auto& rank : report.ranks()) {
      if (rank.phase() != tundra::v1::LOST) continue;
      const std::string reason = rank.error();
      groups_.erase(group->id());
      FailGeneration(generation.task.task_id(), absl::InternalError(reason));
      return;
    }
  }
  if (!group->ready()) return;
  generation.sent = true;
  if (generation.task.adapter_files_size() == 0) {
    SendGeneration(generation, "");
    return;
  }
  pool_->Add([this, task = generation.task] {
    const std::string dir = options_.data_dir + "/adapters/" + task.task_id();
    const auto fetch = [&]() -> absl::Status {
      RETURN_IF_ERROR(MakeDirs(dir));
      for (const auto& file : task.adapter_files()) {
        tundra::v1::BlobRef blob;
        blob.set_sha256(file.sha256());
        blob.set_size_bytes(file.size_bytes());
        blob.set_display_name(file.filename());
        ASSIGN_OR_RETURN(const std::string path, transfers_->Fetch(blob));
        const bool known = file.filename() == "adapter_config.json" ||
                           file.filename() == "adapter_model.safetensors";
        if (!known) continue;
        const std::string link = dir + "/" + file.filename();
        ::unlink(link.c_str());
        if (::link(path.c_str(), link.c_str()) != 0) return ErrnoStatus(errno, link);
      }
      return absl::OkStatus();
    };
    const absl::Status status = fetch();
    Post([this, id = task.task_id(), dir, status] {
      const auto it = generations_.find(id);
      PruneBlobs();
      if (it == generations_.end() || it->second.finished) {
        RemoveAdapterDir(id);
        return;
      }
      if (status.ok()) {
        SendGeneration(it->second, dir);
      } else {
        FailGeneration(id, status);
      }
    });
  });
}

void Supervisor::SendGeneration(Generation& generation, const std::string& adapter_dir) {
  ToRank message;
  *message.mutable_generate()->mutable_task() = generation.task;
  message.mutable_generate()->set_adapter_dir(adapter_dir);
  const auto group = groups_.find(generation.group_id);
  if (group == groups_.end() || !group->second->SendToLeader(message)) {
    FailGeneration(generation.task.task_id(),
                   absl::UnavailableError("the group that was to answer has ended; try again"));
  }
}

void Supervisor::RemoveAdapterDir(const std::string& task_id) {
  std::error_code ignored;
  std::filesystem::remove_all(options_.data_dir + "/adapters/" + task_id, ignored);
}

void Supervisor::FailGeneration(const std::string& task_id, const absl::Status& status) {
  const auto it = generations_.find(task_id);
  if (it == generations_.end() || it->second.finished) return;
  it->second.sent = true;
  it->second.finished = true;
  RemoveAdapterDir(task_id);
  tundra::v1::GenerationChunk chunk;
  chunk.set_task_id(task_id);
  chunk.set_worker_id(worker_id_);
  chunk.set_error_code(static_cast<int32_t>(status.code()));
  chunk.set_error_message(std::string(status.message()));
  it->second.delivery->Add(std::move(chunk));
}

void Supervisor::DropIdleSolo() {
  const absl::Duration now = Clock::System()->Monotonic();
  for (auto it = solo_last_use_.begin(); it != solo_last_use_.end();) {
    const bool busy = std::any_of(generations_.begin(), generations_.end(), [&](const auto& item) {
      return item.second.group_id == it->first && !item.second.finished;
    });
    if (busy || now - it->second < options_.solo_idle_timeout) {
      ++it;
      continue;
    }
    groups_.erase(it->first);
    it = solo_last_use_.erase(it);
    DropUnusedShards();
  }
}

}  // namespace tundra::worker
