// Training in one process, each rank a thread: parity with the peer's AdamW steps,
// and the promise that the bytes of the result depend on the job alone.
#include "worker/train/trainer.h"

#include <cmath>
#include <cstdio>
#include <limits>

#include "common/files.h"
#include "common/status_test_util.h"
#include "worker/train/train_test_util.h"

namespace tundra {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

// ---- parity with PEFT and torch.optim.AdamW -------------------------------------------

struct RunCase {
  std::string model;
  std::string run;
};

std::vector<RunCase> Runs() {
  std::vector<RunCase> cases;
  for (const json& model : LoadJson(GoldenDir() + "/index.json")) {
    const std::string name = model["name"];
    const json golden = LoadJson(GoldenDir() + "/" + name + "/golden.json");
    for (const json& run : golden["runs"]) {
      cases.push_back({name, run["name"]});
    }
  }
  return cases;
}

class AdamWParity : public ::testing::TestWithParam<RunCase> {};

TrainSpec SpecOf(const json& run) {
  TrainSpec spec;
  spec.lora.rank = run["rank"];
  spec.lora.alpha = run["alpha"];
  spec.lora.use_rslora = run["use_rslora"];
  spec.lora.target_modules = TargetsOf(run["target_modules"]);
  spec.max_steps = run["total_steps"];
  spec.batch_size = 5;
  spec.micro_batch_tokens = 512;
  spec.max_seq_length = 128;
  spec.learning_rate = run["learning_rate"];
  spec.lr_scheduler = *ParseScheduleKind(run["scheduler"].get<std::string>());
  spec.warmup_steps = run["warmup_steps"];
  spec.adamw.weight_decay = run["weight_decay"];
  spec.max_grad_norm = run["max_grad_norm"];
  return spec;
}

StepPlan PlanOf(const json& step, int64_t index) {
  StepPlan plan;
  plan.step = index;
  for (const json& rows : step["micro_batches"]) {
    plan.micro_batches.emplace_back().rows = rows.get<std::vector<int64_t>>();
    plan.rows += static_cast<int64_t>(rows.size());
  }
  return plan;
}

TEST_P(AdamWParity, EachOfTwentyLossesIsThePeers) {
  const std::string dir = GoldenDir() + "/" + GetParam().model;
  const json golden = LoadJson(dir + "/golden.json");
  json run;
  for (const json& candidate : golden["runs"]) {
    if (candidate["name"] == GetParam().run) run = candidate;
  }
  const std::vector<OwnedRow> rows = GoldenRows(golden);
  TestGroup group({.base_dir = dir + "/base", .spec = SpecOf(run), .train = &rows});
  TUNDRA_ASSERT_OK(group.Start());
  Trainer& trainer = *group.rank(0).trainer;
  TUNDRA_ASSERT_OK_AND_ASSIGN(const LoadedAdapter start,
                              ReadAdapter(dir + "/runs/" + GetParam().run, group.config()));
  JobState state = group.state(0);
  state.weights = start.weights;
  TUNDRA_ASSERT_OK(trainer.Restore(state));
  double loss_error = 0, norm_error = 0;
  int64_t index = 0;
  for (const json& step : run["steps"]) {
    TUNDRA_ASSERT_OK_AND_ASSIGN(const StepMetrics metrics, trainer.RunStep(PlanOf(step, index++)));
    EXPECT_EQ(metrics.target_tokens, step["target_tokens"].get<int64_t>());
    EXPECT_NEAR(metrics.learning_rate, step["learning_rate"].get<double>(), 1e-12);
    loss_error = std::max(loss_error, std::abs(metrics.loss / step["loss"].get<double>() - 1));
    norm_error =
        std::max(norm_error, std::abs(metrics.grad_norm / step["grad_norm"].get<double>() - 1));
  }
  EXPECT_EQ(index, 20);
  EXPECT_LT(loss_error, 1e-4);
  EXPECT_LT(norm_error, 1e-3);
  std::printf("parity %s/%s: 20 losses %.1e, gradient norms %.1e\n", GetParam().model.c_str(),
              GetParam().run.c_str(), loss_error, norm_error);
}

INSTANTIATE_TEST_SUITE_P(Golden, AdamWParity, ::testing::ValuesIn(Runs()),
                         [](const auto& info) { return info.param.model + "_" + info.param.run; });

// ---- same bytes -----------------------------------------------------------------------

class Training : public ::testing::Test {
 protected:
  void SetUp() override {
    const json golden = LoadJson(GoldenDir() + "/gqa_tied_llama3/golden.json");
    rows_ = GoldenRows(golden);
    validation_.assign(rows_.begin(), rows_.begin() + 5);
    options_.base_dir = GoldenDir() + "/gqa_tied_llama3/base";
    options_.train = &rows_;
    options_.validation = &validation_;
    options_.spec.lora.rank = 4;
    options_.spec.lora.alpha = 8;
    options_.spec.epochs = 2;
    options_.spec.batch_size = 5;
    options_.spec.micro_batch_tokens = 128;
    options_.spec.max_seq_length = 128;
    options_.spec.learning_rate = 5e-3;
    options_.spec.seed = 17;
  }

