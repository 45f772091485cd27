// For tests: a whole group of ranks in one process, a thread each.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "common/check.h"
#include "common/sha256.h"
#include "common/status.h"
#include "worker/collective/collective_local.h"
#include "worker/device/device_cpu.h"
#include "worker/model/model_test_util.h"
#include "worker/ops/cpu_ops.h"
#include "worker/train/gather.h"
#include "worker/train/trainer.h"

namespace tundra {

struct TestGroupOptions {
  std::string base_dir;
  int ranks = 1;
  // 1, or as many as ranks.
  int shards = 1;
  int threads = 1;
  bool network = false;
  uint64_t activation_budget_bytes = 0;
  std::optional<Recompute> force_recompute = std::nullopt;
  // Devices whose memory the trainer may not touch but through them, as a GPU's.
  bool apart = false;
  std::function<void()> progress = [] {};
  TrainSpec spec = {};
  const std::vector<OwnedRow>* train = nullptr;
  const std::vector<OwnedRow>* validation = nullptr;
};

// A CPU that says it is none, so that all goes through copies.
class DeviceApart : public CpuDevice {
 public:
  using CpuDevice::CpuDevice;
  DeviceKind kind() const override { return DeviceKind::kCuda; }
};

// One rank: its device, its weights, its collective, its trainer.
struct TestRank {
  std::unique_ptr<Device> device, prefetch_device;
  std::unique_ptr<Ops> ops, prefetch_ops;
  std::vector<ResidentShard> shards;  // those this rank loaded: its own
  std::unique_ptr<Collective> collective;
  std::unique_ptr<WeightSource> weights;
  std::unique_ptr<Trainer> trainer;
};

class TestGroup {
 public:
  explicit TestGroup(const TestGroupOptions& options) : options_(options) {}

  // Loads shards and connects.
  absl::Status Start() {
    ASSIGN_OR_RETURN(config_, ReadModelConfig(options_.base_dir));
    ASSIGN_OR_RETURN(const BaseFiles files, BaseFiles::Open(options_.base_dir));
    ASSIGN_OR_RETURN(ShardPlan plan, ShardPlan::Make(config_, files, options_.shards));
    plan_ = std::make_unique<ShardPlan>(std::move(plan));
    local_ = std::make_unique<LocalGroup>(options_.ranks);
    ranks_.resize(static_cast<size_t>(options_.ranks));
    std::vector<std::unique_ptr<CollectiveBootstrap>> bootstraps;
    std::vector<std::string> addresses;
    for (int r = 0; r < options_.ranks; ++r) {
      TestRank& rank = ranks_[static_cast<size_t>(r)];
      const int shard = options_.shards == 1 ? 0 : r;
      ASSIGN_OR_RETURN(ResidentShard resident, ResidentShard::Load(*plan_, files, shard));
      rank.shards.push_back(std::move(resident));
      ASSIGN_OR_RETURN(bootstraps.emplace_back(), local_->Bootstrap(r));
      addresses.push_back(bootstraps.back()->local_address());
    }
    return OnAll([&](int r, TestRank& rank) -> absl::Status {
      ASSIGN_OR_RETURN(rank.collective,
                       bootstraps[static_cast<size_t>(r)]->Connect(addresses, absl::Seconds(30)));
      return Make(r, rank);
    });
  }

