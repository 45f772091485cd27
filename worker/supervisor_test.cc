// The supervisor against a scripted coordinator, with rank processes that train
// nothing: what it starts, keeps, delivers, removes, and how it ends.
#include "worker/supervisor.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "common/files.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "worker/testing/scripted_coordinator.h"

namespace tundra::worker {
namespace {

using tundra::v1::WorkerAssignment;
using tundra::v1::WorkerReport;
namespace fs = std::filesystem;

std::string StateOf(int64_t step) { return "state of step " + std::to_string(step); }

class SupervisorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* source = std::getenv("TUNDRA_SOURCE_DIR");
    ASSERT_NE(source, nullptr) << "run by ctest, or set TUNDRA_SOURCE_DIR";
    base_dir_ = std::string(source) + "/tests/parity/golden/peft/mqa_tied_llama3/base";
    options_.channels = ChannelSource::Plain(coordinator_.address());
    options_.data_dir = dir_ / "worker";
    for (int i = 0; i < 2; ++i) {
      options_.devices.emplace_back().set_index(i);
      options_.devices.back().set_kind("cpu");
    }
    ::setenv("TUNDRA_FAKE_STEPS", "3", 1);
  }

  void TearDown() override {
    if (supervisor_ != nullptr) supervisor_->Stop();
    if (supervisor_ != nullptr) supervisor_->Stop();
    if (run_.joinable()) run_.join();
    supervisor_.reset();
    ::unsetenv("TUNDRA_FAKE_RANK");
    ::unsetenv("TUNDRA_FAKE_STEPS");
  }

  void Start(const std::string& rank_mode = "") {
    ::setenv("TUNDRA_FAKE_RANK", rank_mode.c_str(), 1);
    TUNDRA_ASSERT_OK_AND_ASSIGN(BaseCatalog catalog,
                                BaseCatalog::Scan({base_dir_}, dir_ / "cache"));
    ASSERT_EQ(catalog.bases().size(), 1u);
    base_hash_ = catalog.bases()[0].base().name().substr(6);
    supervisor_ = std::make_unique<Supervisor>(options_, std::move(catalog), "me");
    run_ = std::thread([this] { supervisor_->Run(); });
  }

  // A group of `ranks` ranks here with a job on it.
  void WantJob(int64_t epoch, int64_t attempt, int ranks = 1) {
    assignment_.clear_groups();
    auto& group = *assignment_.add_groups();
    group.set_group_id("group-1");
    group.set_epoch(epoch);
    group.set_base_hash(base_hash_);
    group.set_shards(1);
    for (int i = 0; i < ranks; ++i) {
      group.add_members()->set_worker_id("me");
      group.mutable_members(i)->set_device_index(i);
      group.mutable_members(i)->set_rendezvous("address of " + std::to_string(i));
    }
    auto& job = *group.mutable_job();
    job.set_job_id("job-1");
    job.set_attempt(attempt);
    job.set_desired(tundra::v1::RUN);
    job.mutable_spec()->mutable_checkpoint()->set_keep(2);
    const std::string data = "{\"text\": \"x\"}\n";
    job.mutable_train()->set_sha256(Sha256Hex(data));
    absl::MutexLock lock(&coordinator_.mu);
    coordinator_.blobs[Sha256Hex(data)] = data;
  }

  tundra::v1::JobAck& Ack(int64_t attempt) {
    auto& ack = *assignment_.add_acks();
    ack.set_job_id("job-1");
    ack.set_attempt(attempt);
    return ack;
  }

  // Waits for a report whose job satisfies the predicate.
  bool WaitForJob(const std::function<bool(const tundra::v1::JobReport&)>& ok) {
    return coordinator_.WaitForReport([&](const WorkerReport& report) {
      for (const auto& job : report.jobs()) {
        if (ok(job)) return true;
      }
      return false;
    });
  }
  bool WaitForPhase(tundra::v1::AttemptPhase phase) {
    return WaitForJob([&](const auto& job) { return job.phase() == phase; });
  }
  bool WaitForCheckpoint(int64_t step) {
    return WaitForJob([&](const auto& job) {
      for (const auto& checkpoint : job.checkpoints()) {
        if (checkpoint.step() == step) return true;
      }
      return false;
    });
  }

