// What the metrics say of a full store, how many series that is, and how long it takes.
#include "coordinator/http/gauges.h"

#include <gtest/gtest.h>

#include <iostream>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/metrics_test_util.h"
#include "common/sha256.h"
#include "common/status.h"
#include "common/status_test_util.h"
#include "coordinator/store/job_state.h"
#include "coordinator/store/sqlite_store.h"

namespace tundra::coordinator {
namespace {

using testing::Samples;

const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

// By turns; each path begins in QUEUED.
const std::vector<std::vector<v1::JobState>>& Paths() {
  static const auto* const paths = new std::vector<std::vector<v1::JobState>>{
      {},
      {v1::STARTING},
      {v1::STARTING, v1::RUNNING},
      {v1::PAUSED},
      {v1::STARTING, v1::RUNNING, v1::SUCCEEDED},
      {v1::STARTING, v1::FAILED},
      {v1::STARTING, v1::RUNNING, v1::CANCELLING, v1::CANCELLED},
      {v1::STARTING, v1::RUNNING, v1::PAUSING},
      {v1::STARTING, v1::PREEMPTING},
      {v1::STARTING, v1::CANCELLING},
  };
  return *paths;
}

class GaugesTest : public ::testing::Test {
 protected:
  GaugesTest() {
    SqliteOptions options;
    options.data_dir = dir_ / "data";
    absl::StatusOr<std::unique_ptr<Store>> store = OpenSqliteStore(options);
    TUNDRA_EXPECT_OK(store);
    store_ = *std::move(store);
  }

  absl::Status Insert(Txn& txn, int number, const std::vector<v1::JobState>& path, int devices) {
    JobRecord record;
    record.id.value = absl::StrCat("job-", number);
    record.job.set_state(v1::QUEUED);
    record.job.mutable_spec()->mutable_resources()->set_device_count(devices);
    *record.job.mutable_create_time() = ToProto(kStart + absl::Seconds(number));
    JobDraft draft(record, kStart + absl::Seconds(number));
    RETURN_IF_ERROR(txn.InsertJob(draft));
    for (const v1::JobState state : path) RETURN_IF_ERROR(draft.Move(state, "moves"));
    return path.empty() ? absl::OkStatus() : txn.SaveJob(draft);
  }

  absl::Status Checkpoint(Txn& txn, int number, int64_t step, absl::Time time) {
    ASSIGN_OR_RETURN(const JobRecord job, txn.GetJob({absl::StrCat("job-", number)}));
    CheckpointRecord checkpoint;
    checkpoint.checkpoint.set_step(step);
    checkpoint.checkpoint.set_sha256(Sha256Hex(absl::StrCat(number, "/", step)));
    *checkpoint.checkpoint.mutable_create_time() = ToProto(time);
    return txn.PutCheckpoint(job, checkpoint);
  }

  GaugeReadings Measure(absl::Time now) {
    GaugeReadings readings;
    TUNDRA_EXPECT_OK(
        store_->Read([&](ReadTxn& txn) { return MeasureJobs(txn, now, watch_, readings); }));
    return readings;
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
  FakeClock clock_{kStart};
  Metrics metrics_{"1"};
  JobWatch watch_{&metrics_, &clock_};
};

TEST_F(GaugesTest, SayWhatTheStoreHolds) {
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    RETURN_IF_ERROR(Insert(txn, 1, {}, 3));
    RETURN_IF_ERROR(Insert(txn, 2, {}, 2));
    RETURN_IF_ERROR(Insert(txn, 3, {v1::STARTING, v1::RUNNING}, 1));
    RETURN_IF_ERROR(Insert(txn, 4, {v1::STARTING, v1::RUNNING}, 1));
    RETURN_IF_ERROR(Insert(txn, 5, {v1::STARTING, v1::RUNNING, v1::SUCCEEDED}, 1));
    RETURN_IF_ERROR(Checkpoint(txn, 3, 1, kStart + absl::Seconds(10)));
    RETURN_IF_ERROR(Checkpoint(txn, 3, 2, kStart + absl::Seconds(60)));
    // Of a job that has ended: nobody waits for its next.
    return Checkpoint(txn, 5, 2, kStart);
  }));
  const absl::Time now = kStart + absl::Seconds(100);
  GaugeReadings readings = Measure(now);
  EXPECT_EQ(readings.jobs.at("QUEUED"), 2);
  EXPECT_EQ(readings.jobs.at("RUNNING"), 2);
  EXPECT_EQ(readings.jobs.at("FAILED"), 0);
  EXPECT_EQ(readings.queue_devices.at("default"), 5);
  EXPECT_EQ(readings.queue_oldest_seconds, 99);
  EXPECT_EQ(readings.checkpoint_oldest_age_seconds, 96) << "job 4 has none since its start";
  EXPECT_EQ(readings.stalled_jobs, 0);
  TUNDRA_ASSERT_OK(
      store_->Write([&](Txn& txn) { return Checkpoint(txn, 4, 1, kStart + absl::Seconds(90)); }));
  EXPECT_EQ(Measure(now).checkpoint_oldest_age_seconds, 40);
  clock_.Advance(kStalledAfter + absl::Seconds(1));
  EXPECT_EQ(Measure(now).stalled_jobs, 2);
}

