#include "worker/local_group.h"

#include <algorithm>

#include "common/clock.h"
#include "common/logging.h"
#include "common/status.h"

namespace tundra::worker {

using tundra::v1::GroupAssignment;
using tundra::v1::RankReport;

LocalGroup::LocalGroup(GroupAssignment assignment, LocalGroupOptions options, ShardStore* shards)
    : assignment_(std::move(assignment)), options_(std::move(options)), shards_(shards) {
  for (int rank = 0; rank < assignment_.members_size(); ++rank) {
    const auto& member = assignment_.members(rank);
    if (member.worker_id() == options_.worker_id) Spawn(rank, member.device_index());
  }
}

ShardKey LocalGroup::KeyOf(int rank) const {
  return {assignment_.base_hash(), assignment_.shards(), rank % std::max(1, assignment_.shards())};
}

void LocalGroup::Spawn(int rank, int device_index) {
  Rank& entry = ranks_[rank];
  entry.device_index = device_index;
  entry.last_sign = Clock::System()->Monotonic();
  entry.report.set_rank(rank);
  entry.report.set_device_index(device_index);
  entry.report.set_phase(tundra::v1::SPAWNING);
  RankOptions options;
  options.environment = {absl::StrCat("OMP_NUM_THREADS=", options_.threads_per_rank),
                         "OMP_WAIT_POLICY=passive", "OMP_DYNAMIC=false"};
  options.on_message = [this, rank](FromRank message, std::vector<Fd> fds) {
    options_.on_message(rank, std::move(message), std::move(fds));
  };
  options.on_exit = [this, rank](std::string how) { options_.on_exit(rank, std::move(how)); };
  auto process = RankProcess::Start(std::move(options));
  if (process.ok()) {
    entry.process = *std::move(process);
    LogInfo("group {} epoch {}: rank {} is process {}", id(), epoch(), rank, entry.process->pid());
  } else {
    MarkLost(entry, std::string(process.status().message()));
  }
}

void LocalGroup::Update(GroupAssignment assignment) { assignment_ = std::move(assignment); }

void LocalGroup::OnState(int rank, const RankState& state, std::vector<Fd> fds) {
  const auto it = ranks_.find(rank);
  if (it == ranks_.end()) return;
  Rank& entry = it->second;
  entry.last_sign = Clock::System()->Monotonic();
  entry.doing = state.doing();
  if (state.heartbeat() || entry.report.phase() == tundra::v1::LOST) return;
  if (!fds.empty()) {
    (*shards_)[KeyOf(rank)] = {std::move(fds[0]), state.report().shard_hash()};
  }
  if (state.report().phase() == tundra::v1::LOST) {
    entry.report.set_failure_code(state.report().failure_code());
    entry.report.set_error(state.report().error());
    MarkLost(entry, state.report().error());
    return;
  }
  entry.report = state.report();
  entry.report.set_rank(rank);
  entry.report.set_device_index(entry.device_index);
}

void LocalGroup::OnExit(int rank, const std::string& how) {
  const auto it = ranks_.find(rank);
  if (it != ranks_.end()) MarkLost(it->second, how);
}

void LocalGroup::MarkLost(Rank& entry, const std::string& error) {
  // The first reason is the telling one; "ended with status 1" comes after it.
  if (entry.report.phase() == tundra::v1::LOST) return;
  if (entry.report.error().empty()) {
    entry.report.set_error(absl::StrCat(error, ", while ", entry.doing));
  }
  entry.report.set_phase(tundra::v1::LOST);
  LogWarning("group {} epoch {}: rank {} is lost: {}", id(), epoch(), entry.report.rank(),
             entry.report.error());
}

int LocalGroup::OrdinalOf(int device_index) const {
  const auto index = static_cast<size_t>(device_index);
  const std::vector<int>& ordinals = options_.device_ordinals;
  return index < ordinals.size() ? ordinals[index] : device_index;
}

// A card's memory is its ranks' alone; a machine's is all its ranks'.
int LocalGroup::MemorySharers(const Rank& entry) const {
  if (options_.device_kind == "cpu") return static_cast<int>(ranks_.size());
  return static_cast<int>(std::count_if(ranks_.begin(), ranks_.end(), [&](const auto& other) {
    return OrdinalOf(other.second.device_index) == OrdinalOf(entry.device_index);
  }));
}

void LocalGroup::SendSetup(int rank, Rank& entry) {
  ToRank message;
  RankSetup& setup = *message.mutable_setup();
  setup.set_group_id(id());
  setup.set_epoch(epoch());
  setup.set_rank(rank);
  setup.set_size(assignment_.members_size());
  setup.set_shards(assignment_.shards());
  setup.set_base_hash(assignment_.base_hash());
  setup.set_base_dir(options_.base_dir);
  setup.set_precision(assignment_.precision());
  setup.set_device_kind(options_.device_kind);
  setup.set_device_ordinal(OrdinalOf(entry.device_index));
  setup.set_threads(options_.threads_per_rank);
  setup.set_collective(options_.collective);
  setup.set_collective_host(options_.collective_host);
  setup.set_memory_sharers(MemorySharers(entry));
  setup.set_collective_timeout_ms(absl::ToInt64Milliseconds(options_.collective_timeout));
  std::vector<int> fds;
  if (const auto stored = shards_->find(KeyOf(rank)); stored != shards_->end()) {
    setup.set_shard_hash(stored->second.hash);
    fds.push_back(stored->second.memory.get());
  }
  entry.setup_sent = true;
  entry.last_sign = Clock::System()->Monotonic();
  const absl::Status status = entry.process->Send(message, fds);
  if (!status.ok()) LogWarning("rank {}: {}", rank, status.ToString());
}

void LocalGroup::SendPeers() {
  ToRank message;
  GroupPeers& peers = *message.mutable_peers();
  for (const auto& member : assignment_.members()) *peers.add_rendezvous() = member.rendezvous();
  std::vector<int> fds;
  for (int shard = 0; shard < assignment_.shards(); ++shard) {
    const auto stored = shards_->find({assignment_.base_hash(), assignment_.shards(), shard});
    if (stored != shards_->end()) fds.push_back(stored->second.memory.get());
  }
  const bool all_here =
      fds.size() == static_cast<size_t>(assignment_.shards()) && fds.size() <= Link::kMaxFds;
  // Every rank of the group must gather alike, so mapping is for groups on one host.
  bool one_host = true;
  for (const auto& member : assignment_.members()) {
    one_host &= member.worker_id() == options_.worker_id;
  }
  peers.set_mapped(all_here && one_host && !options_.network_gather);
  // GPUs that have NCCL hold the slices themselves: between them is a faster way than from the
  // host's memory.
  peers.set_prefer_gather(options_.collective == "nccl");
  if (!peers.mapped()) fds.clear();
  for (auto& [rank, entry] : ranks_) {
    entry.last_sign = Clock::System()->Monotonic();
    const absl::Status status = entry.process->Send(message, fds);
    if (!status.ok()) LogWarning("rank {}: {}", rank, status.ToString());
  }
  peers_sent_ = true;
}

absl::Duration LocalGroup::PatienceWith(const Rank& entry) const {
  switch (entry.report.phase()) {
    case tundra::v1::AWAITING_PEERS:
      // It waits for the slowest rank anywhere; then connecting is work.
      return peers_sent_ ? options_.hang_timeout : absl::InfiniteDuration();
    case tundra::v1::SPAWNING:
    case tundra::v1::LOADING:
      // Before its setup it waits for the rank that reads the same slice.
      return entry.setup_sent ? std::max(options_.load_timeout, options_.hang_timeout)
                              : absl::InfiniteDuration();
    default:
      return options_.hang_timeout;
  }
}

void LocalGroup::Advance(absl::Duration monotonic_now) {
  std::map<ShardKey, bool> loading;
  for (auto& [rank, entry] : ranks_) {
    if (entry.report.phase() == tundra::v1::LOST) continue;
    const ShardKey key = KeyOf(rank);
    const bool stored = shards_->contains(key);
    // Replicas of a slice wait for the one that reads it, and share its memory.
    if (!entry.setup_sent && (stored || !loading[key])) SendSetup(rank, entry);
    loading[key] = true;
    if (monotonic_now - entry.last_sign > PatienceWith(entry)) {
      MarkLost(entry, absl::StrCat("no sign of life for ",
                                   absl::FormatDuration(monotonic_now - entry.last_sign)));
      entry.process->Kill();
      options_.on_hang();
    }
  }
  if (peers_sent_) return;
  for (const auto& member : assignment_.members()) {
    if (member.rendezvous().empty()) return;
  }
  for (const auto& [rank, entry] : ranks_) {
    if (entry.report.phase() != tundra::v1::AWAITING_PEERS) return;
  }
  SendPeers();
}

void LocalGroup::SendToAll(const ToRank& message) {
  for (auto& [rank, entry] : ranks_) {
    if (entry.process == nullptr) continue;
    const absl::Status status = entry.process->Send(message);
    if (!status.ok()) LogDebug("rank {}: {}", rank, status.ToString());
  }
}

bool LocalGroup::SendToLeader(const ToRank& message) {
  const auto it = ranks_.find(0);
  return it != ranks_.end() && it->second.process != nullptr &&
         it->second.process->Send(message).ok();
}

int LocalGroup::ready_ranks() const {
  return static_cast<int>(std::count_if(ranks_.begin(), ranks_.end(), [](const auto& item) {
    return item.second.report.phase() == tundra::v1::READY;
  }));
}

bool LocalGroup::ready() const { return ready_ranks() == static_cast<int>(ranks_.size()); }

bool LocalGroup::UsesDevice(int device_index) const {
  return std::any_of(ranks_.begin(), ranks_.end(),
                     [&](const auto& item) { return item.second.device_index == device_index; });
}

tundra::v1::GroupReport LocalGroup::Report() const {
  tundra::v1::GroupReport report;
  report.set_group_id(id());
  report.set_epoch(epoch());
  for (const auto& [rank, entry] : ranks_) *report.add_ranks() = entry.report;
  return report;
}

}  // namespace tundra::worker
