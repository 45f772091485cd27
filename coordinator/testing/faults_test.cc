// Lost ranks, lost workers, old attempts, restarts of the coordinator.
#include "absl/strings/str_cat.h"
#include "common/status_test_util.h"
#include "coordinator/testing/harness.h"

namespace tundra::coordinator {
namespace {

using FaultsTest = CoordinatorHarness;

// Where a worker is to be lost.
class LeaseTest : public CoordinatorHarness {
 protected:
  void SetUp() override {
    lease_ = absl::Seconds(5);
    Start();
  }
};

TEST_F(FaultsTest, ALostRankMeansTheNextEpochAndAttempt) {
  const auto worker = NewWorker("worker-1", 2);
  const v1::Job made = Create(JobRequest(4, 2));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->job().set_phase(v1::TRAINING);
  worker->AddSteps(1, 2);
  worker->AddCheckpoint(2, false);
  worker->Send();
  ASSERT_TRUE(WaitForState(made.name(), v1::RUNNING));
  const v1::WorkerReport old = worker->report();
  worker->SetRanks(v1::LOST, "killed by signal 9");
  ASSERT_TRUE(worker->JoinGroup(2));
  const v1::GroupAssignment group = worker->assignment().groups(0);
  EXPECT_EQ(group.epoch(), 2);
  EXPECT_EQ(group.members_size(), 2);
  EXPECT_EQ(group.members(0).rendezvous(), "worker-1:0:2") << "of this epoch";
  EXPECT_EQ(group.job().resume().step(), 2);
  EXPECT_EQ(Get(made.name()).state(), v1::STARTING);
  // What comes of the old attempt is refused, and may be forgotten.
  const v1::WorkerReport current = worker->report();
  *worker->report().mutable_jobs() = old.jobs();
  worker->report().mutable_jobs(0)->set_phase(v1::FINISHED);
  worker->Send();
  ASSERT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.attempt() == 1 && a.done(); }));
  EXPECT_EQ(Get(made.name()).state(), v1::STARTING);
  worker->report() = current;
  Finish(*worker, 3, 4);
  EXPECT_TRUE(WaitForState(made.name(), v1::SUCCEEDED));
  EXPECT_EQ(Get(made.name()).attempt(), 2);
}

TEST_F(FaultsTest, ThreeAttemptsWithoutAStepFail) {
  const auto worker = NewWorker("worker-1", 1);
  const v1::Job made = Create(JobRequest(4));
  for (int attempt = 1; attempt <= 3; ++attempt) {
    ASSERT_TRUE(worker->JoinGroup(attempt));
    worker->SetRanks(v1::LOST, absl::StrCat("crash ", attempt));
  }
  ASSERT_TRUE(WaitForState(made.name(), v1::FAILED));
  const v1::Failure failure = Get(made.name()).failure();
  EXPECT_EQ(failure.code(), v1::NO_PROGRESS);
  EXPECT_NE(failure.message().find("crash 3"), std::string::npos);
}

TEST_F(FaultsTest, BadInputThatARankSeesFailsAtOnce) {
  const auto worker = NewWorker("worker-1", 1);
  const v1::Job made = Create(JobRequest(4));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->SetRanks(v1::LOST, "model.safetensors is truncated", v1::BAD_INPUT);
  ASSERT_TRUE(WaitForState(made.name(), v1::FAILED));
  EXPECT_EQ(Get(made.name()).failure().code(), v1::BAD_INPUT);
}

TEST_F(LeaseTest, ALostWorkerIsReplacedAfterItsLease) {
  const auto first = NewWorker("worker-1", 1);
  auto second = NewWorker("worker-2", 1);
  const v1::Job made = Create(JobRequest(4, 2));
  ASSERT_TRUE(first->JoinGroup(1, {second.get()}));
  first->job().set_phase(v1::TRAINING);
  first->AddSteps(1, 1);
  first->Send();
  ASSERT_TRUE(WaitForState(made.name(), v1::RUNNING));
  const auto third = NewWorker("worker-3", 1);
  second->Disconnect();
  // The others keep their leases by reporting.
  bool replaced = false;
  const absl::Duration start = Clock::System()->Monotonic();
  while (!replaced && Clock::System()->Monotonic() - start < absl::Seconds(60)) {
    first->Send();
    third->Send();
    const v1::WorkerAssignment a = third->assignment();
    replaced = a.groups_size() == 1 && a.groups(0).job().attempt() == 2;
  }
  ASSERT_TRUE(replaced);
  ASSERT_TRUE(first->JoinGroup(2, {third.get()}));
  Finish(*first, 2, 4);
  EXPECT_TRUE(WaitForState(made.name(), v1::SUCCEEDED));
}

TEST_F(FaultsTest, ARestartedSupervisorGetsANewEpoch) {
  const auto worker = NewWorker("worker-1", 1);
  Create(JobRequest(4));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->Disconnect();
  worker->Restart();
  worker->Connect(port());
  ASSERT_TRUE(worker->JoinGroup(2));
  EXPECT_EQ(worker->assignment().groups(0).epoch(), 2);
}

