// Where a pass gets the base's weights from: unit by unit, in an order told
// beforehand, so that the next one is made ready while one is computed with.
//
// Making ready means bringing a unit's bytes to the device where they aren't there
// already (unit_bytes.h), into two alternating buffers. It also means laying matrices out for the
// products (PrepareWeight), in two alternating buffers of its own; where the base is not sharded
// the laid-out weights are kept for good. A thread does both, one unit ahead of the consumer:
//
//   source.BeginPass({{0}, {1, .forward = true}, …}, stream);
//   for each use: ASSIGN_OR_RETURN(const UnitView* unit, source.Next());  … compute …
//   source.EndPass();
//
// All ranks of a network source must begin the same passes in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/device/arena.h"
#include "worker/model/shard_plan.h"
#include "worker/model/unit_bytes.h"
#include "worker/ops/ops.h"

namespace tundra {

// One use of a unit in a pass, and what its matrices are multiplied in.
struct UnitUse {
  int unit = 0;
  bool forward = false;
  bool backward = false;
};

// A unit's weights as operations take them. Valid until the next Next or EndPass.
struct UnitView {
  // By place in the unit (LayerTensor, …): as stored, or widened to f32 where the
  // base is f16. Vectors are 1 x n.
  std::vector<ConstView> tensors;
  // Of matrices, for the directions the use asked for; else plain.
  std::vector<FrozenWeight> forward;
  std::vector<FrozenWeight> backward;
};

struct WeightStats {
  // What this rank keeps of the base.
  uint64_t resident_shard_bytes = 0;
  // Buffers that hold gathered units, and laid-out weights: kept apart from the above.
  uint64_t gathered_buffer_bytes = 0;
  uint64_t prepared_bytes = 0;
  // Since creation: bytes received from other ranks, time spent receiving, laying
  // out, and time the consumer waited.
  uint64_t gather_bytes = 0;
  double gather_seconds = 0;
  double prepare_seconds = 0;
  double wait_seconds = 0;
};

struct WeightSourceOptions {
  Precision precision = Precision::kF32;
  // As in UnitBytesOptions. The gather is called by the source's thread.
  std::vector<int> shard_fds;
  ShardGather gather;
  bool gather_on_device = false;
  // Keeps laid-out weights; default: when the base is not sharded.
  bool keep_prepared = false;
};

// Used by one thread; its own thread runs ahead.
class WeightSource {
 public:
  // `ops` is used by the source's own thread, with a stream of its own; a CPU
  // device of few threads disturbs the computation least. Outlives the source.
  // Errors: kInvalidArgument when the memories don't fit the plan.
  static absl::StatusOr<std::unique_ptr<WeightSource>> Create(const ShardPlan& plan, Ops* ops,
                                                              WeightSourceOptions options);
  ~WeightSource();
  WeightSource(const WeightSource&) = delete;

  const ShardPlan& plan() const { return plan_; }

  // Starts making the first units ready. A pass must not be running. `consumer` is the stream
  // on which units are read; it outlives the pass.
  absl::Status BeginPass(std::vector<UnitUse> uses, Stream* consumer);
  // The next use's unit; the one before is given back: it stays as it is for what the consumer's
  // stream holds now. Errors: those of the collective and of memory; then only EndPass may follow.
  absl::StatusOr<const UnitView*> Next();
  // Ends the pass, also one that broke off (waits for a running gather to end, which
  // its timeout bounds).
  void EndPass();

  WeightStats stats() const;
  // Where a unit lies in memory, for the test that writes to it. Mapped sources only.
  const std::byte* ResidentAddress(int unit) const;

 private:
  struct Slot {
    Buffer gathered;
    Buffer prepared;
    UnitView view;
  };
  using PreparedKey = std::tuple<int, int, Direction>;

  WeightSource(const ShardPlan& plan, Ops* ops, WeightSourceOptions options);
  absl::Status Init();
  size_t LargestScratchBytes() const;
  void Run();
  // True when a use needs neither a gather nor laying out, so that no thread is needed.
  bool IsReady(const UnitUse& use) const;
  bool WantsPrepared(const UnitUse& use, int tensor, Direction direction) const;
  PreparedKey KeyOf(const UnitUse& use, int tensor, Direction direction) const;
  uint64_t PreparedBytes(const UnitUse& use) const;
  absl::Status Fill(const UnitUse& use, Slot& slot);
  absl::Status GiveBack(int held);
  absl::Status Prepare(const UnitUse& use, const UnitBytes::Unit& bytes, Slot& slot);
  absl::StatusOr<FrozenWeight> PrepareOne(const UnitUse& use, int tensor, Direction direction,
                                          ConstView plain, Buffer& storage, uint64_t* used);
  absl::StatusOr<ConstView> PlainView(const UnitUse& use, int tensor, const UnitBytes::Unit& bytes,
                                      Buffer& storage, uint64_t* used);
  absl::Status Grow(Buffer& buffer, uint64_t bytes, uint64_t WeightStats::*counter);

  const ShardPlan plan_;
  Ops* const ops_;
  const WeightSourceOptions options_;
  bool keep_ = false;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Arena> scratch_;
  std::unique_ptr<UnitBytes> bytes_;
  // What the consumer had put on its stream when it gave the slot's unit back. Of its own,
  // since a stream is one thread's.
  std::unique_ptr<Stream> given_back_[2];
  Stream* consumer_ = nullptr;  // of the pass
  // Kept weights. Touched by whoever fills: the thread, or Next when no thread is used.
  std::map<PreparedKey, FrozenWeight> kept_;
  std::map<std::pair<int, int>, ConstView> kept_wide_;
  std::vector<Buffer> kept_storage_;
  Slot slots_[2];

  mutable absl::Mutex mu_;
  std::thread thread_;
  std::vector<UnitUse> uses_;  // set while no pass runs, read by both
  bool threaded_ = false;      // of this pass
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  bool active_ ABSL_GUARDED_BY(mu_) = false;
  bool filling_ ABSL_GUARDED_BY(mu_) = false;
  int held_ ABSL_GUARDED_BY(mu_) = -1;
  int filled_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status error_ ABSL_GUARDED_BY(mu_);
  WeightStats stats_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tundra