  bool WaitUntil(const std::function<bool()>& ok) {
    const absl::Time deadline = absl::Now() + kTestDeadline;
    while (!ok()) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(2));
    }
    return true;
  }

  std::string Metrics() { return supervisor_->RenderMetrics(); }
  std::string Checkpoints(const std::string& below = "") {
    return options_.data_dir + "/checkpoints/job-1" + below;
  }

  TempDir dir_;
  ScriptedCoordinator coordinator_;
  SupervisorOptions options_;
  std::string base_dir_;
  std::string base_hash_;
  WorkerAssignment assignment_;
  std::unique_ptr<Supervisor> supervisor_;
  std::thread run_;
};

TEST_F(SupervisorTest, RunsAJobDeliversItAndKeepsOnlyTheCheckpointsItNeeds) {
  Start();
  WantJob(1, 1, /*ranks=*/2);
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(WaitForCheckpoint(3));
  EXPECT_TRUE(WaitUntil([&] { return supervisor_->status().ranks_ready == 2; }));
  for (const char* line :
       {"tundra_steps_total 3", "tundra_step_duration_seconds_sum{phase=\"update\"} 1.5",
        "tundra_checkpoint_duration_seconds_count{stage=\"upload\"} 3",
        "tundra_worker_ranks{state=\"ready\"} 2"}) {
    EXPECT_TRUE(WaitUntil([&] {
      return Metrics().find(absl::StrCat("\n", line, "\n")) != std::string::npos;
    })) << line
        << " is not in\n"
        << Metrics();
  }
  {
    absl::MutexLock lock(&coordinator_.mu);
    EXPECT_EQ(coordinator_.blobs.at(Sha256Hex(StateOf(3))), StateOf(3));
  }
  Ack(1).set_checkpoint_step(3);
  coordinator_.Assign(assignment_);
  EXPECT_TRUE(WaitUntil([&] { return !fs::exists(Checkpoints("/1/2")); }));
  EXPECT_TRUE(fs::exists(Checkpoints("/1/3"))) << "the job would go on from it";
  // Cancelled, and the outcome stored: nothing of it stays.
  assignment_.mutable_groups(0)->mutable_job()->set_desired(tundra::v1::CANCEL);
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(WaitForPhase(tundra::v1::STOPPED));
  assignment_.mutable_groups(0)->clear_job();
  assignment_.mutable_acks(0)->set_done(true);
  coordinator_.Assign(assignment_);
  EXPECT_TRUE(WaitUntil([&] { return !fs::exists(Checkpoints()); }));
  EXPECT_TRUE(coordinator_.WaitForReport([](const WorkerReport& report) {
    return report.groups_size() == 1 && report.jobs_size() == 0;
  }));
}

TEST_F(SupervisorTest, ANextAttemptGoesOnFromTheCopyHereAlsoWhenTheFirstIsForgotten) {
  Start();
  WantJob(1, 1);
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(WaitForCheckpoint(3));
  // One message forgets the first attempt and brings the second.
  WantJob(2, 2);
  auto& resume = *assignment_.mutable_groups(0)->mutable_job()->mutable_resume();
  resume.set_step(3);
  resume.set_sha256(Sha256Hex(StateOf(3)));
  Ack(1).set_checkpoint_step(3);
  assignment_.mutable_acks(0)->set_done(true);
  size_t fetched = 0;
  {
    absl::MutexLock lock(&coordinator_.mu);
    fetched = coordinator_.fetches.size();
  }
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(WaitForJob(
      [](const auto& job) { return job.attempt() == 2 && job.phase() == tundra::v1::TRAINING; }));
  EXPECT_TRUE(fs::exists(Checkpoints("/1/3")));
  EXPECT_THAT(Metrics(),
              ::testing::HasSubstr("tundra_collective_aborts_total{reason=\"next_epoch\"} 1\n"));
  absl::MutexLock lock(&coordinator_.mu);
  EXPECT_EQ(coordinator_.fetches.size(), fetched) << "data and state were here";
}

