#include "worker/job_outbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tundra::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

tundra::v1::StepMetrics Metrics(int64_t step, bool validation = false) {
  tundra::v1::StepMetrics metrics;
  metrics.set_step(step);
  if (validation) metrics.set_validation_loss(1);
  return metrics;
}

CheckpointSaved Saved(int64_t step, bool final = false) {
  CheckpointSaved saved;
  saved.mutable_report()->set_step(step);
  saved.mutable_report()->set_final(final);
  return saved;
}

tundra::v1::JobReport Phase(tundra::v1::AttemptPhase phase) {
  tundra::v1::JobReport report;
  report.set_phase(phase);
  return report;
}

std::vector<int64_t> Steps(const tundra::v1::JobReport& report) {
  std::vector<int64_t> steps;
  for (const auto& checkpoint : report.checkpoints()) steps.push_back(checkpoint.step());
  return steps;
}

class JobOutboxTest : public ::testing::Test {
 protected:
  JobOutbox outbox_{"job-1", 3, 5};
};

TEST_F(JobOutboxTest, RepeatsEverythingUntilItIsAcknowledged) {
  outbox_.AddMetrics(Metrics(0, true));
  outbox_.AddMetrics(Metrics(1));
  outbox_.AddMetrics(Metrics(2));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(outbox_.Report().metrics_size(), 3);
  tundra::v1::JobAck ack;
  outbox_.Acknowledge(ack);  // Nothing is stored yet, not even step 0.
  EXPECT_EQ(outbox_.Report().metrics_size(), 3);
  ack.set_metrics_step(0);
  outbox_.Acknowledge(ack);
  EXPECT_EQ(outbox_.Report().metrics(0).step(), 1);
  ack.set_metrics_step(2);
  outbox_.Acknowledge(ack);
  EXPECT_EQ(outbox_.Report().metrics_size(), 0);
  EXPECT_EQ(outbox_.Report().step(), 2);
  EXPECT_FALSE(outbox_.done());
  ack.set_done(true);
  outbox_.Acknowledge(ack);
  EXPECT_TRUE(outbox_.done());
}

TEST_F(JobOutboxTest, TheOutcomeNeverOvertakesCheckpointsAndMetrics) {
  outbox_.AddCheckpoint(Saved(10, true));
  for (int i = 1; i <= JobOutbox::kMetricsPerReport + 1; ++i) outbox_.AddMetrics(Metrics(i));
  outbox_.Update(Phase(tundra::v1::FINISHED));
  EXPECT_EQ(outbox_.Report().phase(), tundra::v1::TRAINING);
  outbox_.SetUploaded(10);
  EXPECT_EQ(outbox_.Report().phase(), tundra::v1::TRAINING);
  tundra::v1::JobAck ack;
  ack.set_metrics_step(1);
  outbox_.Acknowledge(ack);
  EXPECT_EQ(outbox_.Report().phase(), tundra::v1::FINISHED);
  EXPECT_THAT(Steps(outbox_.Report()), ElementsAre(10));
}

TEST_F(JobOutboxTest, CheckpointsAreReportedInOrder) {
  outbox_.AddCheckpoint(Saved(10));
  outbox_.AddCheckpoint(Saved(20));
  outbox_.SetUploaded(20);
  EXPECT_THAT(Steps(outbox_.Report()), IsEmpty());
  outbox_.SetUploaded(10);
  EXPECT_THAT(Steps(outbox_.Report()), ElementsAre(10, 20));
}

TEST_F(JobOutboxTest, AFailedDeliveryOfTheAdapterOutlivesWhatTheRankSaysLater) {
  outbox_.AddCheckpoint(Saved(10, true));
  EXPECT_TRUE(outbox_.SetUploadFailed(10, "disk full"));
  outbox_.Update(Phase(tundra::v1::FINISHED));
  EXPECT_EQ(outbox_.Report().phase(), tundra::v1::STOPPED);
  EXPECT_THAT(outbox_.Report().failure().message(), ::testing::HasSubstr("disk full"));
}

