// FleetService: workers and groups as they report, by pages.
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "common/version.h"
#include "coordinator/testing/harness.h"

namespace tundra::coordinator {
namespace {

using ::testing::ElementsAre;

class FleetApiTest : public CoordinatorHarness {
 protected:
  v1::ListWorkersResponse Workers(int32_t size = 0, const std::string& token = "") {
    v1::ListWorkersRequest request;
    request.set_page_size(size);
    request.set_page_token(token);
    v1::ListWorkersResponse response;
    grpc::ClientContext context;
    status_ = fleet_->ListWorkers(&context, request, &response);
    return response;
  }
  v1::ListGroupsResponse Groups(int32_t size = 0, const std::string& token = "") {
    v1::ListGroupsRequest request;
    request.set_page_size(size);
    request.set_page_token(token);
    v1::ListGroupsResponse response;
    grpc::ClientContext context;
    status_ = fleet_->ListGroups(&context, request, &response);
    return response;
  }
  // Asks until the worker has the state.
  bool AwaitState(const std::string& name, v1::WorkerState state) {
    for (int i = 0; i < 600; ++i) {
      const v1::ListWorkersResponse list = Workers();
      for (const v1::Worker& worker : list.workers()) {
        if (worker.name() == name && worker.state() == state) return true;
      }
      absl::SleepFor(absl::Milliseconds(100));
    }
    return false;
  }
  grpc::Status status_;
};

TEST_F(FleetApiTest, ShowsWorkersAsTheyReport) {
  EXPECT_EQ(Workers().workers_size(), 0);
  const auto b = NewWorker("worker-b", 2);
  const auto a = NewWorker("worker-a", 1);
  a->report().set_display_name("node a");
  a->report().mutable_devices(0)->set_name("a chip");
  a->report().mutable_devices(0)->set_memory_bytes(5);
  a->report().set_draining(true);
  a->Send();
  ASSERT_TRUE(AwaitState("workers/worker-a", v1::DRAINING));
  const v1::ListWorkersResponse list = Workers();
  ASSERT_EQ(list.workers_size(), 2);
  EXPECT_EQ(list.next_page_token(), "");
  const v1::Worker& first = list.workers(0);
  EXPECT_EQ(first.name(), "workers/worker-a");
  EXPECT_EQ(first.display_name(), "node a");
  EXPECT_EQ(first.build(), ProgramVersion());
  EXPECT_FALSE(first.drained());
  EXPECT_THAT(first.bases(), ElementsAre("bases/" + Sha256Hex("tiny")));
  ASSERT_EQ(first.devices_size(), 1);
  EXPECT_EQ(first.devices(0).kind(), "cpu");
  EXPECT_EQ(first.devices(0).display_name(), "a chip");
  EXPECT_EQ(first.devices(0).memory_bytes(), 5);
  EXPECT_EQ(first.devices(0).numerics_class(), "test-class");
  EXPECT_EQ(first.devices(0).group(), "");
  const absl::Time seen = absl::FromUnixSeconds(first.last_seen_time().seconds());
  EXPECT_LT(absl::AbsDuration(absl::Now() - seen), absl::Minutes(2));
  EXPECT_EQ(list.workers(1).state(), v1::CONNECTED);
  b->Disconnect();
  EXPECT_TRUE(AwaitState("workers/worker-b", v1::AWAY));
}

TEST_F(FleetApiTest, ShowsGroupsWithTheirJobAndRanks) {
  EXPECT_EQ(Groups().groups_size(), 0);
  const auto worker = NewWorker("w", 3);
  const std::string job = Create(JobRequest(2, /*devices=*/2)).name();
  ASSERT_TRUE(worker->JoinGroup(1));
  auto& rank = *worker->report().mutable_groups(0)->mutable_ranks(1);
  rank.set_resident_shard_bytes(100);
  rank.set_prepared_bytes(11);
  worker->Send();
  v1::ListGroupsResponse list;
  for (int i = 0; i < 600; ++i) {
    list = Groups();
    if (list.groups_size() == 1 && list.groups(0).ranks(1).resident_bytes() > 0) break;
    absl::SleepFor(absl::Milliseconds(100));
  }
  ASSERT_EQ(list.groups_size(), 1);
  const v1::Group& group = list.groups(0);
  EXPECT_EQ(group.epoch(), 1);
  EXPECT_EQ(group.base(), "bases/" + Sha256Hex("tiny"));
  EXPECT_EQ(group.precision(), v1::F32);
  EXPECT_EQ(group.shards(), 1);
  EXPECT_EQ(group.job(), job);
  EXPECT_TRUE(group.busy());
  ASSERT_EQ(group.ranks_size(), 2);
  EXPECT_EQ(group.ranks(0).worker(), "workers/w");
  EXPECT_EQ(group.ranks(1).phase(), "ready");
  EXPECT_EQ(group.ranks(1).resident_bytes(), 111);
  int in_group = 0;
  const v1::ListWorkersResponse workers = Workers();
  for (const v1::WorkerDevice& device : workers.workers(0).devices()) {
    in_group += device.group() == group.name() ? 1 : 0;
  }
  EXPECT_EQ(in_group, 2) << "one of the three devices is free";

  Finish(*worker, 1, 2);
  ASSERT_TRUE(WaitForState(job, v1::SUCCEEDED));
  for (int i = 0; i < 600 && (list.groups_size() == 0 || list.groups(0).busy()); ++i) {
    absl::SleepFor(absl::Milliseconds(100));
    list = Groups();
  }
  ASSERT_EQ(list.groups_size(), 1) << "the base stays warm";
  EXPECT_FALSE(list.groups(0).busy());
  EXPECT_EQ(list.groups(0).job(), "");
}

TEST_F(FleetApiTest, NoWorkerReplacesAFileOfABase) {
  const auto first = NewWorker("worker-1", 1);
  const std::string sha256 = Sha256Hex(kFakeTokenizer);
  first->Disconnect();
  FakeWorker liar("worker-2", 1);
  v1::BaseInfo* const info = liar.report().mutable_bases(0);
  info->mutable_base()->set_display_name("renamed");
  info->mutable_text_files(0)->set_sha256(Sha256Hex("another tokenizer"));
  liar.Connect(port());
  ASSERT_TRUE(
      liar.WaitFor([](const v1::WorkerAssignment& a) { return a.has_heartbeat_interval(); }));
  const auto name = [&] {
    grpc::ClientContext context;
    v1::GetBaseRequest request;
    request.set_name(FakeBase().base().name());
    v1::Base base;
    EXPECT_TRUE(bases_->GetBase(&context, request, &base).ok());
    return base.display_name();
  };
  EXPECT_EQ(name(), "tiny") << "its word is not taken";
  for (const std::string& wanted : liar.assignment().wanted_blobs()) {
    EXPECT_NE(wanted, Sha256Hex("another tokenizer"));
  }
  // With the same file, and one more, it is.
  info->mutable_text_files(0)->set_sha256(sha256);
  v1::AdapterFile* const more = info->add_text_files();
  more->set_filename("chat_template.jinja");
  more->set_sha256(Sha256Hex("template"));
  liar.Send();
  EXPECT_TRUE(liar.WaitFor([](const v1::WorkerAssignment& a) {
    return a.wanted_blobs_size() == 1 && a.wanted_blobs(0) == Sha256Hex("template");
  }));
  EXPECT_EQ(name(), "renamed");
}

TEST_F(FleetApiTest, ListsByPages) {
  std::vector<std::unique_ptr<FakeWorker>> workers;
  for (const char* const id : {"a", "b", "c"}) workers.push_back(NewWorker(id, 1));
  const v1::ListWorkersResponse first = Workers(2);
  ASSERT_EQ(first.workers_size(), 2);
  EXPECT_EQ(first.workers(1).name(), "workers/b");
  ASSERT_NE(first.next_page_token(), "");
  const v1::ListWorkersResponse second = Workers(2, first.next_page_token());
  ASSERT_EQ(second.workers_size(), 1);
  EXPECT_EQ(second.workers(0).name(), "workers/c");
  EXPECT_EQ(second.next_page_token(), "");
  Groups(0, first.next_page_token());
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << "a token of another list";
  Workers(1001);
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  Workers(-1);
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(FleetApiTest, AfterARestartMembersOfGroupsAreKnownBeforeTheyReport) {
  const auto worker = NewWorker("w", 1);
  Create(JobRequest(2));
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->Disconnect();
  Restart();
  const v1::ListWorkersResponse list = Workers();
  ASSERT_EQ(list.workers_size(), 1);
  EXPECT_EQ(list.workers(0).name(), "workers/w");
  EXPECT_EQ(list.workers(0).state(), v1::AWAY);
  EXPECT_FALSE(list.workers(0).has_last_seen_time());
  EXPECT_EQ(Groups().groups_size(), 1);
}

}  // namespace
}  // namespace tundra::coordinator
