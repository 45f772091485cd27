// What is known of the workers, in memory: the last report and the session of
// each, and what each is wanted to do. It is rebuilt from their reports after a
// restart; nothing here is truth.
//
// Level-triggered: whenever anything changes, the whole wanted state of a worker
// is put together, and sent if it differs from what was sent last.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "coordinator/scheduler/schedule.h"
#include "coordinator/store/records.h"
#include "tundra/v1/fleet.pb.h"

namespace tundra::coordinator {

// The coordinator's end of a session's stream. Both calls return at once.
class SessionLink {
 public:
  virtual ~SessionLink() = default;
  // Grows from one session to the next.
  uint64_t number() const { return number_; }
  // Sends the assignment; one not sent yet is replaced by it.
  virtual void Send(const v1::WorkerAssignment& assignment) = 0;
  virtual void End(const absl::Status& status) = 0;
  // End was called, or the stream broke: what still comes from it is ignored.
  virtual bool Ended() const = 0;

 private:
  static inline std::atomic<uint64_t> made_ = 0;
  const uint64_t number_ = ++made_;
};

struct FleetOptions {
  absl::Duration heartbeat_interval = absl::Seconds(2);
  // A worker not heard of for this long is lost.
  absl::Duration lease = absl::Seconds(15);
};

// A group with the job assignment that its workers get.
struct PlannedGroup {
  GroupRecord record;
  std::optional<v1::JobAssignment> job;
};

// Thread-safe.
class Fleet {
 public:
  Fleet(Clock* clock, FleetOptions options);

  // ---- Sessions ----
  // Takes a report in, with what of it is durable and the blobs that the worker
  // is to put. The first one of a session makes it the worker's only session: an
  // older one is ended with ABORTED. Returns whether something changed that the
  // scheduler should see. False also for an ended session.
  // `identity` is the name of the session's certificate, empty without one.
  bool TakeReport(const std::shared_ptr<SessionLink>& link, const std::string& identity,
                  const v1::WorkerReport& report, std::vector<v1::JobAck> acks,
                  std::set<std::string> wanted_blobs);
  // The session's stream has ended. Returns true when it was the current one.
  bool Disconnect(const SessionLink* link);
  // Ends all sessions with UNAVAILABLE.
  void EndSessions();

  // ---- What is wanted ----
  // All groups, replacing the former plan. Nothing is sent before the first plan,
  // so that a restarted coordinator never tells a worker to drop its groups.
  void SetPlan(std::vector<PlannedGroup> plan);
  // The blob is here: no worker is asked for it any more.
  void BlobArrived(const std::string& sha256);

  // ---- Generation ----
  // Gives the task to the worker that suits best: one that can answer now before one that
  // must make room, idle before busy, few tasks before many. Errors: kUnavailable when no connected
  // worker holds the base.
  absl::StatusOr<WorkerId> AddGenerateTask(const v1::GenerateTask& task);
  void RemoveGenerateTask(const std::string& task_id);

  // ---- Draining ----
  // Workers that are to have no new work, whatever they say themselves.
  void SetDrained(std::set<WorkerId> drained);

  // ---- Questions ----
  // The certificate's name of the worker's newest session; nullopt when it has had none.
  std::optional<std::string> IdentityOf(const WorkerId& worker);
  std::vector<WorkerView> Workers();
  // The record with what the members report of its epoch.
  GroupView View(const GroupRecord& record);
  // The worker has reported on the attempt, or is away and might have.
  bool AttemptReported(const WorkerId& worker, const JobId& job, int64_t attempt);
  // The blob belongs to something assigned to the worker.
  bool MayFetch(const WorkerId& worker, const std::string& sha256);
  // Connected workers that hold the base.
  int CountHolders(const BaseHash& base);
  bool IsConnected(const WorkerId& worker);
  // By "connected", "draining", "away".
  std::map<std::string, int> CountWorkers();
  // As the API shows them, by name.
  std::vector<v1::Worker> ListWorkers();
  // By name, with their jobs, whosever they are.
  std::vector<v1::Group> ListGroups();

 private:
  struct Worker {
    v1::WorkerReport report;
    std::string identity;
    std::shared_ptr<SessionLink> link;  // null while away
    uint64_t session = 0;               // number of the newest
    absl::Duration last_seen;
    // What the scheduler last saw, serialized.
    std::string seen;
    std::string sent;
    std::vector<v1::JobAck> acks;
    std::set<std::string> wanted_blobs;
    std::map<std::string, v1::GenerateTask> tasks;
  };

  // Null when the worker does not report that epoch of the group.
  const v1::GroupReport* ReportOf(const GroupMemberRecord& member, const GroupRecord& record) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  const v1::RankReport* RankOf(const GroupRecord& record, size_t rank) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  v1::GroupAssignment Assignment(const PlannedGroup& group) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  v1::WorkerAssignment Wanted(const WorkerId& id, const Worker& worker) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Push(const WorkerId& id, Worker& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PushAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether it can answer prompts to the base: it leads a group that holds it, or has a
  // device in no group.
  bool CanAnswer(const WorkerId& id, const Worker& worker, const std::string& base) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Trains(const WorkerId& id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsDraining(const WorkerId& id, const Worker& worker) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsAlive(const Worker& worker) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Clock* const clock_;
  const FleetOptions options_;
  const absl::Duration start_;
  absl::Mutex mu_;
  std::map<WorkerId, Worker> workers_ ABSL_GUARDED_BY(mu_);
  std::vector<PlannedGroup> plan_ ABSL_GUARDED_BY(mu_);
  bool planned_ ABSL_GUARDED_BY(mu_) = false;
  std::set<WorkerId> drained_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tundra::coordinator
