// The two streams that a worker keeps to its coordinator: the session, and the
// text of a prompt's answer.
#include "worker/session.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/synchronization/notification.h"
#include "common/rpc.h"
#include "worker/generation_delivery.h"
#include "worker/testing/scripted_coordinator.h"

namespace tundra::worker {
namespace {

// gRPC would poll channels by itself now and then: off, so that a channel that nobody polls stays
// as it is for ever.
[[maybe_unused]] const int kNoBackupPoller =
    setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "0", 1);

tundra::v1::WorkerReport Report(const std::string& name) {
  tundra::v1::WorkerReport report;
  report.set_display_name(name);
  return report;
}

auto Named(const std::string& name) {
  return [name](const tundra::v1::WorkerReport& report) { return report.display_name() == name; };
}

class SessionTest : public ::testing::Test {
 protected:
  SessionHandler Handler() {
    return {[this](tundra::v1::WorkerAssignment assignment) {
              absl::MutexLock lock(&mu_);
              assignments_.push_back(std::move(assignment));
            },
            [this](bool connected) {
              absl::MutexLock lock(&mu_);
              connected_ = connected;
            }};
  }
  bool WaitFor(const std::function<bool()>& ok) {
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(&ok), kTestDeadline);
  }
  ScriptedCoordinator coordinator_;
  absl::Mutex mu_;
  std::vector<tundra::v1::WorkerAssignment> assignments_;
  bool connected_ = false;
};

TEST_F(SessionTest, SendsTheLatestReportAndHandsAssignmentsOn) {
  Session session(ChannelSource::Plain(coordinator_.address()), Handler());
  session.SetReport(Report("one"));
  ASSERT_TRUE(coordinator_.WaitForReport(Named("one")));
  session.SetReport(Report("two"));
  ASSERT_TRUE(coordinator_.WaitForReport(Named("two")));
  tundra::v1::WorkerAssignment assignment;
  assignment.add_wanted_blobs("b");
  coordinator_.Assign(assignment);
  ASSERT_TRUE(WaitFor([&] { return !assignments_.empty() && connected_; }));
  EXPECT_EQ(assignments_[0].wanted_blobs(0), "b");
}

TEST_F(SessionTest, RepeatsTheReportAtEachHeartbeat) {
  Session session(ChannelSource::Plain(coordinator_.address()), Handler());
  session.SetReport(Report("one"));
  tundra::v1::WorkerAssignment assignment;
  assignment.mutable_heartbeat_interval()->set_nanos(1);  // Clamped to 50 ms.
  coordinator_.Assign(assignment);
  int seen = 0;
  EXPECT_TRUE(
      coordinator_.WaitForReport([&](const tundra::v1::WorkerReport&) { return ++seen >= 4; }));
}

TEST_F(SessionTest, ComesBackAfterTheCoordinatorWithTheWholeReport) {
  Session session(ChannelSource::Plain(coordinator_.address()), Handler());
  session.SetReport(Report("one"));
  coordinator_.Assign({});
  ASSERT_TRUE(WaitFor([&] { return connected_; }));
  coordinator_.Stop();
  ASSERT_TRUE(WaitFor([&] { return !connected_; }));
  const int before = coordinator_.sessions();
  coordinator_.Start();
  ASSERT_TRUE(coordinator_.WaitForSessions(before + 1));
  ASSERT_TRUE(WaitFor([&] { return connected_; }));
  EXPECT_EQ(coordinator_.report().display_name(), "one");
}

TEST_F(SessionTest, ComesBackAfterManyTriesInVain) {
  Session session(ChannelSource::Plain(coordinator_.address()), Handler());
  session.SetReport(Report("one"));
  coordinator_.Assign({});
  ASSERT_TRUE(WaitFor([&] { return connected_; }));
  coordinator_.Stop();
  ASSERT_TRUE(WaitFor([&] { return !connected_; }));
  absl::SleepFor(absl::Seconds(1));  // several tries fail
  const int before = coordinator_.sessions();
  coordinator_.Start();
  EXPECT_TRUE(coordinator_.WaitForSessions(before + 1));
}

TEST_F(SessionTest, ComesBackWhenTheCoordinatorEndsTheStreamAlone) {
  Session session(ChannelSource::Plain(coordinator_.address()), Handler());
  session.SetReport(Report("one"));
  ASSERT_TRUE(coordinator_.WaitForSessions(1));
  coordinator_.EndSession();
  EXPECT_TRUE(coordinator_.WaitForSessions(2));
}

TEST_F(SessionTest, EndsWhileTheCoordinatorNeitherReadsNorAnswers) {
  coordinator_.deaf = true;
  auto session = std::make_unique<Session>(ChannelSource::Plain(coordinator_.address()), Handler());
  // More than any window of flow control: the writer stays in Write().
  session->SetReport(Report(std::string(3 << 20, 'x')));
  ASSERT_TRUE(coordinator_.WaitForSessions(1));
  session.reset();
}

TEST_F(SessionTest, EndsWithoutACoordinatorAndWithoutAReport) {
  const std::string address = coordinator_.address();
  coordinator_.Stop();
  { Session session(ChannelSource::Plain(address), Handler()); }
  Session session(ChannelSource::Plain(address), Handler());
  session.SetReport(Report("one"));
}

tundra::v1::GenerationChunk Chunk(const std::string& text, bool last = false) {
  tundra::v1::GenerationChunk chunk;
  chunk.set_task_id("task-1");
  chunk.set_text(text);
  if (last) chunk.set_finish_reason("stop");
  return chunk;
}

TEST(GenerationDeliveryTest, DeliversInOrderAlsoWhatIsLeftWhenItEnds) {
  ScriptedCoordinator coordinator;
  std::atomic<int> broken{0};
  {
    GenerationDelivery delivery(ChannelSource::Plain(coordinator.address()), [&] { ++broken; });
    delivery.Add(Chunk("a"));
    delivery.Add(Chunk("b"));
    delivery.Add(Chunk("c", true));
  }
  ASSERT_TRUE(coordinator.WaitFor([&] { return coordinator.chunks.size() == 3; }));
  EXPECT_EQ(coordinator.chunks[2].text(), "c");
  EXPECT_EQ(broken, 0);
}

TEST(GenerationDeliveryTest, TellsOnceThatTheReaderHasGone) {
  ScriptedCoordinator coordinator;
  const std::string address = coordinator.address();
  coordinator.Stop();
  absl::Notification broken;
  GenerationDelivery delivery(ChannelSource::Plain(address), [&] { broken.Notify(); });
  delivery.Add(Chunk("a"));
  EXPECT_TRUE(broken.WaitForNotificationWithTimeout(kTestDeadline));
  delivery.Add(Chunk("b", true));
}

TEST(GenerationDeliveryTest, EndsInBoundedTimeWhenTheCoordinatorIsStuck) {
  ScriptedCoordinator coordinator;
  coordinator.stuck = true;
  std::atomic<int> broken{0};
  for (const bool last : {false, true}) {
    GenerationDelivery delivery(ChannelSource::Plain(coordinator.address()), [&] { ++broken; });
    for (int i = 0; i < 8; ++i) delivery.Add(Chunk(std::string(1 << 20, 'x')));
    if (last) delivery.Add(Chunk("", true));
  }
  EXPECT_EQ(broken, 0) << "whoever destroys it needs no telling";
}

}  // namespace
}  // namespace tundra::worker