TEST_F(SupervisorTest, WhileTheCoordinatorTakesNothingOldCheckpointsMakeWay) {
  ::setenv("TUNDRA_FAKE_STEPS", "8", 1);
  coordinator_.put_status = {grpc::StatusCode::UNAVAILABLE, "not now"};
  Start();
  WantJob(1, 1);
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(WaitUntil([&] { return fs::exists(Checkpoints("/1/8/state.safetensors")); }));
  EXPECT_TRUE(WaitUntil([&] { return !fs::exists(Checkpoints("/1/6")); }));
  EXPECT_TRUE(fs::exists(Checkpoints("/1/7")));
}

TEST_F(SupervisorTest, ARankThatKeepsDyingIsReportedAndStartedOncePerEpoch) {
  Start("exits");
  for (int64_t epoch : {1, 2}) {
    WantJob(epoch, epoch);
    coordinator_.Assign(assignment_);
    ASSERT_TRUE(coordinator_.WaitForReport([&](const WorkerReport& report) {
      return report.groups_size() == 1 && report.groups(0).epoch() == epoch &&
             report.groups(0).ranks(0).phase() == tundra::v1::LOST;
    }));
  }
  // A late message of the older epoch changes nothing.
  WantJob(1, 1);
  assignment_.add_wanted_blobs("marker");
  coordinator_.Assign(assignment_);
  WantJob(2, 2);
  coordinator_.Assign(assignment_);
  EXPECT_EQ(coordinator_.report().groups(0).epoch(), 2);
}

TEST_F(SupervisorTest, DrainingSavesTheJobAndEndsOnceThatIsStored) {
  Start();
  WantJob(1, 1);
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(WaitForCheckpoint(3));
  supervisor_->Stop();
  ASSERT_TRUE(WaitForPhase(tundra::v1::STOPPED));
  EXPECT_TRUE(WaitForCheckpoint(4)) << "saved after it was told to drain";
  EXPECT_THAT(Metrics(), ::testing::HasSubstr("tundra_preemption_duration_seconds_count 1\n"));
  EXPECT_TRUE(coordinator_.report().draining());
  Ack(1).set_done(true);
  coordinator_.Assign(assignment_);
  run_.join();
}

TEST_F(SupervisorTest, DrainingStopsAJobWhoseInputsHaveNotCome) {
  options_.drain_timeout = absl::Hours(1);
  coordinator_.stuck = true;
  Start();
  WantJob(1, 1);
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(coordinator_.WaitFor([&] { return !coordinator_.fetches.empty(); }));
  supervisor_->Stop();
  ASSERT_TRUE(WaitForPhase(tundra::v1::STOPPED));
  Ack(1).set_done(true);
  coordinator_.Assign(assignment_);
  run_.join();
  supervisor_.reset();  // Although the fetch is stuck.
}

TEST_F(SupervisorTest, AJobThatComesWhileDrainingIsHandedBackAtOnce) {
  options_.drain_timeout = absl::Hours(1);
  Start();
  WantJob(1, 1);
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(WaitForCheckpoint(3));
  supervisor_->Stop();
  ASSERT_TRUE(WaitForPhase(tundra::v1::STOPPED));
  WantJob(2, 2);
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(WaitForJob(
      [](const auto& job) { return job.attempt() == 2 && job.phase() == tundra::v1::STOPPED; }));
  Ack(1).set_done(true);
  Ack(2).set_done(true);
  coordinator_.Assign(assignment_);
  run_.join();
}

TEST_F(SupervisorTest, ADrainThatIsNeverAcknowledgedEndsAtItsLimit) {
  options_.drain_timeout = absl::Milliseconds(1);
  Start();
  WantJob(1, 1);
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(WaitForPhase(tundra::v1::TRAINING));
  supervisor_->Stop();
  run_.join();
}