  // The adapter's hash after a whole job.
  std::string HashOf(const TestGroupOptions& options) {
    TestGroup group(options);
    const absl::Status started = group.Start();
    EXPECT_THAT(started, testing::IsOk());
    if (!started.ok()) return "";
    const auto metrics = group.Run();
    EXPECT_THAT(metrics, testing::IsOk());
    return metrics.ok() ? group.AdapterHash() : "";
  }

  TestGroupOptions With(int ranks, int shards, bool network = false) {
    TestGroupOptions options = options_;
    options.ranks = ranks;
    options.shards = shards;
    options.network = network;
    return options;
  }

  std::vector<OwnedRow> rows_, validation_;
  TestGroupOptions options_;
};

TEST_F(Training, AnyRanksShardsAndGathersGiveTheSameBytes) {
  const std::string one = HashOf(With(1, 1));
  EXPECT_EQ(one.size(), 64u);
  for (const bool network : {false, true}) {
    EXPECT_EQ(HashOf(With(2, 2, network)), one) << "(2,2) network " << network;
    EXPECT_EQ(HashOf(With(3, 3, network)), one) << "(3,3) network " << network;
  }
  EXPECT_EQ(HashOf(With(2, 1)), one);
  EXPECT_EQ(HashOf(With(3, 1)), one);
  // More ranks than micro-batches in a step.
  EXPECT_EQ(HashOf(With(6, 6, true)), one);
  TestGroupOptions other = options_;
  other.spec.seed = 18;
  EXPECT_NE(HashOf(other), one);
}

TEST_F(Training, AnyNumberOfThreadsGivesTheSameBytes) {
  const std::string one = HashOf(options_);
  for (const int threads : {2, 4}) {
    TestGroupOptions options = With(2, 2);
    options.threads = threads;
    EXPECT_EQ(HashOf(options), one) << threads;
  }
}

TEST_F(Training, DropoutAndUnpackedRowsKeepTheBytesToo) {
  options_.spec.lora.dropout = 0.1;
  options_.spec.packing = false;
  const std::string one = HashOf(options_);
  EXPECT_EQ(HashOf(With(2, 2)), one);
  EXPECT_EQ(HashOf(With(3, 1)), one);
  options_.spec.lora.dropout = 0.0;
  EXPECT_NE(HashOf(options_), one);
}

TEST_F(Training, ARankAboveEveryDimensionOfTheBaseIsOneToo) {
  options_.spec.lora.rank = 1024;
  options_.spec.lora.use_rslora = true;
  options_.spec.epochs = 1;
  const std::string one = HashOf(options_);
  EXPECT_EQ(one.size(), 64u);
  TestGroupOptions other = With(2, 2);
  other.threads = 3;
  other.force_recompute = Recompute::kFull;
  EXPECT_EQ(HashOf(other), one);
}

// The sums and the update ask the device for everything they read.
TEST_F(Training, MemoryApartFromTheHostsGivesTheSameBytes) {
  const std::string one = HashOf(options_);
  TestGroupOptions apart = With(2, 2);
  apart.apart = true;
  EXPECT_EQ(HashOf(apart), one);
  // And a state that was put back.
  TestGroup first(apart);
  TUNDRA_ASSERT_OK(first.Start());
  TUNDRA_ASSERT_OK(first.Run(3));
  const JobState state = first.state(0);
  TestGroup second(apart);
  TUNDRA_ASSERT_OK(second.Start());
  TUNDRA_ASSERT_OK(second.OnAll([&](int, TestRank& rank) { return rank.trainer->Restore(state); }));
  TUNDRA_ASSERT_OK(second.Run());
  EXPECT_EQ(second.AdapterHash(), one);
}

TEST_F(Training, OneStepInWarmUpHasTheRateZeroAndLeavesTheWeights) {
  options_.spec.epochs = 0;
  options_.spec.max_steps = 1;
  options_.spec.warmup_ratio = 1.0;
  TestGroup group(options_);
  TUNDRA_ASSERT_OK(group.Start());
  const std::vector<float> before = group.state(0).weights;
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto metrics, group.Run());
  ASSERT_EQ(metrics.size(), 1u);
  EXPECT_EQ(metrics[0].learning_rate, 0);
  EXPECT_EQ(group.state(0).weights, before);
  EXPECT_TRUE(group.rank(0).trainer->done());
}

