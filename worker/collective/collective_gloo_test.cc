// What only the network backend can be asked: processes that are killed, addresses
// that come from outside, options.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_test_util.h"
#include "worker/collective/collective_test_util.h"
#include "worker/collective/gloo_mesh.h"

namespace tundra::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;

// A rank in a process of its own, which speaks to the test over a socket pair:
// first its address up, then all addresses down, then a line for what happened.
class RankProcess {
 public:
  RankProcess(int rank, int size, absl::Duration call_timeout) {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    pid_ = fork();
    if (pid_ == 0) {
      close(fds[0]);
      Child(rank, size, fds[1], call_timeout);
      _exit(0);
    }
    close(fds[1]);
    fd_ = fds[0];
  }
  ~RankProcess() {
    close(fd_);
    Kill();
  }
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

  void Stop() { kill(pid_, SIGSTOP); }

  std::string Read() { return Take(fd_); }
  void Write(const std::string& text) { Put(fd_, text); }

 private:
  static void Put(int fd, const std::string& text) {
    const uint32_t length = static_cast<uint32_t>(text.size());
    std::string message(reinterpret_cast<const char*>(&length), 4);
    message += text;
    for (size_t at = 0; at < message.size();) {
      const ssize_t n = send(fd, message.data() + at, message.size() - at, MSG_NOSIGNAL);
      if (n <= 0) return;
      at += static_cast<size_t>(n);
    }
  }

  static bool TakeBytes(int fd, char* data, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
      pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
      if (poll(&wait, 1, 60'000) != 1) return false;
      const ssize_t n = read(fd, data + at, bytes - at);
      if (n <= 0) return false;
      at += static_cast<size_t>(n);
    }
    return true;
  }

  static std::string Take(int fd) {
    uint32_t length = 0;
    if (!TakeBytes(fd, reinterpret_cast<char*>(&length), 4)) return "(no answer)";
    std::string text(length, '\0');
    return TakeBytes(fd, text.data(), length) ? text : "(cut answer)";
  }

  // Reduces until something fails, and says what and how long the last call took.
  static void Child(int rank, int size, int fd, absl::Duration call_timeout) {
    auto bootstrap = NewGlooBootstrap({.rank = rank, .size = size});
    if (!bootstrap.ok()) return Put(fd, std::string(bootstrap.status().ToString()));
    Put(fd, (*bootstrap)->local_address());
    std::vector<std::string> addresses;
    for (int r = 0; r < size; ++r) addresses.push_back(Take(fd));
    auto collective = (*bootstrap)->Connect(addresses, absl::Seconds(30));
    if (!collective.ok()) return Put(fd, std::string(collective.status().ToString()));
    Put(fd, "connected");
    std::vector<int64_t> values(200'000, 1);
    while (true) {
      const absl::Time start = absl::Now();
      const absl::Status status = (*collective)->AllReduceSum(values, {.timeout = call_timeout});
      if (!status.ok()) {
        Put(fd, absl::StrCat(absl::StatusCodeToString(status.code()), " ",
                             absl::ToInt64Milliseconds(absl::Now() - start)));
        Take(fd);  // stays until the test has read all
        return;
      }
    }
  }

  pid_t pid_ = -1;
  int fd_ = -1;
};

std::vector<std::unique_ptr<RankProcess>> StartProcesses(int size, absl::Duration call_timeout) {
  std::vector<std::unique_ptr<RankProcess>> ranks;
  for (int r = 0; r < size; ++r) {
    ranks.push_back(std::make_unique<RankProcess>(r, size, call_timeout));
  }
  std::vector<std::string> addresses;
  for (const auto& rank : ranks) addresses.push_back(rank->Read());
  for (const auto& rank : ranks) {
    for (const std::string& address : addresses) rank->Write(address);
  }
  for (const auto& rank : ranks) EXPECT_EQ(rank->Read(), "connected");
  return ranks;
}

TEST(GlooProcessTest, SurvivorsOfAKilledRankGetUnavailableLongBeforeTheirDeadline) {
  for (const int size : {2, 4}) {
    auto ranks = StartProcesses(size, absl::Minutes(10));
    ranks[1]->Kill();
    for (int r = 0; r < size; ++r) {
      if (r == 1) continue;
      const std::string answer = ranks[static_cast<size_t>(r)]->Read();
      EXPECT_THAT(answer, HasSubstr("UNAVAILABLE ")) << "rank " << r;
    }
  }
}

TEST(GlooProcessTest, SurvivorsOfAStoppedRankGetTheirDeadline) {
  // SIGSTOP keeps the connections open: only deadlines end the calls.
  constexpr int kSize = 3;
  auto ranks = StartProcesses(kSize, absl::Seconds(2));
  ranks[2]->Stop();
  int late = 0;
  for (int r = 0; r < 2; ++r) {
    const std::string answer = ranks[static_cast<size_t>(r)]->Read();
    late += answer.starts_with("DEADLINE_EXCEEDED");
    EXPECT_TRUE(answer.starts_with("DEADLINE_EXCEEDED") || answer.starts_with("UNAVAILABLE"))
        << answer;
  }
  EXPECT_GE(late, 1);
}

TEST(GlooAddressTest, EveryTruncationAndExtensionIsRefused) {
  auto mesh = internal::GlooMesh::Listen({.rank = 1, .size = 3});
  TUNDRA_ASSERT_OK(mesh);
  const std::string address = (*mesh)->address();
  TUNDRA_EXPECT_OK(internal::ParseGlooAddress(address, 1, 0, 3));
  for (size_t n = 0; n < address.size(); ++n) {
    EXPECT_THAT(internal::ParseGlooAddress(address.substr(0, n), 1, 0, 3),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rank 1")));
  }
  EXPECT_THAT(internal::ParseGlooAddress(address + "x", 1, 0, 3),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("too long")));
  EXPECT_THAT(internal::ParseGlooAddress(address, 2, 0, 3),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("another rank")));
  EXPECT_THAT(internal::ParseGlooAddress(address, 1, 0, 4),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("number of ranks")));
}