TEST_F(SupervisorTest, ASecondStopEndsItAtOnceWhateverIsStuck) {
  options_.drain_timeout = absl::Hours(1);
  coordinator_.stuck = true;
  Start();
  WantJob(1, 1);
  auto& task = *assignment_.add_generate();
  task.set_task_id("task-1");
  task.set_base_hash(base_hash_);
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(coordinator_.WaitFor([&] { return !coordinator_.fetches.empty(); }));
  supervisor_->Stop();
  supervisor_->Stop();
  run_.join();
  supervisor_.reset();
}

TEST_F(SupervisorTest, AnswersAPromptOnAnIdleDeviceAndKeepsNoAdapter) {
  Start();
  auto& task = *assignment_.add_generate();
  task.set_task_id("task-1");
  task.set_base_hash(base_hash_);
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
    auto& file = *task.add_adapter_files();
    file.set_filename(name);
    file.set_sha256(Sha256Hex(name));
    absl::MutexLock lock(&coordinator_.mu);
    coordinator_.blobs[Sha256Hex(name)] = name;
  }
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(coordinator_.WaitFor([&] { return !coordinator_.chunks.empty(); }));
  {
    absl::MutexLock lock(&coordinator_.mu);
    EXPECT_EQ(coordinator_.chunks[0].text(), "adapter_config.json");
    EXPECT_EQ(coordinator_.chunks[0].worker_id(), "me");
  }
  EXPECT_TRUE(WaitUntil([&] { return !fs::exists(options_.data_dir + "/adapters/task-1"); }));
}

TEST_F(SupervisorTest, FetchedBlobsAreBoundedButThoseOfAJobStay) {
  options_.max_blob_bytes = 0;
  Start();
  WantJob(1, 1);
  const std::string train = assignment_.groups(0).job().train().sha256();
  auto& task = *assignment_.add_generate();
  task.set_task_id("task-1");
  task.set_base_hash(base_hash_);
  auto& file = *task.add_adapter_files();
  file.set_filename("adapter_config.json");
  file.set_sha256(Sha256Hex("c"));
  {
    absl::MutexLock lock(&coordinator_.mu);
    coordinator_.blobs[Sha256Hex("c")] = "c";
  }
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(coordinator_.WaitFor([&] { return !coordinator_.chunks.empty(); }));
  ASSERT_TRUE(WaitForPhase(tundra::v1::TRAINING));
  // The next fetch finds the adapter without a user.
  assignment_.clear_generate();
  assignment_.mutable_groups(0)->mutable_job()->set_attempt(2);
  coordinator_.Assign(assignment_);
  EXPECT_TRUE(
      WaitUntil([&] { return !fs::exists(options_.data_dir + "/blobs/" + Sha256Hex("c")); }));
  EXPECT_TRUE(fs::exists(options_.data_dir + "/blobs/" + train));
}

TEST_F(SupervisorTest, IdsThatWouldLeaveTheirFolderAreRefused) {
  Start();
  WantJob(1, 1);
  assignment_.mutable_groups(0)->mutable_job()->set_job_id("../../x");
  assignment_.add_generate()->set_task_id("..");
  *assignment_.add_groups() = assignment_.groups(0);
  assignment_.mutable_groups(1)->set_group_id("group-2");
  assignment_.mutable_groups(1)->mutable_job()->set_job_id("job-2");
  coordinator_.Assign(assignment_);
  ASSERT_TRUE(
      coordinator_.WaitForReport([](const WorkerReport& r) { return r.groups_size() > 0; }));
  EXPECT_EQ(coordinator_.report().groups_size(), 1);
  EXPECT_EQ(coordinator_.report().groups(0).group_id(), "group-2");
}

TEST_F(SupervisorTest, StartsWithoutWhatAnEarlierProcessLeft) {
  for (const char* name : {"checkpoints/job-0/1/5", "adapters/task-0"}) {
    fs::create_directories(options_.data_dir + "/" + name);
  }
  Start();
  EXPECT_FALSE(fs::exists(options_.data_dir + "/checkpoints/job-0"));
  EXPECT_FALSE(fs::exists(options_.data_dir + "/adapters/task-0"));
}

}  // namespace
}  // namespace tundra::worker