TEST_F(GaugesTest, TheVolumeIsTheDataFolders) {
  GaugeReadings readings;
  MeasureVolume(dir_.path(), readings);
  EXPECT_GT(readings.volume_size_bytes, 0);
  EXPECT_LE(readings.volume_available_bytes, readings.volume_size_bytes);
  MeasureVolume(dir_ / "none", readings);
  EXPECT_GT(readings.volume_size_bytes, 0) << "keeps what it had";
}

TEST_F(GaugesTest, TenThousandJobsOf250TenantsAreAFewThousandSeries) {
  constexpr int kJobs = 10'000;
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    for (int i = 0; i < kJobs; ++i) {
      const auto& path = Paths()[static_cast<size_t>(i) % Paths().size()];
      RETURN_IF_ERROR(Insert(txn, i, path, 1 + i % 8));
      const bool running = !path.empty() && path.back() == v1::RUNNING;
      for (int step = 1; running && step <= 3; ++step) {
        RETURN_IF_ERROR(Checkpoint(txn, i, step, kStart + absl::Seconds(i)));
      }
    }
    return absl::OkStatus();
  }));
  for (int i = 0; i < kJobs; ++i) {
    JobReportResult report;
    report.ack.set_job_id(absl::StrCat("job-", i));
    report.ack.set_attempt(1);
    report.tenant = absl::StrCat("tenant-", i % 250);
    report.state = v1::RUNNING;
    report.new_steps = 1;
    report.new_tokens = 100;
    report.failed = static_cast<v1::FailureCode>(i % (v1::INTERNAL + 1));
    watch_.OnReport(report);
    metrics_.OnDeviceSeconds(report.tenant, 1);
    metrics_.OnRpc(absl::StrCat("Method", i % 100), i / 100 % 17, absl::Milliseconds(1));
    metrics_.OnAuthFailure(absl::StrCat("reason-", i));
  }
  const absl::Time begin = absl::Now();
  GaugeReadings readings = Measure(kStart + absl::Hours(10));
  const absl::Time measured = absl::Now();
  for (int i = 0; i < 250; ++i) {
    const std::string tenant = absl::StrCat("tenant-", i);
    readings.queue_devices[tenant] = 1;
    for (int resource = 0; resource < 10; ++resource) {
      readings.quota_used_ratio[{tenant, absl::StrCat("resource-", resource)}] = 0.5;
    }
  }
  const std::string page = metrics_.Render(readings);
  const absl::Time rendered = absl::Now();
  std::cout << kJobs << " jobs: measured in " << absl::FormatDuration(measured - begin)
            << ", rendered in " << absl::FormatDuration(rendered - measured) << ", " << page.size()
            << " bytes\n";
  double jobs = 0;
  for (const v1::JobState state : AllJobStates()) {
    const double count = readings.jobs.at(StateName(state));
    EXPECT_EQ(count, kJobs / 10) << StateName(state);
    jobs += count;
  }
  EXPECT_EQ(jobs, kJobs);
  const size_t series = Samples(page).size();
  std::cout << series << " series\n";
  EXPECT_GT(series, 3000u) << "the test reaches the bounds";
  EXPECT_LE(series, 5000u);
  EXPECT_EQ(page.find("job-"), std::string::npos);
}

}  // namespace
}  // namespace tundra::coordinator