TEST_F(FaultsTest, ARestartedCoordinatorLeavesARunningGroupAlone) {
  const auto worker = NewWorker("worker-1", 2);
  const v1::Job made = Create(JobRequest(6, 2));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->job().set_phase(v1::TRAINING);
  worker->AddSteps(1, 2);
  worker->Send();
  ASSERT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.metrics_step() == 2; }));
  const v1::GroupAssignment before = worker->assignment().groups(0);
  Restart();
  EXPECT_EQ(Get(made.name()).state(), v1::RUNNING) << "the API is back at once";
  // The group trained on meanwhile.
  worker->AddSteps(3, 4);
  worker->Connect(port());
  ASSERT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.metrics_step() == 4; }));
  EXPECT_EQ(worker->assignment().groups(0).SerializeAsString(), before.SerializeAsString());
  EXPECT_EQ(Get(made.name()).step(), 4);
  Finish(*worker, 5, 6);
  EXPECT_TRUE(WaitForState(made.name(), v1::SUCCEEDED));
}

TEST_F(FaultsTest, AnOutcomeThatWasStoredBeforeARestartIsAcknowledgedAgain) {
  const auto worker = NewWorker("worker-1", 1);
  const v1::Job made = Create(JobRequest(2));
  ASSERT_TRUE(worker->JoinGroup(1));
  Finish(*worker, 1, 2);
  Restart();
  worker->Connect(port());
  EXPECT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.done(); }));
  EXPECT_EQ(Get(made.name()).state(), v1::SUCCEEDED);
}

TEST_F(FaultsTest, AWorkerWhoseVersionDoesNotGoWithTheCoordinatorGetsNoSession) {
  for (const auto& [version, code] :
       {std::pair("99.0.0", grpc::StatusCode::FAILED_PRECONDITION),
        std::pair("built yesterday", grpc::StatusCode::INVALID_ARGUMENT)}) {
    FakeWorker stranger("worker-1", 1);
    stranger.report().set_build(version);
    stranger.Connect(port());
    EXPECT_EQ(stranger.WaitForEnd(), code) << version;
  }
  const auto worker = NewWorker("worker-1", 1);  // nothing of them is left
  EXPECT_TRUE(
      worker->WaitFor([](const v1::WorkerAssignment& a) { return a.has_heartbeat_interval(); }));
}

TEST_F(FaultsTest, ASecondSessionOfAWorkerEndsTheFirst) {
  const auto worker = NewWorker("worker-1", 1);
  FakeWorker twin("worker-1", 1);
  twin.Connect(port());
  EXPECT_EQ(worker->WaitForEnd(), grpc::StatusCode::ABORTED);
  EXPECT_TRUE(
      twin.WaitFor([](const v1::WorkerAssignment& a) { return a.has_heartbeat_interval(); }));
}

TEST_F(FaultsTest, ADrainingWorkerGetsItsJobSavedAndQueued) {
  const auto worker = NewWorker("worker-1", 1);
  const v1::Job made = Create(JobRequest(4));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->job().set_phase(v1::TRAINING);
  worker->AddSteps(1, 1);
  worker->report().set_draining(true);
  worker->Send();
  ASSERT_TRUE(worker->WaitFor([](const v1::WorkerAssignment& a) {
    return a.groups_size() == 1 && a.groups(0).job().desired() == v1::PAUSE;
  }));
  worker->AddCheckpoint(1, false);
  worker->job().set_phase(v1::STOPPED);
  worker->Send();
  ASSERT_TRUE(WaitForState(made.name(), v1::QUEUED));
  EXPECT_TRUE(worker->WaitFor([](const v1::WorkerAssignment& a) { return a.groups().empty(); }));
  const auto other = NewWorker("worker-2", 1);
  ASSERT_TRUE(other->JoinGroup(2));
  EXPECT_EQ(other->assignment().groups(0).job().resume().step(), 1);
}

TEST_F(FaultsTest, BlobsOfOthersAreNotFound) {
  const auto worker = NewWorker("worker-1", 1);
  const auto other = NewWorker("worker-2", 1);
  Create(JobRequest(4));
  FakeWorker* holder = nullptr;
  FakeWorker* idle = nullptr;
  // The scheduler gave it to one of the two.
  const absl::Duration start = Clock::System()->Monotonic();
  while (holder == nullptr && Clock::System()->Monotonic() - start < absl::Seconds(60)) {
    if (worker->assignment().groups_size() == 1) holder = worker.get();
    if (other->assignment().groups_size() == 1) holder = other.get();
  }
  ASSERT_NE(holder, nullptr);
  idle = holder == worker.get() ? other.get() : worker.get();
  const std::string train = holder->assignment().groups(0).job().train().sha256();
  TUNDRA_EXPECT_OK(holder->Fetch(train));
  EXPECT_THAT(idle->Fetch(train), testing::StatusIs(absl::StatusCode::kNotFound, ::testing::_));
}

TEST_F(FaultsTest, AMalformedReportEndsItsSessionWithTheReason) {
  FakeWorker worker("worker-1", 1);
  worker.report().mutable_bases(0)->mutable_base()->set_name("bases/../../etc");
  worker.Connect(port());
  EXPECT_EQ(worker.WaitForEnd(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace tundra::coordinator
