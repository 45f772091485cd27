#include "worker/rank_base.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/logging.h"
#include "common/sha256.h"
#include "common/status.h"
#include "worker/collective/collective_gloo.h"
#include "worker/collective/collective_nccl.h"
#include "worker/device/cuda_backend.h"
#include "worker/model/base_files.h"
#include "worker/train/gather.h"

namespace tundra::worker {

absl::StatusOr<std::unique_ptr<RankBase>> RankBase::Load(RankSetup setup, std::vector<Fd> fds) {
  std::unique_ptr<RankBase> base(new RankBase(std::move(setup)));
  const RankSetup& s = base->setup_;
  ASSIGN_OR_RETURN(base->device_, OpenDevice(s.device_kind(), s.device_ordinal(), s.threads()));
  ASSIGN_OR_RETURN(base->config_, ReadModelConfig(base->setup_.base_dir()));
  RETURN_IF_ERROR(base->LoadShard(std::move(fds)));
  ASSIGN_OR_RETURN(base->text_, BaseText::FromFolder(base->setup_.base_dir()));
  RETURN_IF_ERROR(base->OpenRendezvous());
  return base;
}

absl::Status RankBase::LoadShard(std::vector<Fd> fds) {
  ASSIGN_OR_RETURN(const BaseFiles files, BaseFiles::Open(setup_.base_dir()));
  ASSIGN_OR_RETURN(ShardPlan plan, ShardPlan::Make(config_, files, setup_.shards()));
  plan_ = std::make_unique<ShardPlan>(std::move(plan));
  if (!fds.empty()) {
    given_ = std::move(fds[0]);
    shard_hash_ = setup_.shard_hash();
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(ResidentShard shard,
                   ResidentShard::Load(*plan_, files, setup_.rank() % setup_.shards()));
  loaded_ = std::move(shard);
  ASSIGN_OR_RETURN(shard_hash_, loaded_->Hash());
  return absl::OkStatus();
}

// `channel`: the one whose calls are on device memory.
absl::StatusOr<std::unique_ptr<CollectiveBootstrap>> RankBase::Bootstrap(int rank, int size,
                                                                         Channel channel) const {
  if (setup_.collective() != "nccl") {
    GlooOptions options;
    options.hostname = setup_.collective_host();
    options.rank = rank;
    options.size = size;
    return NewGlooBootstrap(options);
  }
  ASSIGN_OR_RETURN(const CudaBackendTable* backend, OpenCudaBackend());
  NcclOptions options;
  ASSIGN_OR_RETURN(options.api, backend->open_nccl(setup_.collective_host()));
  options.rank = rank;
  options.size = size;
  options.device = setup_.device_ordinal();
  options.hostname = setup_.collective_host();
  options.device_channels = {};
  options.device_channels[static_cast<size_t>(channel)] = true;
  options.on_wedged = [](const std::string& reason) {
    // Nothing but the end of the process frees the device; the supervisor starts another.
    LogError("NCCL doesn't let go of the device: {}", reason);
    ::_exit(1);
  };
  return NewNcclBootstrap(options);
}

// Ranks [k · shards, (k + 1) · shards) are replica k; its shards gather among themselves. The two
// groups never have work on the device at once, so neither can stand in the other's way: the
// gathers of a pass have ended before the step's sum is asked for, on every rank, since a sum is
// not launched before all ranks have come to it.
absl::Status RankBase::OpenRendezvous() {
  const int shards = setup_.shards();
  ASSIGN_OR_RETURN(world_bootstrap_, Bootstrap(setup_.rank(), setup_.size(), Channel::kCompute));
  if (shards == 1) return absl::OkStatus();
  ASSIGN_OR_RETURN(gather_bootstrap_, Bootstrap(setup_.rank() % shards, shards, Channel::kGather));
  return absl::OkStatus();
}

std::string RankBase::rendezvous() const {
  RankRendezvous rendezvous;
  rendezvous.set_world(world_bootstrap_->local_address());
  if (gather_bootstrap_ != nullptr) rendezvous.set_gather(gather_bootstrap_->local_address());
  return rendezvous.SerializeAsString();
}

absl::Status RankBase::Connect(const GroupPeers& peers, std::vector<Fd> shards) {
  std::vector<std::string> world;
  std::vector<std::string> gather;
  const int first = setup_.rank() / setup_.shards() * setup_.shards();
  for (int rank = 0; rank < peers.rendezvous_size(); ++rank) {
    RankRendezvous rendezvous;
    if (!rendezvous.ParseFromString(peers.rendezvous(rank))) {
      return absl::InternalError(absl::StrCat("the address of rank ", rank, " is damaged"));
    }
    world.push_back(rendezvous.world());
    if (rank >= first && rank < first + setup_.shards()) gather.push_back(rendezvous.gather());
  }
  ASSIGN_OR_RETURN(world_, world_bootstrap_->Connect(world, timeout()));
  WeightSourceOptions options;
  options.precision = precision();
  const bool mapped =
      peers.mapped() && (!peers.prefer_gather() || setup_.shards() == 1 || plan_->has_half());
  if (mapped) {
    for (const Fd& fd : shards) options.shard_fds.push_back(fd.get());
  } else {
    options.shard_fds.push_back(loaded_.has_value() ? loaded_->fd() : given_.get());
  }
  if (!mapped && setup_.shards() > 1) {
    ASSIGN_OR_RETURN(gather_, gather_bootstrap_->Connect(gather, timeout()));
    options.gather = GatherOver(gather_.get(), timeout());
    options.gather_on_device = gather_->memory_space() == MemorySpace::kDevice;
  }
  ASSIGN_OR_RETURN(weights_, WeightSource::Create(*plan_, ops(), std::move(options)));
  return absl::OkStatus();
}

Precision RankBase::precision() const {
  return setup_.precision() == tundra::v1::BF16 ? Precision::kBF16 : Precision::kF32;
}

absl::Duration RankBase::timeout() const {
  return absl::Milliseconds(std::max<int64_t>(1, setup_.collective_timeout_ms()));
}

tundra::v1::RankReport RankBase::Report() const {
  tundra::v1::RankReport report;
  report.set_shard_hash(shard_hash_);
  report.set_resident_shard_bytes(static_cast<int64_t>(plan_->shard_bytes()));
  if (weights_ != nullptr) {
    const WeightStats stats = weights_->stats();
    report.set_gathered_buffer_bytes(static_cast<int64_t>(stats.gathered_buffer_bytes));
    report.set_prepared_bytes(static_cast<int64_t>(stats.prepared_bytes));
  }
  return report;
}

absl::Status RankBase::VerifyShard() const {
  const int fd = loaded_.has_value() ? loaded_->fd() : given_.get();
  ASSIGN_OR_RETURN(const MappedShard mapped, MappedShard::Map(fd, plan_->shard_bytes()));
  const auto bytes = mapped.bytes();
  const std::string hash = Sha256Hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (hash == shard_hash_) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the resident shard of base ", setup_.base_hash(),
                                          " changed: its hash was ", shard_hash_, " and is ",
                                          hash));
}

}  // namespace tundra::worker