TEST_F(JobOutboxTest, FindsTheCheckpointThatABlobIsOf) {
  outbox_.AddCheckpoint(Saved(10));
  CheckpointSaved saved = Saved(20);
  saved.mutable_report()->set_sha256("state");
  saved.mutable_report()->add_adapter_files()->set_sha256("adapter");
  outbox_.AddCheckpoint(saved);
  for (const std::string blob : {"state", "adapter"}) {
    ASSERT_TRUE(outbox_.CheckpointWith(blob).has_value());
    EXPECT_EQ(outbox_.CheckpointWith(blob)->step(), 20);
  }
  EXPECT_FALSE(outbox_.CheckpointWith("another").has_value());
}

TEST_F(JobOutboxTest, AFailedUploadOfAnOlderCheckpointLeavesTheAttemptAlone) {
  outbox_.AddCheckpoint(Saved(10));
  outbox_.Update(Phase(tundra::v1::TRAINING));
  EXPECT_TRUE(outbox_.SetUploadFailed(10, "disk full"));
  EXPECT_EQ(outbox_.Report().phase(), tundra::v1::TRAINING);
  EXPECT_FALSE(outbox_.SetUploadFailed(10, "disk full")) << "nobody waits for it any more";
}

TEST_F(JobOutboxTest, WhileTheCoordinatorIsAwayNewerCheckpointsReplaceOlderOnes) {
  for (int64_t step : {10, 20, 30, 40}) outbox_.AddCheckpoint(Saved(step));
  outbox_.SetUploaded(10);  // Theirs to drop.
  EXPECT_THAT(outbox_.DropReplaced(2), ElementsAre(20));
  EXPECT_THAT(outbox_.DropReplaced(2), IsEmpty());
  outbox_.AddCheckpoint(Saved(50, true));
  outbox_.AddCheckpoint(Saved(60));
  outbox_.AddCheckpoint(Saved(70));
  EXPECT_THAT(outbox_.DropReplaced(1), ElementsAre(60, 40, 30)) << "never the final one";
}

TEST_F(JobOutboxTest, MetricsAreBoundedAndKeepTheNewestAndTheValidationLosses) {
  constexpr int64_t kSteps = static_cast<int64_t>(JobOutbox::kMaxMetrics) + 50'000;
  for (int64_t i = 1; i <= kSteps; ++i) outbox_.AddMetrics(Metrics(i, i % 1000 == 0));
  int64_t kept = 0, validations = 0, last = 0;
  while (true) {
    const auto report = outbox_.Report();
    if (report.metrics_size() == 0) break;
    for (const auto& m : report.metrics()) {
      EXPECT_GT(m.step(), last);
      last = m.step();
      ++kept;
      validations += m.has_validation_loss();
    }
    tundra::v1::JobAck ack;
    ack.set_metrics_step(last);
    outbox_.Acknowledge(ack);
  }
  EXPECT_LE(kept, static_cast<int64_t>(JobOutbox::kMaxMetrics));
  EXPECT_GT(kept, static_cast<int64_t>(JobOutbox::kMaxMetrics) / 2);
  EXPECT_EQ(validations, kSteps / 1000);
  EXPECT_EQ(last, kSteps);
}

TEST_F(JobOutboxTest, MetricsAreBoundedWhereEveryStepHasAValidationLoss) {
  constexpr int64_t kSteps = static_cast<int64_t>(JobOutbox::kMaxMetrics) + 60'000;
  for (int64_t i = 1; i <= kSteps; ++i) outbox_.AddMetrics(Metrics(i, true));
  int64_t kept = 0;
  for (auto report = outbox_.Report(); report.metrics_size() > 0; report = outbox_.Report()) {
    kept += report.metrics_size();
    tundra::v1::JobAck ack;
    ack.set_metrics_step(report.metrics(report.metrics_size() - 1).step());
    outbox_.Acknowledge(ack);
  }
  EXPECT_LE(kept, static_cast<int64_t>(JobOutbox::kMaxMetrics));
}

TEST_F(JobOutboxTest, SamplesGoUntilTheyAreStored) {
  auto update = Phase(tundra::v1::TRAINING);
  update.add_samples()->set_prompt("p");
  outbox_.Update(update);
  outbox_.Update(Phase(tundra::v1::TRAINING));
  EXPECT_EQ(outbox_.Report().samples_size(), 1);
  tundra::v1::JobAck ack;
  ack.set_samples(true);
  outbox_.Acknowledge(ack);
  EXPECT_EQ(outbox_.Report().samples_size(), 0);
}

}  // namespace
}  // namespace tundra::worker
