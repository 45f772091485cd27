// The supervisor of a node: turns the coordinator's wanted assignment into rank
// processes and jobs, and what they do into reports. One thread decides
// (Run), fed by a queue of events; other threads only wait for sockets, streams
// and transfers. It has no device code in it.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/rpc.h"
#include "tundra/v1/worker.pb.h"
#include "worker/base_catalog.h"
#include "worker/generation_delivery.h"
#include "worker/job_outbox.h"
#include "worker/local_group.h"
#include "worker/session.h"
#include "worker/task_pool.h"
#include "worker/transfers.h"
#include "worker/worker_metrics.h"

namespace tundra::worker {

struct SupervisorOptions {
  // To the coordinator.
  std::shared_ptr<ChannelSource> channels;
  std::string display_name;
  // Folder of this worker's own: its id, fetched blobs, checkpoints.
  std::string data_dir;
  std::vector<tundra::v1::DeviceInfo> devices;
  std::vector<int> device_ordinals;  // of GPUs, as the driver numbers them
  int threads_per_rank = 1;
  std::string collective_host = "127.0.0.1";
  absl::Duration collective_timeout = absl::Seconds(60);
  absl::Duration hang_timeout = absl::Seconds(300);
  // Longest time for saving jobs after SIGTERM.
  absl::Duration drain_timeout = absl::Seconds(30);
  // An idle device keeps a base for prompts so long.
  absl::Duration solo_idle_timeout = absl::Minutes(10);
  // Fetched blobs that no job uses are kept up to so many bytes in all.
  int64_t max_blob_bytes = int64_t{16} << 30;
  bool network_gather = false;
  std::string collective = "gloo";  // or "nccl"
};

struct SupervisorStatus {
  bool connected = false;
  int ranks_ready = 0;
  int ranks_lost = 0;
  // Added over ranks, as in RankReport.
  int64_t resident_shard_bytes = 0;
  int64_t gathered_buffer_bytes = 0;
  int64_t prepared_bytes = 0;
};

class Supervisor {
 public:
  Supervisor(SupervisorOptions options, BaseCatalog catalog, std::string worker_id);
  ~Supervisor();

  // Works until Stop() and, after it, until jobs are saved.
  void Run();

  // Begins to drain; from any thread. A second call ends Run at once.
  void Stop();

  SupervisorStatus status() const;
  // The metrics page; from any thread.
  std::string RenderMetrics();
  WorkerMetrics& metrics() { return metrics_; }

 private:
  // A job of a group on its way into the ranks.
  struct LocalJob {
    tundra::v1::JobAssignment assignment;
    // Its inputs are on their way.
    bool fetching = false;
    bool started = false;
    tundra::v1::DesiredState sent_desired = tundra::v1::RUN;
    // When its ranks were asked to pause; infinite while they were not.
    absl::Duration pause_asked = absl::InfiniteDuration();
  };
  // A checkpoint on this node's disk: the job goes on from it without a fetch.
  struct KeptCheckpoint {
    std::string job_id;
    int64_t step = 0;
    std::string dir;
  };
  struct Generation {
    tundra::v1::GenerateTask task;
    std::string group_id;
    bool sent = false;
    bool finished = false;
    std::unique_ptr<GenerationDelivery> delivery;
  };

  using AttemptKey = std::pair<std::string, int64_t>;

