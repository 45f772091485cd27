// The link between a supervisor and a rank, and rank processes: real processes,
// this program started again (worker/testing/fake_rank.h).
#include "worker/link.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "common/status_test_util.h"
#include "worker/rank_control.pb.h"
#include "worker/rank_process.h"

namespace tundra::worker {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::tundra::testing::StatusIs;

constexpr absl::Duration kDeadline = absl::Seconds(30);

ToRank Order(size_t bytes) {
  ToRank message;
  message.mutable_generate()->mutable_task()->set_prompt(std::string(bytes, 'x'));
  return message;
}

class LinkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    TUNDRA_ASSERT_OK_AND_ASSIGN(auto ends, Link::MakePair());
    raw_ = ends.second.get();
    here_ = std::make_unique<Link>(std::move(ends.first));
    there_ = std::make_unique<Link>(std::move(ends.second));
  }
  int raw_ = -1;
  std::unique_ptr<Link> here_, there_;
};

TEST_F(LinkTest, CarriesMessagesLargerThanTheSocketsBufferAndDescriptors) {
  const ToRank sent = Order(3 << 20);
  int pipe_ends[2];
  ASSERT_EQ(::pipe2(pipe_ends, O_CLOEXEC), 0);
  Fd reader(pipe_ends[0]);
  std::thread sender([&] {
    Fd writer(pipe_ends[1]);
    TUNDRA_EXPECT_OK(here_->Send(sent, {writer.get()}));
    TUNDRA_EXPECT_OK(here_->Send(Order(1)));
  });
  ToRank got;
  std::vector<Fd> fds;
  TUNDRA_EXPECT_OK(there_->Receive(&got, &fds));
  EXPECT_EQ(got.SerializeAsString(), sent.SerializeAsString());
  ASSERT_EQ(fds.size(), 1u);
  TUNDRA_EXPECT_OK(WriteAll(fds[0].get(), "!", "pipe"));
  char byte = 0;
  EXPECT_EQ(::read(reader.get(), &byte, 1), 1);
  TUNDRA_EXPECT_OK(there_->Receive(&got, &fds));
  EXPECT_TRUE(fds.empty()) << "descriptors belong to their own message";
  sender.join();
}

TEST_F(LinkTest, SaysThatThePeerHasGone) {
  there_.reset();
  EXPECT_THAT(here_->Send(Order(1)), StatusIs(absl::StatusCode::kUnavailable, _));
  ToRank got;
  std::vector<Fd> fds;
  EXPECT_THAT(here_->Receive(&got, &fds), StatusIs(absl::StatusCode::kUnavailable, _));
}

TEST_F(LinkTest, SaysThatNothingCame) {
  ToRank got;
  std::vector<Fd> fds;
  EXPECT_THAT(here_->Receive(&got, &fds, absl::Milliseconds(1)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, _));
}

TEST_F(LinkTest, RefusesBytesThatMakeNoMessage) {
  for (const std::string& bytes :
       {std::string("\xff\xff\xff\xff", 4), std::string("\3\0\0\0zzz", 7)}) {
    TUNDRA_ASSERT_OK(WriteAll(raw_, bytes, "socket"));
    ToRank got;
    std::vector<Fd> fds;
    EXPECT_THAT(here_->Receive(&got, &fds), StatusIs(absl::StatusCode::kDataLoss, _));
  }
}

TEST_F(LinkTest, GivesUpOnAPeerThatTakesNothingAndStaysGivenUp) {
  TUNDRA_ASSERT_OK(here_->SetSendTimeout(absl::Milliseconds(20)));
  EXPECT_THAT(here_->Send(Order(8 << 20)), StatusIs(absl::StatusCode::kDeadlineExceeded, _));
  EXPECT_THAT(here_->Send(Order(1)), StatusIs(absl::StatusCode::kUnavailable, _))
      << "half a frame is out";
  // The peer is told, rather than left with half a message.
  ToRank got;
  std::vector<Fd> fds;
  EXPECT_THAT(there_->Receive(&got, &fds), StatusIs(absl::StatusCode::kUnavailable, _));
}

TEST_F(LinkTest, SaysWhenThereIsNoRoomForDescriptors) {
  TUNDRA_ASSERT_OK(here_->Send(Order(1), {STDIN_FILENO}));
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  rlimit none = old;
  none.rlim_cur = 3;  // Descriptors that are open stay open.
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  ToRank got;
  std::vector<Fd> fds;
  const absl::Status status = there_->Receive(&got, &fds);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("open files")));
}

// A rank whose end is noted.
struct Watched {
  std::string how;
  absl::Notification ended;
  std::unique_ptr<RankProcess> process;

  explicit Watched(const std::string& mode, absl::Duration send_timeout = absl::Seconds(10)) {
    RankOptions options;
    options.environment = {"TUNDRA_FAKE_RANK=" + mode};
    options.send_timeout = send_timeout;
    options.on_message = [](FromRank, std::vector<Fd>) {};
    options.on_exit = [this](std::string text) {
      how = std::move(text);
      ended.Notify();
    };
    auto started = RankProcess::Start(std::move(options));
    EXPECT_THAT(started, ::tundra::testing::IsOk());
    if (started.ok()) process = *std::move(started);
  }
};

TEST(RankProcessTest, TellsHowTheProcessEnded) {
  Watched rank("exits");
  ASSERT_TRUE(rank.ended.WaitForNotificationWithTimeout(kDeadline));
  EXPECT_EQ(rank.how, "ended with status 7");
}

TEST(RankProcessTest, TellsOfASignal) {
  Watched rank("deaf");
  rank.process->Kill();
  ASSERT_TRUE(rank.ended.WaitForNotificationWithTimeout(kDeadline));
  EXPECT_THAT(rank.how, HasSubstr("signal 9"));
}

TEST(RankProcessTest, TheDestructorEndsAProcessThatNeverReads) {
  pid_t pid = -1;
  {
    Watched rank("deaf");
    pid = rank.process->pid();
  }
  EXPECT_EQ(::kill(pid, 0), -1) << "it was reaped";
}

TEST(RankProcessTest, KillsARankThatSendsNonsenseAndSaysSo) {
  Watched rank("garbage");
  ASSERT_TRUE(rank.ended.WaitForNotificationWithTimeout(kDeadline));
  EXPECT_THAT(rank.how, HasSubstr("over the limit"));
}

TEST(RankProcessTest, KillsARankThatTakesNoMessages) {
  Watched rank("deaf", absl::Milliseconds(20));
  EXPECT_THAT(rank.process->Send(Order(8 << 20)), StatusIs(absl::StatusCode::kDeadlineExceeded, _));
  ASSERT_TRUE(rank.ended.WaitForNotificationWithTimeout(kDeadline));
}

TEST(RankProcessTest, StartsAndEndsManyAtOnceWithoutLosingOne) {
  std::vector<std::unique_ptr<Watched>> ranks;
  for (int i = 0; i < 6; ++i) ranks.push_back(std::make_unique<Watched>(i % 2 == 0 ? "exits" : ""));
  for (auto& rank : ranks) rank->process.reset();
  for (auto& rank : ranks) EXPECT_TRUE(rank->ended.HasBeenNotified());
}

TEST(RankProcessTest, AProgramThatIsNotThereIsAnError) {
  RankOptions options;
  options.program = "/nonexistent/tundra-worker";
  EXPECT_FALSE(RankProcess::Start(std::move(options)).ok());
}

}  // namespace
}  // namespace tundra::worker