TEST_F(Training, MemoryPlansChangeNoByte) {
  const std::string one = HashOf(options_);
  TestGroupOptions recompute = With(2, 2);
  recompute.force_recompute = Recompute::kFull;
  EXPECT_EQ(HashOf(recompute), one);
  // A budget that lets one micro-batch through at a time.
  TestGroupOptions tight = With(2, 2, true);
  TUNDRA_ASSERT_OK_AND_ASSIGN(const ModelConfig config, ReadModelConfig(options_.base_dir));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const LoraLayout layout,
                              LoraLayout::Make(config, options_.spec.lora));
  tight.activation_budget_bytes = TrainPassBytes(config, layout, 128, 1, Recompute::kNone);
  EXPECT_EQ(HashOf(tight), one);
}

TEST_F(Training, EachPassOfAStepOrAnEvaluationIsASignOfLife) {
  int signs = 0;
  options_.progress = [&] { ++signs; };
  TestGroup group(options_);
  TUNDRA_ASSERT_OK(group.Start());
  TUNDRA_ASSERT_OK(group.Run(1));
  EXPECT_GE(signs, 1);
  signs = 0;
  TUNDRA_ASSERT_OK(
      group.OnAll([](int, TestRank& rank) { return rank.trainer->Evaluate().status(); }));
  EXPECT_GE(signs, 1);
}

TEST_F(Training, Bf16GivesTheSameBytesOnAnyRanks) {
  options_.base_dir = GoldenDir() + "/gqa_tied_bf16/base";
  rows_ = GoldenRows(LoadJson(GoldenDir() + "/gqa_tied_bf16/golden.json"));
  validation_.assign(rows_.begin(), rows_.begin() + 5);
  options_.spec.precision = Precision::kBF16;
  const std::string one = HashOf(options_);
  EXPECT_EQ(HashOf(With(2, 2)), one);
  EXPECT_EQ(HashOf(With(3, 3, true)), one);
}

