#include "worker/train/data_plan.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/philox.h"
#include "common/status.h"

namespace tundra {
namespace {

// 32 random bits after another, of one epoch's shuffle.
class ShuffleBits {
 public:
  ShuffleBits(uint64_t seed, uint64_t epoch) : key_(PhiloxKeyOf(seed)), epoch_(epoch) {}

  uint32_t Next() {
    if (used_ == 4) {
      TUNDRA_CHECK(block_number_ <= UINT32_MAX) << "a shuffle of more than 2^34 numbers";
      block_ = Philox4x32(
          {static_cast<uint32_t>(block_number_++), static_cast<uint32_t>(epoch_),
           static_cast<uint32_t>(epoch_ >> 32), static_cast<uint32_t>(PhiloxUse::kShuffle)},
          key_);
      used_ = 0;
    }
    return block_[used_++];
  }

  // Uniform in [0, n), 1 <= n <= 2^32, by Lemire's multiplication with rejection:
  // without bias, the same on every machine.
  uint64_t Below(uint64_t n) {
    const uint64_t reject_under = (uint64_t{1} << 32) % n;
    while (true) {
      const uint64_t product = uint64_t{Next()} * n;
      if ((product & UINT32_MAX) >= reject_under) return product >> 32;
    }
  }

 private:
  const PhiloxKey key_;
  const uint64_t epoch_;
  uint64_t block_number_ = 0;
  PhiloxBlock block_ = {};
  size_t used_ = 4;
};

absl::Status CheckLengths(std::span<const int32_t> lengths, int64_t micro_batch_tokens) {
  if (lengths.empty()) return absl::InvalidArgumentError("data plan: the data set has no rows");
  if (lengths.size() > UINT32_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("data plan: ", lengths.size(), " rows; at most 4294967295 are possible"));
  }
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("data plan: row ", i, " has ", lengths[i], " tokens; drop empty rows"));
    }
    if (lengths[i] > micro_batch_tokens) {
      return absl::InvalidArgumentError(absl::StrCat(
          "data plan: row ", i, " has ", lengths[i], " tokens, more than micro_batch_tokens (",
          micro_batch_tokens, "); raise micro_batch_tokens or lower max_seq_length"));
    }
  }
  return absl::OkStatus();
}

void Append(MicroBatch& batch, int64_t row, int32_t length) {
  if (batch.offsets.empty()) batch.offsets.push_back(0);
  batch.rows.push_back(row);
  batch.tokens += length;
  batch.offsets.push_back(static_cast<int32_t>(batch.tokens));
  batch.padded_tokens = (batch.tokens + kTokenMultiple - 1) / kTokenMultiple * kTokenMultiple;
}

// First-fit decreasing. A tree of maxima over the micro-batches' room finds the
// first that fits in log time: leaf i is micro-batch i, all of full room at first.
std::vector<MicroBatch> PackFirstFitDecreasing(std::span<const int64_t> rows,
                                               std::span<const int32_t> lengths, int64_t capacity) {
  std::vector<int64_t> order(rows.begin(), rows.end());
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
  });
  size_t leaves = 1;
  while (leaves < order.size()) leaves *= 2;
  std::vector<int64_t> room(2 * leaves, capacity);
  std::vector<MicroBatch> batches;
  for (const int64_t row : order) {
    const int32_t length = lengths[static_cast<size_t>(row)];
    size_t node = 1;
    while (node < leaves) node = room[2 * node] >= length ? 2 * node : 2 * node + 1;
    const size_t batch = node - leaves;
    if (batch == batches.size()) batches.emplace_back();
    Append(batches[batch], row, length);
    room[node] -= length;
    for (node /= 2; node >= 1; node /= 2) room[node] = std::max(room[2 * node], room[2 * node + 1]);
  }
  return batches;
}

// Rows in the order given, each micro-batch filled before the next is begun.
// padded: a row counts as long as the longest of its micro-batch.
std::vector<MicroBatch> FillInOrder(std::span<const int64_t> rows, std::span<const int32_t> lengths,
                                    int64_t capacity, bool padded) {
  std::vector<MicroBatch> batches;
  int64_t longest = 0;
  for (const int64_t row : rows) {
    const int32_t length = lengths[static_cast<size_t>(row)];
    bool fits = false;
    if (!batches.empty()) {
      const MicroBatch& last = batches.back();
      const auto count = static_cast<int64_t>(last.rows.size()) + 1;
      fits = padded ? count * std::max<int64_t>(longest, length) <= capacity
                    : last.tokens + length <= capacity;
    }
    if (!fits) {
      batches.emplace_back();
      longest = 0;
    }
    longest = std::max<int64_t>(longest, length);
    Append(batches.back(), row, length);
  }
  return batches;
}

}  // namespace

