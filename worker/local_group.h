// This worker's share of a group at one epoch: its rank processes, from spawning
// to the moment all ranks of the group are connected.
//
// A rank process serves one epoch. When the epoch changes, all of them are killed
// and started anew; what makes that cheap is that shards stay in memory of the
// supervisor (ShardStore), so a new rank maps its slice instead of reading it.
//
// Order of a rank: SPAWNING, LOADING (its shard), AWAITING_PEERS (its rendezvous
// address is known), READY (connected), and LOST from any of them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/files.h"
#include "tundra/v1/worker.pb.h"
#include "worker/rank_control.pb.h"
#include "worker/rank_process.h"

namespace tundra::worker {

// Which slice of which base.
struct ShardKey {
  std::string base_hash;
  int shards = 1;
  int shard = 0;
  auto operator<=>(const ShardKey&) const = default;
};

// A sealed memory file with the slice's bytes.
struct StoredShard {
  Fd memory;
  std::string hash;
};

using ShardStore = std::map<ShardKey, StoredShard>;

struct LocalGroupOptions {
  std::string worker_id;
  std::string base_dir;
  // "cpu".
  std::string device_kind;
  std::vector<int> device_ordinals;  // by index; empty: the same numbers
  int threads_per_rank = 1;
  std::string collective_host;
  absl::Duration collective_timeout = absl::Seconds(60);
  // A rank that connects or is at work and gave no sign of life for so long is
  // killed. Ranks that wait for others are not at work.
  absl::Duration hang_timeout = absl::Seconds(120);
  // A rank that reads its shard gives no sign meanwhile: it has so long.
  absl::Duration load_timeout = absl::Hours(1);
  // Gather over the network even where shards could be mapped (tests).
  bool network_gather = false;
  std::string collective = "gloo";
  // Called from reader threads.
  std::function<void(int rank, FromRank message, std::vector<Fd> fds)> on_message;
  std::function<void(int rank, std::string how)> on_exit;
  // Called by Advance for each rank that it kills for giving no sign of life.
  std::function<void()> on_hang = [] {};
};

// Used by the supervisor's thread only.
class LocalGroup {
 public:
  // Spawns the ranks of `assignment` whose member is this worker.
  LocalGroup(tundra::v1::GroupAssignment assignment, LocalGroupOptions options, ShardStore* shards);

  const std::string& id() const { return assignment_.group_id(); }
  int64_t epoch() const { return assignment_.epoch(); }
  const tundra::v1::GroupAssignment& assignment() const { return assignment_; }
  // Takes new rendezvous bytes (and the job) of the same epoch.
  void Update(tundra::v1::GroupAssignment assignment);

  // What came from a rank. A shard that came with it goes into the store.
  void OnState(int rank, const RankState& state, std::vector<Fd> fds);
  void OnExit(int rank, const std::string& how);

  // Does what can be done next: hands out setups and peers, kills ranks that hang.
  void Advance(absl::Duration monotonic_now);

  // To every local rank that lives.
  void SendToAll(const ToRank& message);
  // To rank 0, if it is local. False if it is not.
  bool SendToLeader(const ToRank& message);

  bool leads() const { return ranks_.contains(0); }
  bool ready() const;
  // Ranks of this worker in READY.
  int ready_ranks() const;
  bool UsesDevice(int device_index) const;
  tundra::v1::GroupReport Report() const;

 private:
  struct Rank {
    int device_index = 0;
    std::unique_ptr<RankProcess> process;
    tundra::v1::RankReport report;
    bool setup_sent = false;
    absl::Duration last_sign;
    std::string doing = "starting";
  };

  ShardKey KeyOf(int rank) const;
  void Spawn(int rank, int device_index);
  int OrdinalOf(int device_index) const;
  int MemorySharers(const Rank& entry) const;
  void SendSetup(int rank, Rank& entry);
  void SendPeers();
  // Whether a rank owes a sign of life, and how often.
  absl::Duration PatienceWith(const Rank& entry) const;
  void MarkLost(Rank& entry, const std::string& error);

  tundra::v1::GroupAssignment assignment_;
  const LocalGroupOptions options_;
  ShardStore* const shards_;
  std::map<int, Rank> ranks_;
  bool peers_sent_ = false;
};

}  // namespace tundra::worker
