// Recoveries, steps done once more, held devices and jobs that stand still, on a clock that the
// test moves.
#include "coordinator/http/job_watch.h"

#include <gtest/gtest.h>

#include "common/metrics_test_util.h"

namespace tundra::coordinator {
namespace {

using testing::Samples;

class JobWatchTest : public ::testing::Test {
 protected:
  std::map<std::string, double> Page() { return Samples(metrics_.Render({})); }
  double Value(const std::string& name) { return Page().at(name); }

  // A report of the job's attempt, which began after `resume`; the attempts before had come to
  // `seen`.
  void Report(int64_t attempt, int64_t step, int64_t resume = 0, int64_t seen = 0,
              v1::JobState state = v1::RUNNING) {
    JobReportResult report;
    report.ack.set_job_id("job-1");
    report.ack.set_attempt(attempt);
    report.tenant = "red";
    report.state = state;
    report.attempt_step = step;
    report.resume_step = resume;
    report.seen_step = seen;
    watch_.OnReport(report);
  }
  void LoseARank() { watch_.OnDecision(ReformGroup{{"group-1"}, {"job-1"}, {}, "lost"}); }

  FakeClock clock_;
  Metrics metrics_{"1"};
  JobWatch watch_{&metrics_, &clock_};
};

TEST_F(JobWatchTest, ARecoveryLastsFromTheLossToTheNextStep) {
  Report(1, 7);
  LoseARank();
  clock_.Advance(absl::Seconds(2));
  Report(1, 8);  // a late one of the attempt that was lost
  Report(2, 5, 5, 8);
  EXPECT_EQ(Value("tundra_recovery_duration_seconds_count"), 0);
  clock_.Advance(absl::Seconds(3));
  Report(2, 6, 5, 8);
  EXPECT_EQ(Value("tundra_recovery_duration_seconds_count"), 1);
  EXPECT_EQ(Value("tundra_recovery_duration_seconds_sum"), 5);
  Report(2, 7, 5, 8);
  EXPECT_EQ(Value("tundra_recovery_duration_seconds_count"), 1);
}

TEST_F(JobWatchTest, ASecondLossBelongsToTheSameRecovery) {
  Report(1, 7);
  LoseARank();
  clock_.Advance(absl::Seconds(2));
  Report(2, 5, 5, 7);
  LoseARank();
  clock_.Advance(absl::Seconds(2));
  Report(3, 6, 5, 7);
  EXPECT_EQ(Value("tundra_recovery_duration_seconds_count"), 1);
  EXPECT_EQ(Value("tundra_recovery_duration_seconds_sum"), 4);
}

TEST_F(JobWatchTest, TheWaitForDevicesIsPartOfARecoveryAndWhatIsStoppedHasNone) {
  const MoveJob back{{"job-1"}, {v1::PREEMPTING, v1::QUEUED}, "", true, /*lost_attempt=*/true};
  watch_.OnDecision(back);
  clock_.Advance(absl::Minutes(10));
  Report(2, 1);
  EXPECT_EQ(Value("tundra_recovery_duration_seconds_sum"), 600);
  watch_.OnDecision(back);
  watch_.OnDecision(MoveJob{{"job-1"}, {v1::CANCELLED}, ""});
  Report(3, 2);
  LoseARank();
  watch_.OnDecision(FailJob{{"job-1"}, v1::NO_PROGRESS, ""});
  Report(4, 3);
  LoseARank();
  Report(5, 3, 3, 3, v1::PAUSED);
  Report(6, 4, 3, 3);
  EXPECT_EQ(Value("tundra_recovery_duration_seconds_count"), 1);
  EXPECT_EQ(Value("tundra_job_failures_total{reason=\"NO_PROGRESS\"}"), 1);
}

TEST_F(JobWatchTest, AJobThatHadOnlyToFinishHasRecoveredToo) {
  LoseARank();
  clock_.Advance(absl::Seconds(1));
  Report(2, 9, 9, 9, v1::SUCCEEDED);
  EXPECT_EQ(Value("tundra_recovery_duration_seconds_count"), 1);
}

TEST_F(JobWatchTest, StepsAreDoneOnceMoreFromTheCheckpointToTheHighestSeen) {
  Report(1, 7);
  EXPECT_EQ(Value("tundra_replayed_steps_total"), 0);
  Report(2, 4, 4, 7);
  Report(2, 5, 4, 7);
  Report(2, 5, 4, 7);  // said again
  EXPECT_EQ(Value("tundra_replayed_steps_total"), 1);
  Report(2, 12, 4, 7);
  EXPECT_EQ(Value("tundra_replayed_steps_total"), 3);
  // An attempt that dies before its first step has done nothing once more.
  Report(3, 10, 10, 12);
  EXPECT_EQ(Value("tundra_replayed_steps_total"), 3);
}

TEST_F(JobWatchTest, DevicesCountAsLongAsAJobHoldsThem) {
  watch_.OnPlan({{{"job-1"}, "red", 4}, {{"job-2"}, "blue", 1}});
  clock_.Advance(absl::Seconds(10));
  watch_.CountDeviceSeconds();
  clock_.Advance(absl::Seconds(5));
  watch_.OnPlan({{{"job-2"}, "blue", 1}});
  clock_.Advance(absl::Seconds(1));
  watch_.CountDeviceSeconds();
  EXPECT_EQ(Value("tundra_device_seconds_total{tenant=\"red\"}"), 60);
  EXPECT_EQ(Value("tundra_device_seconds_total{tenant=\"blue\"}"), 16);
}

TEST_F(JobWatchTest, AJobStandsStillAfterTenMinutesAndTwentyOfItsSteps) {
  JobRecord job;
  job.id = {"job-1"};
  job.job.set_state(v1::RUNNING);
  job.step_seconds = 60;
  EXPECT_FALSE(watch_.IsStalled(job));
  clock_.Advance(absl::Minutes(19));
  EXPECT_FALSE(watch_.IsStalled(job)) << "its steps are slow";
  clock_.Advance(absl::Minutes(2));
  EXPECT_TRUE(watch_.IsStalled(job));
  Report(1, 1);
  EXPECT_FALSE(watch_.IsStalled(job));
  job.step_seconds = 0.1;
  clock_.Advance(absl::Minutes(9));
  Report(1, 1);  // says nothing new
  EXPECT_FALSE(watch_.IsStalled(job));
  clock_.Advance(absl::Minutes(2));
  EXPECT_TRUE(watch_.IsStalled(job));
  job.job.set_state(v1::PAUSED);
  EXPECT_FALSE(watch_.IsStalled(job));
}

TEST_F(JobWatchTest, WhatARefusedReportSaysDoesNotCount) {
  JobReportResult report;
  report.ack.set_job_id("job-1");
  report.fenced = true;
  watch_.OnReport(report);
  EXPECT_EQ(Value("tundra_fenced_writes_total"), 1);
  EXPECT_EQ(Value("tundra_steps_total"), 0);
}

}  // namespace
}  // namespace tundra::coordinator
