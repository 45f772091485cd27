#include "worker/train/data_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "common/status_test_util.h"

namespace tundra {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;

std::vector<int32_t> RandomLengths(int n, int32_t most, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> lengths(static_cast<size_t>(n));
  for (int32_t& length : lengths) length = 1 + static_cast<int32_t>(random() % most);
  return lengths;
}

std::unique_ptr<DataPlan> Plan(std::vector<int32_t> lengths, const DataPlanOptions& options) {
  auto plan = DataPlan::Create(std::move(lengths), options);
  EXPECT_THAT(plan, testing::IsOk());
  return plan.ok() ? *std::move(plan) : nullptr;
}

void CheckMicroBatch(const MicroBatch& batch, const std::vector<int32_t>& lengths,
                     const DataPlanOptions& options) {
  ASSERT_FALSE(batch.rows.empty());
  ASSERT_EQ(batch.offsets.size(), batch.rows.size() + 1);
  int64_t tokens = 0, longest = 0;
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    EXPECT_EQ(batch.offsets[i], tokens);
    const int32_t length = lengths[static_cast<size_t>(batch.rows[i])];
    tokens += length;
    longest = std::max<int64_t>(longest, length);
  }
  EXPECT_EQ(batch.offsets.back(), tokens);
  EXPECT_EQ(batch.tokens, tokens);
  EXPECT_EQ(batch.padded_tokens % kTokenMultiple, 0);
  EXPECT_GE(batch.padded_tokens, tokens);
  EXPECT_LT(batch.padded_tokens, tokens + kTokenMultiple);
  EXPECT_LE(options.packing ? tokens : longest * static_cast<int64_t>(batch.rows.size()),
            options.micro_batch_tokens);
}

TEST(DataPlanTest, EveryEpochHasEveryRowOnceInLegalMicroBatches) {
  for (const bool packing : {true, false}) {
    for (const int rows : {1, 2, 16, 101}) {
      const std::vector<int32_t> lengths = RandomLengths(rows, 300, 7);
      const DataPlanOptions options{
          .batch_size = 16, .micro_batch_tokens = 700, .packing = packing, .epochs = 3, .seed = 17};
      const auto plan = Plan(lengths, options);
      ASSERT_NE(plan, nullptr);
      EXPECT_EQ(plan->steps_per_epoch(), (rows + 15) / 16);
      EXPECT_EQ(plan->total_steps(), 3 * plan->steps_per_epoch());
      for (int64_t epoch = 0; epoch < 3; ++epoch) {
        std::multiset<int64_t> seen;
        for (int64_t i = 0; i < plan->steps_per_epoch(); ++i) {
          const StepPlan step = plan->Step(epoch * plan->steps_per_epoch() + i);
          EXPECT_EQ(step.epoch, epoch);
          const bool last = i + 1 == plan->steps_per_epoch();
          EXPECT_EQ(step.rows, last ? rows - 16 * i : 16);
          int64_t in_batches = 0;
          for (const MicroBatch& batch : step.micro_batches) {
            CheckMicroBatch(batch, lengths, options);
            seen.insert(batch.rows.begin(), batch.rows.end());
            in_batches += static_cast<int64_t>(batch.rows.size());
          }
          EXPECT_EQ(in_batches, step.rows);
        }
        EXPECT_EQ(seen.size(), static_cast<size_t>(rows));
        EXPECT_EQ(std::set<int64_t>(seen.begin(), seen.end()).size(), static_cast<size_t>(rows));
      }
    }
  }
}

bool Same(const StepPlan& a, const StepPlan& b) {
  if (a.step != b.step || a.epoch != b.epoch || a.rows != b.rows ||
      a.micro_batches.size() != b.micro_batches.size()) {
    return false;
  }
  for (size_t i = 0; i < a.micro_batches.size(); ++i) {
    if (a.micro_batches[i].rows != b.micro_batches[i].rows ||
        a.micro_batches[i].offsets != b.micro_batches[i].offsets) {
      return false;
    }
  }
  return true;
}

TEST(DataPlanTest, StepsAreTheSameInAnyOrderOfAsking) {
  const DataPlanOptions options{
      .batch_size = 7, .micro_batch_tokens = 400, .epochs = 4, .seed = 99};
  const auto forwards = Plan(RandomLengths(50, 200, 1), options);
  const auto jumps = Plan(RandomLengths(50, 200, 1), options);
  std::vector<StepPlan> steps;
  for (int64_t i = 0; i < forwards->total_steps(); ++i) steps.push_back(forwards->Step(i));
  std::vector<int64_t> order(steps.size());
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 random(2);
  std::shuffle(order.begin(), order.end(), random);
  for (const int64_t i : order) EXPECT_TRUE(Same(jumps->Step(i), steps[static_cast<size_t>(i)]));
}

