#include "coordinator/workers/fleet.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/sha256.h"
#include "common/status_test_util.h"

namespace tundra::coordinator {
namespace {

const std::string kBase = Sha256Hex("base"), kOther = Sha256Hex("another base");

struct Link : SessionLink {
  void Send(const v1::WorkerAssignment& a) override { last = a; }
  void End(const absl::Status&) override { ended = true; }
  bool Ended() const override { return ended; }
  v1::WorkerAssignment last;
  bool ended = false;
};

v1::WorkerReport Report(const std::string& id, int devices) {
  v1::WorkerReport report;
  report.set_worker_id(id);
  for (int i = 0; i < devices; ++i) report.add_devices()->set_index(i);
  for (const std::string& hash : {kBase, kOther}) {
    report.add_bases()->mutable_base()->set_name("bases/" + hash);
  }
  return report;
}

class FleetTest : public ::testing::Test {
 protected:
  std::shared_ptr<Link> Join(const std::string& id, int devices) {
    auto link = std::make_shared<Link>();
    EXPECT_TRUE(fleet_.TakeReport(link, "", Report(id, devices), {}, {}));
    return link;
  }
  // An idle group of device 0 of each worker, the first leads.
  void Plan(const std::vector<std::string>& workers) {
    PlannedGroup group;
    group.record.id = {"g"};
    group.record.base = {kBase};
    for (const std::string& id : workers) group.record.members.push_back({{id}, 0, ""});
    fleet_.SetPlan({group});
  }
  std::string WorkerFor(const std::string& task_id, const std::string& base) {
    v1::GenerateTask task;
    task.set_task_id(task_id);
    task.set_base_hash(base);
    const auto worker = fleet_.AddGenerateTask(task);
    EXPECT_TRUE(worker.ok()) << worker.status();
    return worker.ok() ? worker->value : "";
  }
  bool PromptWaits(const std::string& id) {
    for (const WorkerView& worker : fleet_.Workers()) {
      if (worker.id.value == id) return worker.prompt_waits;
    }
    ADD_FAILURE() << "no worker " << id;
    return false;
  }

  Fleet fleet_{Clock::System(), FleetOptions{}};
};

TEST_F(FleetTest, ALateReportOfAReplacedSessionChangesNothing) {
  const auto old_link = std::make_shared<Link>();
  const auto new_link = std::make_shared<Link>();
  EXPECT_TRUE(fleet_.TakeReport(old_link, "", Report("w", 1), {}, {}));
  EXPECT_TRUE(fleet_.TakeReport(new_link, "", Report("w", 2), {}, {}));
  EXPECT_TRUE(old_link->ended);
  old_link->ended = false;  // its report was under way before it ended
  EXPECT_FALSE(fleet_.TakeReport(old_link, "", Report("w", 1), {}, {}));
  EXPECT_FALSE(new_link->ended);
  EXPECT_EQ(fleet_.Workers().at(0).devices.size(), 2u);
  // Also while the newer one is down.
  EXPECT_TRUE(fleet_.Disconnect(new_link.get()));
  EXPECT_FALSE(fleet_.TakeReport(old_link, "", Report("w", 1), {}, {}));
}

TEST_F(FleetTest, PromptsGoToWhoLeadsAGroupOfTheBase) {
  const auto follower = Join("a", 1), leader = Join("b", 1);
  Plan({"b", "a"});
  for (const std::string task : {"1", "2", "3"}) EXPECT_EQ(WorkerFor(task, kBase), "b");
  EXPECT_FALSE(PromptWaits("a"));
  EXPECT_FALSE(PromptWaits("b"));
}

TEST_F(FleetTest, APromptToAnotherBaseGoesToAFreeDeviceOrWaitsForRoom) {
  const auto full = Join("a", 1), with_room = Join("b", 2);
  Plan({"a", "b"});
  EXPECT_EQ(WorkerFor("1", kOther), "b");
  EXPECT_FALSE(PromptWaits("b"));
  fleet_.Disconnect(with_room.get());
  EXPECT_EQ(WorkerFor("2", kOther), "a");
  EXPECT_TRUE(PromptWaits("a"));
  fleet_.SetPlan({});  // its group made way
  EXPECT_FALSE(PromptWaits("a"));
}

}  // namespace
}  // namespace tundra::coordinator
