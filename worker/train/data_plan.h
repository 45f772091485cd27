// Which rows of the data set meet in which micro-batch of which step: a pure
// function of the rows' lengths and the job, so that every rank, at any time,
// after any crash, knows the same plan without talking.
//
// - Each epoch takes all rows once, shuffled (Fisher–Yates driven by Philox keyed
//   by seed and epoch). A step is the next batch_size rows of that order; the last
//   step of an epoch may be smaller. Steps never span two epochs.
// - The rows of a step are cut into numbered micro-batches, never over
//   micro_batch_tokens:
//   packing: first-fit decreasing. Rows from the longest (ties: earlier in the
//     step first), each into the first micro-batch that has room.
//   no packing: rows in the order of the step; a micro-batch takes the next row as
//     long as rows × longest row fits, as if each were padded to the longest.
//   Either way the rows of a micro-batch lie end to end, and its end is padded to
//   a multiple of 128 tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace tundra {

inline constexpr int64_t kTokenMultiple = 128;

struct DataPlanOptions {
  int64_t batch_size = 1;          // rows of a step, >= 1
  int64_t micro_batch_tokens = 0;  // >= the longest row
  bool packing = true;
  // Exactly one of the two is > 0.
  int64_t epochs = 0;
  int64_t max_steps = 0;
  uint64_t seed = 0;
};

struct MicroBatch {
  std::vector<int64_t> rows;     // indices into the data set, in the order they lie
  std::vector<int32_t> offsets;  // first token of each row, then the end of the last
  int64_t tokens = 0;            // Σ lengths == offsets.back()
  int64_t padded_tokens = 0;     // tokens, up to a multiple of 128
};

struct StepPlan {
  int64_t step = 0;                       // from 0
  int64_t epoch = 0;                      // from 0
  int64_t rows = 0;                       // in this step
  std::vector<MicroBatch> micro_batches;  // numbered from 0; never empty
};

// Thread-safe. Holds the lengths and one epoch's order (8 bytes a row).
class DataPlan {
 public:
  // lengths[i]: tokens of row i, >= 1.
  // Errors: kInvalidArgument naming the row or option, and what to do.
  static absl::StatusOr<std::unique_ptr<DataPlan>> Create(std::vector<int32_t> lengths,
                                                          const DataPlanOptions& options);

  int64_t total_steps() const { return total_steps_; }
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  int64_t rows() const { return static_cast<int64_t>(lengths_.size()); }

  // 0 <= step < total_steps(). Costs one step's work, and one shuffle when the
  // epoch differs from the last call's.
  StepPlan Step(int64_t step) const;

 private:
  DataPlan(std::vector<int32_t> lengths, const DataPlanOptions& options);

  const std::vector<int32_t> lengths_;
  const DataPlanOptions options_;
  int64_t steps_per_epoch_;
  int64_t total_steps_;
  mutable absl::Mutex mu_;
  mutable int64_t cached_epoch_ ABSL_GUARDED_BY(mu_) = -1;
  mutable std::vector<int64_t> order_ ABSL_GUARDED_BY(mu_);
};

// Every row once, in order, in micro-batches filled one after another by the same
// two rules (packing: while the tokens fit). Errors as DataPlan::Create.
absl::StatusOr<std::vector<MicroBatch>> ValidationPlan(std::span<const int32_t> lengths,
                                                       int64_t micro_batch_tokens, bool packing);

// A permutation of 0 … n−1 for an epoch.
std::vector<int64_t> EpochOrder(int64_t n, uint64_t seed, uint64_t epoch);

// The micro-batches [begin, end) of M that rank r of R computes: contiguous, sizes
// that differ by at most one, together all of them. 0 <= rank < ranks.
struct MicroBatchRange {
  int64_t begin = 0;
  int64_t end = 0;
};
MicroBatchRange RankShare(int64_t micro_batches, int rank, int ranks);

}  // namespace tundra