TEST_F(Training, LearnsAndValidatesAlikeOnAllRanks) {
  options_.spec.epochs = 8;
  options_.spec.learning_rate = 1e-2;
  std::vector<double> losses;
  for (const int ranks : {1, 3}) {
    TestGroup group(With(ranks, ranks));
    TUNDRA_ASSERT_OK(group.Start());
    std::vector<EvalMetrics> before(static_cast<size_t>(ranks)), after = before;
    const auto evaluate = [&](std::vector<EvalMetrics>& to) {
      return group.OnAll([&](int r, TestRank& rank) -> absl::Status {
        ASSIGN_OR_RETURN(to[static_cast<size_t>(r)], rank.trainer->Evaluate());
        return absl::OkStatus();
      });
    };
    TUNDRA_ASSERT_OK(evaluate(before));
    TUNDRA_ASSERT_OK(group.Run());
    TUNDRA_ASSERT_OK(evaluate(after));
    EXPECT_LT(after[0].loss, 0.8 * before[0].loss);
    EXPECT_EQ(after[0].rows, 5);
    for (const EvalMetrics& metrics : after) EXPECT_EQ(metrics.loss, after[0].loss);
    losses.push_back(after[0].loss);
  }
  EXPECT_EQ(losses[0], losses[1]);
}

// ---- what goes over the wire, and what stays ------------------------------------------

TEST_F(Training, OnlyAdapterGradientsAreReduced) {
  TestGroup group(With(2, 2));
  TUNDRA_ASSERT_OK(group.Start());
  int64_t before = group.rank(0).collective->stats().bytes_reduced;
  const LoraLayout& layout = group.rank(0).trainer->layout();
  const int64_t tensors = static_cast<int64_t>(layout.tensors().size());
  for (int i = 0; i < 4; ++i) {
    TUNDRA_ASSERT_OK_AND_ASSIGN(const auto metrics, group.Run(1));
    const int64_t after = group.rank(0).collective->stats().bytes_reduced;
    EXPECT_EQ(after - before, metrics[0].allreduce_bytes + metrics[0].redone_allreduce_bytes);
    EXPECT_EQ(metrics[0].allreduce_bytes, 8 * layout.parameters() + 4 * tensors + 4 + 4 * 8);
    // B's gradients set their exponents in the first step, whose rate is 0 (warm-up);
    // A's are zero until B has moved, in the second.
    EXPECT_EQ(metrics[0].redone, i == 0 || i == 2 ? 1 : 0) << "step " << i;
    before = after;
  }
}

TEST_F(Training, EachRankKeepsItsShareAndTheBaseNeverChanges) {
  TestGroup group(With(3, 3, true));
  TUNDRA_ASSERT_OK(group.Start());
  std::vector<std::string> hashes;
  for (int r = 0; r < 3; ++r) {
    TUNDRA_ASSERT_OK_AND_ASSIGN(hashes.emplace_back(), group.rank(r).shards[0].Hash());
  }
  TUNDRA_ASSERT_OK(group.Run());
  for (int r = 0; r < 3; ++r) {
    TUNDRA_ASSERT_OK_AND_ASSIGN(const std::string after, group.rank(r).shards[0].Hash());
    EXPECT_EQ(after, hashes[static_cast<size_t>(r)]);
    const WeightStats stats = group.rank(r).weights->stats();
    EXPECT_EQ(stats.resident_shard_bytes, group.plan().shard_bytes());
    EXPECT_GT(stats.gather_bytes, 0u);
    EXPECT_LE(stats.gathered_buffer_bytes, 2 * group.plan().largest_unit_bytes());
  }
}

// ---- faults ---------------------------------------------------------------------------

TEST_F(Training, ResumedFromACheckpointItGivesTheBytesOfAnUndisturbedRun) {
  const std::string whole = HashOf(options_);
  TestGroup first(With(2, 2));
  TUNDRA_ASSERT_OK(first.Start());
  TUNDRA_ASSERT_OK(first.Run(3));
  const std::string bytes = EncodeCheckpoint(first.rank(1).trainer->layout(), first.state(1));
  // Other ranks, another number of them.
  TestGroup second(With(3, 1));
  TUNDRA_ASSERT_OK(second.Start());
  TUNDRA_ASSERT_OK(second.OnAll([&](int, TestRank& rank) -> absl::Status {
    ASSIGN_OR_RETURN(JobState state, DecodeCheckpoint(bytes, "c", rank.trainer->layout(),
                                                      rank.trainer->identity()));
    return rank.trainer->Restore(std::move(state));
  }));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto metrics, second.Run());
  EXPECT_EQ(metrics[0].step, 4);
  EXPECT_EQ(second.AdapterHash(), whole);
}

