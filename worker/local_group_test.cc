// A worker's share of a group, with rank processes that load and train nothing.
#include "worker/local_group.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>

#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/status_test_util.h"

namespace tundra::worker {
namespace {

using ::testing::HasSubstr;

class LocalGroupTest : public ::testing::Test {
 protected:
  ~LocalGroupTest() override { ::unsetenv("TUNDRA_FAKE_RANK"); }

  void Make(const std::string& mode, int local, int elsewhere = 0, int shards = 1) {
    ::setenv("TUNDRA_FAKE_RANK", mode.c_str(), 1);
    assignment_.set_group_id("group-1");
    assignment_.set_epoch(4);
    assignment_.set_base_hash("b");
    assignment_.set_shards(shards);
    for (int i = 0; i < local + elsewhere; ++i) {
      auto* member = assignment_.add_members();
      member->set_worker_id(i < local ? "me" : "other");
      member->set_device_index(i);
    }
    options_.worker_id = "me";
    options_.device_kind = "cpu";
    options_.on_message = [this](int rank, FromRank message, std::vector<Fd> fds) {
      auto held = std::make_shared<std::vector<Fd>>(std::move(fds));
      absl::MutexLock lock(&mu_);
      events_.push_back([this, rank, message, held] {
        if (message.has_state()) group_->OnState(rank, message.state(), std::move(*held));
      });
    };
    options_.on_exit = [this](int rank, std::string how) {
      absl::MutexLock lock(&mu_);
      events_.push_back([this, rank, how] { group_->OnExit(rank, how); });
    };
    group_ = std::make_unique<LocalGroup>(assignment_, options_, &shards_);
  }

  void TearDown() override { group_.reset(); }

  // Works as the supervisor's thread does until `ok`; false after a deadline.
  bool RunUntil(const std::function<bool()>& ok) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (!ok()) {
      if (absl::Now() > deadline) return false;
      std::deque<std::function<void()>> events;
      {
        absl::MutexLock lock(&mu_);
        const auto some = [this] { return !events_.empty(); };
        mu_.AwaitWithTimeout(absl::Condition(&some), absl::Milliseconds(20));
        events.swap(events_);
      }
      for (const auto& event : events) event();
      group_->Advance(Clock::System()->Monotonic());
    }
    return true;
  }

  bool All(tundra::v1::RankPhase phase) {
    const tundra::v1::GroupReport report = group_->Report();
    for (const auto& rank : report.ranks()) {
      if (rank.phase() != phase) return false;
    }
    return true;
  }

  // What the coordinator does: hands the addresses of all ranks out.
  void HandOutAddresses() {
    const tundra::v1::GroupReport report = group_->Report();
    for (const auto& rank : report.ranks()) {
      assignment_.mutable_members(rank.rank())->set_rendezvous(rank.rendezvous());
    }
    for (auto& member : *assignment_.mutable_members()) {
      if (member.rendezvous().empty()) member.set_rendezvous("elsewhere");
    }
    group_->Update(assignment_);
  }

  tundra::v1::GroupAssignment assignment_;
  LocalGroupOptions options_;
  ShardStore shards_;
  absl::Mutex mu_;
  std::deque<std::function<void()>> events_;
  std::unique_ptr<LocalGroup> group_;
};

TEST_F(LocalGroupTest, ComesUpAndKeepsOneShardForReplicas) {
  Make("", 3, 0, /*shards=*/1);
  ASSERT_TRUE(RunUntil([&] { return All(tundra::v1::AWAITING_PEERS); }));
  EXPECT_EQ(shards_.size(), 1u);
  EXPECT_FALSE(group_->ready());
  HandOutAddresses();
  ASSERT_TRUE(RunUntil([&] { return group_->ready(); }));
  EXPECT_TRUE(group_->leads());
  EXPECT_TRUE(group_->UsesDevice(2));
  EXPECT_FALSE(group_->UsesDevice(3));
}

TEST_F(LocalGroupTest, ARankLostBeforeTheAddressesCameIsReportedAndNothingIsSentToIt) {
  Make("exits", 2);
  ASSERT_TRUE(RunUntil([&] { return All(tundra::v1::LOST); }));
  HandOutAddresses();
  ASSERT_TRUE(RunUntil([&] { return true; }));
  group_->Advance(Clock::System()->Monotonic());
  ToRank message;
  message.mutable_quit();
  group_->SendToAll(message);
  EXPECT_FALSE(group_->ready());
  EXPECT_THAT(group_->Report().ranks(0).error(), HasSubstr("ended with status 7, while starting"));
}

TEST_F(LocalGroupTest, TheReasonThatARankGivesOutlivesItsExit) {
  Make("lost", 1);
  ASSERT_TRUE(RunUntil([&] { return All(tundra::v1::LOST); }));
  // The exit comes after the report.
  ASSERT_TRUE(RunUntil([&] {
    absl::MutexLock lock(&mu_);
    return events_.empty();
  }));
  group_->OnExit(0, "ended with status 1");
  EXPECT_EQ(group_->Report().ranks(0).error(), "the base does not fit");
  EXPECT_EQ(group_->Report().ranks(0).failure_code(), tundra::v1::OUT_OF_MEMORY);
}

TEST_F(LocalGroupTest, WaitingForRanksElsewhereIsNoHang) {
  options_.hang_timeout = absl::Seconds(60);
  Make("", 1, /*elsewhere=*/1);
  ASSERT_TRUE(RunUntil([&] { return All(tundra::v1::AWAITING_PEERS); }));
  group_->Advance(Clock::System()->Monotonic() + absl::Hours(10));
  EXPECT_TRUE(All(tundra::v1::AWAITING_PEERS));
  // Once it has all addresses it owes signs of life.
  HandOutAddresses();
  ASSERT_TRUE(RunUntil([&] { return group_->ready(); }));
  group_->Advance(Clock::System()->Monotonic() + absl::Seconds(61));
  EXPECT_TRUE(All(tundra::v1::LOST));
  EXPECT_THAT(group_->Report().ranks(0).error(), HasSubstr("no sign of life"));
}

TEST_F(LocalGroupTest, ReadingALargeShardIsNoHangButHasItsOwnLimit) {
  options_.hang_timeout = absl::Seconds(60);
  options_.load_timeout = absl::Hours(1);
  Make("unready", 2);
  ASSERT_TRUE(RunUntil([&] { return group_->Report().ranks(0).phase() == tundra::v1::LOADING; }));
  group_->Advance(Clock::System()->Monotonic() + absl::Minutes(30));
  EXPECT_EQ(group_->Report().ranks(0).phase(), tundra::v1::LOADING);
  // The replica waits for the reader however long that takes.
  EXPECT_EQ(group_->Report().ranks(1).phase(), tundra::v1::SPAWNING);
  group_->Advance(Clock::System()->Monotonic() + absl::Minutes(61));
  EXPECT_EQ(group_->Report().ranks(0).phase(), tundra::v1::LOST);
  EXPECT_EQ(group_->Report().ranks(1).phase(), tundra::v1::SPAWNING);
  // Then it reads the shard itself.
  ASSERT_TRUE(RunUntil([&] { return group_->Report().ranks(1).phase() == tundra::v1::LOADING; }));
}

TEST_F(LocalGroupTest, SendToLeaderSaysWhetherRankZeroIsHere) {
  ToRank message;
  message.mutable_quit();
  Make("", 1);
  EXPECT_TRUE(group_->SendToLeader(message));
  options_.worker_id = "a third";
  LocalGroup none(assignment_, options_, &shards_);
  EXPECT_FALSE(none.SendToLeader(message));
}

}  // namespace
}  // namespace tundra::worker