TEST(GlooAddressTest, FlippedBytesNeverCrash) {
  auto mesh = internal::GlooMesh::Listen({.rank = 0, .size = 2});
  TUNDRA_ASSERT_OK(mesh);
  const std::string address = (*mesh)->address();
  for (size_t at = 0; at < address.size(); ++at) {
    for (const int bit : {0, 3, 7}) {
      std::string flipped = address;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << bit));
      const auto parsed = internal::ParseGlooAddress(flipped, 0, 1, 2);
      EXPECT_TRUE(parsed.ok() || absl::IsInvalidArgument(parsed.status()));
    }
  }
}

TEST(GlooOptionsTest, BadOptionsAreNamed) {
  EXPECT_THAT(NewGlooBootstrap({.rank = 2, .size = 2}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rank 2")));
  EXPECT_THAT(NewGlooBootstrap({.rank = 0, .size = 0}),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(NewGlooBootstrap({.chunk_bytes = 12}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("chunk_bytes")));
  EXPECT_THAT(NewGlooBootstrap({.size = 2, .interface = "no-such-interface"}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no-such-interface")));
  EXPECT_THAT(NewGlooBootstrap({.size = 2, .hostname = "192.0.2.1"}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("192.0.2.1")));
}

TEST(GlooOptionsTest, ListensOnANamedInterface) {
  std::vector<std::unique_ptr<CollectiveBootstrap>> bootstraps;
  for (int r = 0; r < 2; ++r) {
    TUNDRA_ASSERT_OK_AND_ASSIGN(auto bootstrap,
                                NewGlooBootstrap({.rank = r, .size = 2, .interface = "lo"}));
    bootstraps.push_back(std::move(bootstrap));
  }
  Group group = ConnectAll(std::move(bootstraps));
  OnAllRanks(2, [&](int r) { TUNDRA_EXPECT_OK(group[static_cast<size_t>(r)]->Barrier()); });
}

// A rank that was given another epoch's addresses must not be let in.
TEST(GlooMeshTest, ARankOfAnotherEpochIsNotLetIn) {
  auto bootstraps = NewBootstraps(Backend::kGloo, 2);
  auto stray = NewBootstraps(Backend::kGloo, 2);
  const std::vector<std::string> truth = {bootstraps[0]->local_address(),
                                          bootstraps[1]->local_address()};
  // The stray rank 1 knows where the real rank 0 listens, and goes there.
  const std::vector<std::string> mixed = {truth[0], stray[1]->local_address()};
  OnAllRanks(2, [&](int r) {
    EXPECT_FALSE((r == 0 ? bootstraps[0]->Connect(truth, absl::Milliseconds(500))
                         : stray[1]->Connect(mixed, absl::Milliseconds(500)))
                     .ok());
  });
}

}  // namespace
}  // namespace tundra::testing