TEST(DataPlanTest, PackingMovesNoRowToAnotherStep) {
  DataPlanOptions options{.batch_size = 9, .micro_batch_tokens = 500, .epochs = 2, .seed = 3};
  const std::vector<int32_t> lengths = RandomLengths(64, 250, 4);
  const auto packed = Plan(lengths, options);
  options.packing = false;
  const auto plain = Plan(lengths, options);
  ASSERT_EQ(packed->total_steps(), plain->total_steps());
  for (int64_t i = 0; i < packed->total_steps(); ++i) {
    std::set<int64_t> a, b;
    for (const MicroBatch& m : packed->Step(i).micro_batches)
      a.insert(m.rows.begin(), m.rows.end());
    for (const MicroBatch& m : plain->Step(i).micro_batches) b.insert(m.rows.begin(), m.rows.end());
    EXPECT_EQ(a, b);
    EXPECT_LE(packed->Step(i).micro_batches.size(), plain->Step(i).micro_batches.size());
  }
}

// First-fit decreasing as in the textbook, quadratic.
std::vector<std::vector<int64_t>> TextbookFfd(std::vector<int64_t> rows,
                                              const std::vector<int32_t>& lengths,
                                              int64_t capacity) {
  std::stable_sort(rows.begin(), rows.end(), [&](int64_t a, int64_t b) {
    return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
  });
  std::vector<std::vector<int64_t>> bins;
  std::vector<int64_t> used;
  for (const int64_t row : rows) {
    size_t bin = 0;
    while (bin < bins.size() && used[bin] + lengths[static_cast<size_t>(row)] > capacity) ++bin;
    if (bin == bins.size()) {
      bins.emplace_back();
      used.push_back(0);
    }
    bins[bin].push_back(row);
    used[bin] += lengths[static_cast<size_t>(row)];
  }
  return bins;
}

TEST(DataPlanTest, PacksFirstFitDecreasing) {
  for (int trial = 0; trial < 50; ++trial) {
    const int rows = 1 + trial * 3;
    const std::vector<int32_t> lengths = RandomLengths(rows, 100, static_cast<uint32_t>(trial));
    const auto plan = Plan(lengths, {.batch_size = rows,
                                     .micro_batch_tokens = 100 + trial,
                                     .epochs = 1,
                                     .seed = static_cast<uint64_t>(trial)});
    const auto bins =
        TextbookFfd(EpochOrder(rows, static_cast<uint64_t>(trial), 0), lengths, 100 + trial);
    const StepPlan step = plan->Step(0);
    ASSERT_EQ(step.micro_batches.size(), bins.size());
    for (size_t i = 0; i < bins.size(); ++i) EXPECT_EQ(step.micro_batches[i].rows, bins[i]);
  }
}

TEST(DataPlanTest, WithoutPackingRowsKeepTheOrderOfTheStep) {
  const std::vector<int32_t> lengths = RandomLengths(30, 100, 8);
  const auto plan =
      Plan(lengths,
           {.batch_size = 30, .micro_batch_tokens = 250, .packing = false, .epochs = 1, .seed = 5});
  std::vector<int64_t> rows;
  for (const MicroBatch& batch : plan->Step(0).micro_batches) {
    rows.insert(rows.end(), batch.rows.begin(), batch.rows.end());
  }
  EXPECT_EQ(rows, EpochOrder(30, 5, 0));
}

TEST(DataPlanTest, MaxStepsRunsOnThroughEpochs) {
  const auto plan =
      Plan(RandomLengths(10, 50, 1), {.batch_size = 4, .micro_batch_tokens = 64, .max_steps = 11});
  EXPECT_EQ(plan->total_steps(), 11);
  EXPECT_EQ(plan->Step(10).epoch, 3);
  EXPECT_EQ(plan->Step(2).rows, 2);
}

TEST(EpochOrderTest, IsAPermutationThatDependsOnSeedAndEpoch) {
  std::set<std::vector<int64_t>> orders;
  for (uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32, ~uint64_t{0}}) {
    for (uint64_t epoch : {0, 1, 2}) {
      std::vector<int64_t> order = EpochOrder(100, seed, epoch);
      orders.insert(order);
      EXPECT_EQ(order, EpochOrder(100, seed, epoch));
      std::sort(order.begin(), order.end());
      for (int64_t i = 0; i < 100; ++i) ASSERT_EQ(order[static_cast<size_t>(i)], i);
    }
  }
  EXPECT_EQ(orders.size(), 12u);
}