std::vector<int64_t> EpochOrder(int64_t n, uint64_t seed, uint64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  ShuffleBits bits(seed, epoch);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[bits.Below(i)]);
  return order;
}

absl::StatusOr<std::unique_ptr<DataPlan>> DataPlan::Create(std::vector<int32_t> lengths,
                                                           const DataPlanOptions& options) {
  if (options.batch_size < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("data plan: batch_size is ", options.batch_size, "; it must be at least 1"));
  }
  if (options.micro_batch_tokens < 1 || options.micro_batch_tokens > INT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("data plan: micro_batch_tokens is ",
                                                   options.micro_batch_tokens,
                                                   "; it must be in 1 … 2147483647"));
  }
  if ((options.epochs > 0) == (options.max_steps > 0) || options.epochs < 0 ||
      options.max_steps < 0) {
    return absl::InvalidArgumentError(absl::StrCat("data plan: give either epochs (",
                                                   options.epochs, ") or max_steps (",
                                                   options.max_steps, "), above 0"));
  }
  RETURN_IF_ERROR(CheckLengths(lengths, options.micro_batch_tokens));
  const auto rows = static_cast<int64_t>(lengths.size());
  const int64_t steps = (rows - 1) / options.batch_size + 1;
  if (options.epochs > INT64_MAX / steps) {
    return absl::InvalidArgumentError(
        absl::StrCat("data plan: epochs is ", options.epochs, "; that is too many steps to count"));
  }
  return std::unique_ptr<DataPlan>(new DataPlan(std::move(lengths), options));
}

DataPlan::DataPlan(std::vector<int32_t> lengths, const DataPlanOptions& options)
    : lengths_(std::move(lengths)), options_(options) {
  steps_per_epoch_ = (rows() - 1) / options_.batch_size + 1;
  total_steps_ = options_.max_steps > 0 ? options_.max_steps : options_.epochs * steps_per_epoch_;
}

StepPlan DataPlan::Step(int64_t step) const {
  TUNDRA_CHECK(step >= 0 && step < total_steps_) << "step " << step << " of " << total_steps_;
  StepPlan plan;
  plan.step = step;
  plan.epoch = step / steps_per_epoch_;
  const int64_t begin = step % steps_per_epoch_ * options_.batch_size;
  const int64_t end = begin + std::min(options_.batch_size, rows() - begin);
  plan.rows = end - begin;
  std::vector<int64_t> rows_of_step;
  {
    absl::MutexLock lock(&mu_);
    if (cached_epoch_ != plan.epoch) {
      order_ = EpochOrder(rows(), options_.seed, static_cast<uint64_t>(plan.epoch));
      cached_epoch_ = plan.epoch;
    }
    rows_of_step.assign(order_.begin() + begin, order_.begin() + end);
  }
  plan.micro_batches =
      options_.packing ? PackFirstFitDecreasing(rows_of_step, lengths_, options_.micro_batch_tokens)
                       : FillInOrder(rows_of_step, lengths_, options_.micro_batch_tokens, true);
  return plan;
}

absl::StatusOr<std::vector<MicroBatch>> ValidationPlan(std::span<const int32_t> lengths,
                                                       int64_t micro_batch_tokens, bool packing) {
  RETURN_IF_ERROR(CheckLengths(lengths, micro_batch_tokens));
  std::vector<int64_t> rows(lengths.size());
  std::iota(rows.begin(), rows.end(), 0);
  return FillInOrder(rows, lengths, micro_batch_tokens, !packing);
}

MicroBatchRange RankShare(int64_t micro_batches, int rank, int ranks) {
  TUNDRA_CHECK(micro_batches >= 0 && ranks >= 1 && rank >= 0 && rank < ranks)
      << "share of rank " << rank << " of " << ranks << " in " << micro_batches;
  const int64_t base = micro_batches / ranks;
  const int64_t rest = micro_batches % ranks;
  const int64_t begin = rank * base + std::min<int64_t>(rank, rest);
  return {begin, begin + base + (rank < rest ? 1 : 0)};
}

}  // namespace tundra