  void Post(std::function<void()> event);
  void HandleAssignment(const tundra::v1::WorkerAssignment& assignment);
  void HandleGroups(const tundra::v1::WorkerAssignment& assignment);
  void HandleJob(LocalGroup& group);
  void HandleGenerate(const tundra::v1::WorkerAssignment& assignment);
  void HandleRank(const std::string& group_id, int64_t epoch, int rank, FromRank message,
                  std::vector<Fd> fds);
  void HandleJobMessage(LocalGroup& group, FromRank message);
  void FetchInputs(const std::string& group_id, const tundra::v1::JobAssignment& job);
  void StartJobOn(LocalGroup& group, LocalJob& job, const StartJob& start);
  void FailJob(LocalGroup& group, const tundra::v1::JobAssignment& job, const absl::Status& status);
  void LeaveJob(LocalGroup& group);
  void Steer(LocalGroup& group, LocalJob& job, tundra::v1::DesiredState desired);
  void CountPreemption(const LocalGroup& group, const FromRank& message);
  void KeepCheckpoint(const AttemptKey& key, const CheckpointSaved& saved, int keep);
  void UploadCheckpoint(const AttemptKey& key, const CheckpointSaved& saved);
  void DropCheckpoints(const std::string& job_id, const std::function<bool(int64_t step)>& which);
  void PruneBlobs();
  void SendWanted(absl::Duration now);
  void UploadText(const std::string& sha256);
  void StartGeneration(Generation& generation);
  void SendGeneration(Generation& generation, const std::string& adapter_dir);
  void FailGeneration(const std::string& task_id, const absl::Status& status);
  LocalGroup* GroupFor(const tundra::v1::GenerateTask& task);
  LocalGroup* SpawnSolo(const std::string& base_hash);
  void DropIdleSolo();
  void DropUnusedShards();
  void ForgetDone();
  void RemoveJobDirs();
  void RemoveAdapterDir(const std::string& task_id);
  std::unique_ptr<LocalGroup> NewGroup(const tundra::v1::GroupAssignment& assignment,
                                       const std::string& base_dir);
  void BeginDrain();
  void StopBeforeStart(LocalGroup& group, const tundra::v1::JobAssignment& job);
  void SteerAll(tundra::v1::DesiredState desired);
  bool Drained() const;
  void PublishReport();
  JobOutbox& OutboxOf(const tundra::v1::JobAssignment& job, int64_t epoch);

  const SupervisorOptions options_;
  const BaseCatalog catalog_;
  const std::string worker_id_;
  const std::string incarnation_;
  WorkerMetrics metrics_;
  std::shared_ptr<ChannelSource> channels_;

  // Touched by Run's thread only.
  ShardStore shards_;
  std::map<std::string, std::unique_ptr<LocalGroup>> groups_;  // by id
  std::map<std::string, LocalJob> jobs_;                       // by group id
  std::map<AttemptKey, JobOutbox> outboxes_;
  std::map<std::string, KeptCheckpoint> checkpoints_;  // by the state's SHA-256
  std::set<std::string> job_dirs_;                 // jobs that may have a folder in checkpoints/
  std::map<std::string, Generation> generations_;  // by task id
  std::map<std::string, absl::Duration> solo_last_use_;  // by group id
  int64_t solo_epoch_ = 0;
  // Blobs that the coordinator wants, with the time of the next try.
  std::map<std::string, absl::Duration> wanted_blobs_;
  // Those under way: text files, and checkpoints by the hash of their state.
  std::set<std::string> sending_wanted_;
  std::string last_report_;
  bool draining_ = false;
  absl::Duration drain_deadline_ = absl::InfiniteDuration();

  std::atomic<int> stop_calls_{0};
  mutable absl::Mutex mu_;
  std::deque<std::function<void()>> events_ ABSL_GUARDED_BY(mu_);
  SupervisorStatus status_ ABSL_GUARDED_BY(mu_);

  // Destroyed first, in reverse order: they call back into the above.
  std::unique_ptr<Transfers> transfers_;
  std::unique_ptr<TaskPool> pool_;
  std::unique_ptr<Session> session_;
};

// Whether an id may be part of a path: 1 to 128 of [0-9A-Za-z_-].
bool IsPlainId(std::string_view id);

// Reads the worker's id from its data folder, or makes one. Takes the folder's
// lock. Errors: kFailedPrecondition when another worker uses the folder.
absl::StatusOr<std::string> OpenWorkerDir(const std::string& data_dir);

}  // namespace tundra::worker