// The order is part of what a job's bytes follow from, so it may never change. The
// numbers come from a second implementation of the same rule.
TEST(EpochOrderTest, IsFixedForEver) {
  EXPECT_THAT(EpochOrder(10, 17, 0), ElementsAre(7, 1, 0, 4, 9, 6, 3, 8, 2, 5));
  EXPECT_THAT(EpochOrder(10, (uint64_t{1} << 33) + 17, (uint64_t{1} << 32) + 5),
              ElementsAre(8, 9, 3, 6, 2, 4, 7, 0, 1, 5));
}

TEST(EpochOrderTest, IsUniform) {
  // Where row 0 lands over 24,000 shuffles of 6 rows: 4,000 at each place, sigma 58.
  std::vector<int> count(6);
  for (uint64_t epoch = 0; epoch < 24'000; ++epoch) {
    const std::vector<int64_t> order = EpochOrder(6, 1234, epoch);
    count[static_cast<size_t>(std::find(order.begin(), order.end(), 0) - order.begin())]++;
  }
  for (const int n : count) EXPECT_NEAR(n, 4000, 5 * 58);
}

TEST(DataPlanTest, BadInputIsNamed) {
  const auto error = [](std::vector<int32_t> lengths, const DataPlanOptions& options) {
    return DataPlan::Create(std::move(lengths), options).status();
  };
  const auto invalid = [](const char* text) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text));
  };
  const DataPlanOptions good{.batch_size = 1, .micro_batch_tokens = 10, .epochs = 1};
  TUNDRA_EXPECT_OK(error({10}, good));
  EXPECT_THAT(error({}, good), invalid("no rows"));
  EXPECT_THAT(error({1, 0}, good), invalid("row 1 has 0 tokens"));
  EXPECT_THAT(error({1, 11}, good), invalid("row 1 has 11 tokens"));
  DataPlanOptions bad = good;
  bad.batch_size = 0;
  EXPECT_THAT(error({1}, bad), invalid("batch_size"));
  bad = good;
  bad.micro_batch_tokens = 0;
  EXPECT_THAT(error({1}, bad), invalid("micro_batch_tokens"));
  bad.micro_batch_tokens = int64_t{1} << 40;
  EXPECT_THAT(error({1}, bad), invalid("micro_batch_tokens"));
  bad = good;
  bad.max_steps = 5;
  EXPECT_THAT(error({1}, bad), invalid("either epochs"));
  bad.epochs = 0;
  bad.max_steps = 0;
  EXPECT_THAT(error({1}, bad), invalid("either epochs"));
  bad.epochs = -1;
  EXPECT_THAT(error({1}, bad), invalid("either epochs"));
  bad.epochs = INT64_MAX;
  EXPECT_THAT(error({1, 1}, bad), invalid("too many steps"));
}

TEST(ValidationPlanTest, HoldsAllRowsInOrder) {
  for (const bool packing : {true, false}) {
    const std::vector<int32_t> lengths = RandomLengths(77, 120, 9);
    auto plan = ValidationPlan(lengths, 300, packing);
    TUNDRA_ASSERT_OK(plan);
    std::vector<int64_t> rows;
    for (const MicroBatch& batch : *plan) {
      CheckMicroBatch(batch, lengths, {.micro_batch_tokens = 300, .packing = packing});
      rows.insert(rows.end(), batch.rows.begin(), batch.rows.end());
    }
    ASSERT_EQ(rows.size(), lengths.size());
    EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end()));
  }
  EXPECT_THAT(ValidationPlan({}, 300, true),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no rows")));
}

TEST(RankShareTest, SharesAreDisjointCompleteAndEven) {
  for (int64_t m = 0; m <= 40; ++m) {
    for (int ranks = 1; ranks <= 9; ++ranks) {
      int64_t next = 0, least = m + 1, most = 0;
      for (int r = 0; r < ranks; ++r) {
        const MicroBatchRange share = RankShare(m, r, ranks);
        EXPECT_EQ(share.begin, next);
        next = share.end;
        least = std::min(least, share.end - share.begin);
        most = std::max(most, share.end - share.begin);
      }
      EXPECT_EQ(next, m);
      EXPECT_LE(most - least, 1);
    }
  }
}

}  // namespace
}  // namespace tundra