  // Runs f on every rank at once, a thread each; the first error, if any.
  absl::Status OnAll(const std::function<absl::Status(int, TestRank&)>& f) {
    std::vector<absl::Status> statuses(ranks_.size());
    std::vector<std::thread> threads;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      threads.emplace_back([&, r] {
        statuses[r] = f(static_cast<int>(r), ranks_[r]);
        if (!statuses[r].ok() && ranks_[r].collective != nullptr) {
          ranks_[r].collective->Abort(std::string(statuses[r].message()));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& status : statuses) {
      if (!status.ok() && !absl::IsUnavailable(status)) return status;
    }
    for (const absl::Status& status : statuses) RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }

  // Steps until done, or `steps` of them; metrics of rank 0.
  absl::StatusOr<std::vector<StepMetrics>> Run(int64_t steps = -1) {
    std::vector<StepMetrics> metrics;
    RETURN_IF_ERROR(OnAll([&](int r, TestRank& rank) -> absl::Status {
      for (int64_t i = 0; i != steps && !rank.trainer->done(); ++i) {
        ASSIGN_OR_RETURN(const StepMetrics step, rank.trainer->RunStep());
        if (r == 0) metrics.push_back(step);
      }
      return absl::OkStatus();
    }));
    return metrics;
  }

  // SHA-256 of every rank's adapter file, which must be one.
  std::string AdapterHash() {
    std::string hash;
    for (TestRank& rank : ranks_) {
      const absl::StatusOr<AdapterFiles> adapter = rank.trainer->Adapter();
      TUNDRA_CHECK(adapter.ok()) << adapter.status().ToString();
      const std::string own = Sha256Hex(adapter->model);
      TUNDRA_CHECK(hash.empty() || own == hash) << "ranks disagree";
      hash = own;
    }
    return hash;
  }

  // A rank's whole state, and its hash.
  const JobState& state(int r) {
    const absl::StatusOr<const JobState*> state = rank(r).trainer->State();
    TUNDRA_CHECK(state.ok()) << state.status().ToString();
    return **state;
  }
  std::string StateHash(int r) {
    return Sha256Hex(EncodeCheckpoint(rank(r).trainer->layout(), state(r)));
  }

  TestRank& rank(int r) { return ranks_[static_cast<size_t>(r)]; }
  LocalGroup& local() { return *local_; }
  const ModelConfig& config() const { return config_; }
  const ShardPlan& plan() const { return *plan_; }

 private:
  absl::Status Make(int r, TestRank& rank) {
    ASSIGN_OR_RETURN(rank.device, CreateCpuDevice({.threads = options_.threads, .max_isa = ""}));
    ASSIGN_OR_RETURN(rank.prefetch_device, CreateCpuDevice({.threads = 1, .max_isa = ""}));
    ASSIGN_OR_RETURN(rank.ops, CreateCpuOps(rank.device.get()));
    if (options_.apart) {
      const CpuIsa isa = static_cast<CpuDevice*>(rank.device.get())->isa();
      rank.ops = nullptr;
      auto apart = std::make_unique<DeviceApart>(options_.threads, isa);
      rank.ops = std::make_unique<CpuOps>(apart.get(), ProductBackend::kAuto);
      rank.device = std::move(apart);
    }
    ASSIGN_OR_RETURN(rank.prefetch_ops, CreateCpuOps(rank.prefetch_device.get()));
    WeightSourceOptions source;
    source.precision = options_.spec.precision;
    if (options_.network) {
      source.gather = GatherOver(rank.collective.get(), absl::Seconds(60));
      source.shard_fds = {rank.shards[0].fd()};
    } else if (options_.shards == 1) {
      source.shard_fds = {rank.shards[0].fd()};
    } else {
      for (TestRank& other : ranks_) source.shard_fds.push_back(other.shards[0].fd());
    }
    ASSIGN_OR_RETURN(rank.weights, WeightSource::Create(*plan_, rank.prefetch_ops.get(), source));
    TrainerOptions trainer;
    trainer.config = config_;
    trainer.base_hash = std::string(64, 'b');
    trainer.base_name = "tiny/base";
    trainer.ops = rank.ops.get();
    trainer.weights = rank.weights.get();
    trainer.collective = rank.collective.get();
    trainer.activation_budget_bytes = options_.activation_budget_bytes;
    trainer.force_recompute = options_.force_recompute;
    trainer.progress = options_.progress;
    ASSIGN_OR_RETURN(rank.trainer, Trainer::Create(trainer, options_.spec, ViewsOf(*options_.train),
                                                   options_.validation == nullptr
                                                       ? std::vector<RowView>()
                                                       : ViewsOf(*options_.validation)));
    (void)r;
    return absl::OkStatus();
  }

  const TestGroupOptions options_;
  ModelConfig config_;
  std::unique_ptr<ShardPlan> plan_;
  std::unique_ptr<LocalGroup> local_;
  std::vector<TestRank> ranks_;
};

}  // namespace tundra
