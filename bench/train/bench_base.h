// The base that a bench trains on, in memory: a folder's, or a shape's with random
// weights. A shape needs no weight files: its tensors are drawn where a rank would have
// loaded them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "bench/train/model_shapes.h"
#include "common/files.h"
#include "worker/model/config.h"
#include "worker/model/resident_shard.h"
#include "worker/model/shard_plan.h"

namespace tundra::bench {

class BenchBase {
 public:
  // model: the name of a shape, or a base folder (anything with a '/', or a folder that is
  // there). Weights of a shape are a function of (shape, seed); `threads` draw them.
  // Errors: kNotFound, those of the base's files, kResourceExhausted.
  static absl::StatusOr<std::unique_ptr<BenchBase>> Open(const std::string& model, uint64_t seed,
                                                         int threads);

  const std::string& name() const { return name_; }
  bool random_weights() const { return random_; }
  const ModelConfig& config() const { return config_; }
  const ShardPlan& plan() const { return *plan_; }
  // The one shard's memory; owned by the base.
  int shard_fd() const { return loaded_.has_value() ? loaded_->fd() : drawn_.get(); }

 private:
  BenchBase() = default;
  absl::Status Load(const std::string& folder);
  absl::Status Draw(const ModelShape& shape, uint64_t seed, int threads);

  std::string name_;
  bool random_ = false;
  ModelConfig config_;
  std::optional<ShardPlan> plan_;
  std::optional<ResidentShard> loaded_;
  Fd drawn_;
};

}  // namespace tundra::bench
