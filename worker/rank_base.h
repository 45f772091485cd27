// What a rank holds for as long as it lives: its device, its shard of the base,
// the collectives of its group, and the base's text files.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/files.h"
#include "common/text/base_text.h"
#include "worker/collective/collective.h"
#include "worker/device/device.h"
#include "worker/devices.h"
#include "worker/model/config.h"
#include "worker/model/resident_shard.h"
#include "worker/model/shard_plan.h"
#include "worker/model/weights.h"
#include "worker/ops/ops.h"
#include "worker/rank_control.pb.h"

namespace tundra::worker {

// Order of members is order of construction; destruction is the reverse.
class RankBase {
 public:
  // Loads the shard, or takes `fds[0]` when the setup names its hash, and opens
  // the rendezvous.
  static absl::StatusOr<std::unique_ptr<RankBase>> Load(RankSetup setup, std::vector<Fd> fds);

  // Connects the group and opens the weights.
  absl::Status Connect(const GroupPeers& peers, std::vector<Fd> shards);

  const RankSetup& setup() const { return setup_; }
  int rank() const { return setup_.rank(); }
  const ModelConfig& config() const { return config_; }
  Precision precision() const;
  Device* device() const { return device_.device.get(); }
  Ops* ops() const { return device_.ops.get(); }
  WeightSource* weights() const { return weights_.get(); }
  Collective* world() const { return world_.get(); }
  // Of the ranks that gather a base together; null where none is gathered.
  Collective* gather() const { return gather_.get(); }
  const std::shared_ptr<const BaseText>& text() const { return text_; }
  // Weights come over the network: every rank must take part in every pass.
  bool network_gather() const { return gather_ != nullptr; }
  absl::Duration timeout() const;
  // Descriptor of the shard that was loaded here, or -1.
  int loaded_fd() const { return loaded_.has_value() ? loaded_->fd() : -1; }
  std::string rendezvous() const;

  // Sizes of what is held; phase and rendezvous are for the caller.
  tundra::v1::RankReport Report() const;

  // Errors: kDataLoss when the shard's bytes are not those that were loaded.
  absl::Status VerifyShard() const;

 private:
  explicit RankBase(RankSetup setup) : setup_(std::move(setup)) {}
  absl::Status LoadShard(std::vector<Fd> fds);
  absl::StatusOr<std::unique_ptr<CollectiveBootstrap>> Bootstrap(int rank, int size,
                                                                 Channel channel) const;
  absl::Status OpenRendezvous();

  const RankSetup setup_;
  ModelConfig config_;
  OpenedDevice device_;
  std::unique_ptr<ShardPlan> plan_;
  std::shared_ptr<const BaseText> text_;
  std::optional<ResidentShard> loaded_;
  Fd given_;
  std::string shard_hash_;
  std::unique_ptr<CollectiveBootstrap> world_bootstrap_;
  std::unique_ptr<CollectiveBootstrap> gather_bootstrap_;
  std::unique_ptr<Collective> world_;
  std::unique_ptr<Collective> gather_;
  std::unique_ptr<WeightSource> weights_;
};

}  // namespace tundra::worker