TEST_F(Training, ADeadPeerFailsTheStepAndLeavesTheStateAsItWas) {
  TestGroup group(With(2, 2, true));
  TUNDRA_ASSERT_OK(group.Start());
  TUNDRA_ASSERT_OK(group.Run(2));
  const std::string before = group.StateHash(0);
  EXPECT_EQ(before, group.StateHash(1));
  group.local().Inject(1, group.rank(1).collective->stats().calls + 7, LocalFault::kDie);
  const absl::Status status = group.Run(1).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, ::testing::_));
  EXPECT_EQ(group.StateHash(0), before);
}

TEST_F(Training, EachPhaseOfAStepIsTimed) {
  TestGroup group(With(2, 2));
  TUNDRA_ASSERT_OK(group.Start());
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto metrics, group.Run(1));
  EXPECT_GT(metrics[0].compute_seconds, 0);
  EXPECT_GT(metrics[0].reduce_seconds, 0);
  EXPECT_GT(metrics[0].update_seconds, 0);
  EXPECT_LE(metrics[0].weights_wait_seconds, metrics[0].compute_seconds);
}

TEST_F(Training, NonFiniteGradientsAreSkippedAlikeAndEndTheJobAfterTheLimit) {
  options_.spec.non_finite_limit = 3;
  TestGroup group(With(2, 2));
  TUNDRA_ASSERT_OK(group.Start());
  TUNDRA_ASSERT_OK(group.Run(1));
  TUNDRA_ASSERT_OK(group.OnAll([&](int, TestRank& rank) -> absl::Status {
    ASSIGN_OR_RETURN(const JobState* now, rank.trainer->State());
    JobState state = *now;
    state.weights.back() = std::numeric_limits<float>::infinity();
    return rank.trainer->Restore(std::move(state));
  }));
  const std::vector<float> weights = group.state(0).weights;
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto metrics, group.Run(2));
  EXPECT_TRUE(metrics[0].non_finite);
  EXPECT_EQ(group.state(1).non_finite_in_row, 2);
  EXPECT_EQ(group.state(1).weights, weights);
  EXPECT_EQ(group.StateHash(0), group.StateHash(1));
  EXPECT_THAT(group.Run(1), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("diverged")));
}

TEST_F(Training, BadSpecsNameEveryFieldAtOnce) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(const ModelConfig config, ReadModelConfig(options_.base_dir));
  TrainSpec spec = options_.spec;
  spec.learning_rate = std::nan("");
  spec.lora.rank = 0;
  spec.micro_batch_tokens = 64;
  spec.max_steps = 3;
  EXPECT_THAT(CheckTrainSpec(spec, config),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("learning_rate = nan"), HasSubstr("lora.rank = 0"),
                             HasSubstr("micro_batch_tokens = 64"), HasSubstr("exactly one"))));
}

TEST_F(Training, RowsThatWontDoAreNamed) {
  rows_[3].ids.assign(129, 5);
  rows_[3].trained.assign(129, 1);
  TestGroup group(options_);
  EXPECT_THAT(group.Start(), StatusIs(absl::StatusCode::kInvalidArgument,
                                      AllOf(HasSubstr("row 3"), HasSubstr("max_seq_length"))));
  // At once, not at the step that meets the row.
  rows_[3] = rows_[0];
  rows_[3].ids[1] = 1 << 20;
  TestGroup group3(options_);
  EXPECT_THAT(group3.Start(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("training row 3"), HasSubstr("token id 1048576"))));
  rows_[3] = rows_[0];
  rows_[3].trained.assign(rows_[3].ids.size(), 0);
  TestGroup group2(options_);
  EXPECT_THAT(group2.Start(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no target token")));
}

TEST_F(Training, TooLittleMemoryIsSaidWithTheNumberNeeded) {
  options_.activation_budget_bytes = 1000;
  TestGroup group(options_);
  EXPECT_THAT(group.Start(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("bytes")));
}

}  // namespace
}  // namespace tundra
