// What every backend promises when something goes wrong: an error on every rank,
// soon, and never a hang. Deadlines here are generous (kPatience) where the test
// is about waking up, and short where it is about the deadline itself.
#include <condition_variable>
#include <mutex>

#include "absl/time/clock.h"
#include "worker/collective/collective_test_util.h"

namespace tundra::testing {
namespace {

using ::testing::_;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);
// What "at once" must stay under, on a busy machine.
constexpr absl::Duration kSoon = absl::Seconds(20);

class CollectiveFaults : public ::testing::TestWithParam<std::tuple<Backend, int>> {
 protected:
  Backend backend() const { return std::get<0>(GetParam()); }
  int size() const { return std::get<1>(GetParam()); }
  Group NewGroup() { return testing::NewGroup(backend(), size()); }
};

INSTANTIATE_TEST_SUITE_P(Backends, CollectiveFaults,
                         ::testing::Combine(kBackends, ::testing::Values(2, 3, 8)),
                         [](const auto& info) {
                           return absl::StrCat(BackendName(std::get<0>(info.param)), "x",
                                               std::get<1>(info.param));
                         });

// Every call fails with the same status as the group, at once.
void ExpectDead(Collective& c, absl::StatusCode code) {
  EXPECT_THAT(c.status(), StatusIs(code, _));
  const absl::Status first = c.status();
  std::vector<int64_t> values(3);
  std::vector<float> maxima(3);
  std::vector<std::byte> all(static_cast<size_t>(c.size()));
  const absl::Time start = absl::Now();
  for (const Channel channel : {Channel::kCompute, Channel::kGather}) {
    const CallOptions options{.timeout = kPatience, .channel = channel};
    EXPECT_EQ(c.AllReduceSum(values, options), first);
    EXPECT_EQ(c.AllReduceMax(maxima, options), first);
    EXPECT_EQ(c.AllGather(std::span(all).first(1), all, options), first);
    EXPECT_EQ(c.Broadcast(all, 0, options), first);
    EXPECT_EQ(c.Barrier(options), first);
  }
  EXPECT_LT(absl::Now() - start, kSoon);
}

TEST_P(CollectiveFaults, AbortFromAnotherThreadWakesBlockedCallsOnBothChannels) {
  Group group = NewGroup();
  // Rank 0 blocks in two calls that nobody else joins. Nothing can tell from the
  // outside that they block; whether the abort comes before or after, they return.
  std::thread compute([&] {
    std::vector<int64_t> values(50'000);
    EXPECT_THAT(group[0]->AllReduceSum(values, {.timeout = kPatience}),
                StatusIs(absl::StatusCode::kAborted, HasSubstr("the user cancelled")));
  });
  std::thread gather([&] {
    std::vector<std::byte> all(static_cast<size_t>(size()) * 10'000);
    EXPECT_THAT(group[0]->AllGather(std::span(all).first(10'000), all,
                                    {.timeout = kPatience, .channel = Channel::kGather}),
                StatusIs(absl::StatusCode::kAborted, HasSubstr("the user cancelled")));
  });
  const absl::Time start = absl::Now();
  group[0]->Abort("the user cancelled");
  group[0]->Abort("a second reason, not kept");
  compute.join();
  gather.join();
  EXPECT_LT(absl::Now() - start, kSoon);
  ExpectDead(*group[0], absl::StatusCode::kAborted);
}

TEST_P(CollectiveFaults, AbortWhileWaitingWakesTheCall) {
  Group group = NewGroup();
  std::mutex mu;
  std::condition_variable entered_changed;
  bool entered = false;
  std::thread caller([&] {
    // The peers take part in the first barrier, so that the second surely runs.
    EXPECT_THAT(group[0]->Barrier(), IsOk());
    {
      const std::lock_guard<std::mutex> lock(mu);
      entered = true;
    }
    entered_changed.notify_all();
    EXPECT_THAT(group[0]->Barrier({.timeout = kPatience}),
                StatusIs(absl::StatusCode::kAborted, HasSubstr("watchdog")));
  });
  OnAllRanks(size(), [&](int r) {
    if (r == 0) return;
    TUNDRA_EXPECT_OK(group[static_cast<size_t>(r)]->Barrier());
  });
  {
    std::unique_lock<std::mutex> lock(mu);
    entered_changed.wait(lock, [&] { return entered; });
  }
  const absl::Time start = absl::Now();
  group[0]->Abort("watchdog");
  caller.join();
  EXPECT_LT(absl::Now() - start, kSoon);
}

TEST_P(CollectiveFaults, PeersOfAnAbortedRankGetUnavailable) {
  Group group = NewGroup();
  const absl::Time start = absl::Now();
  OnAllRanks(size(), [&](int r) {
    Collective& c = *group[static_cast<size_t>(r)];
    if (r == size() - 1) {
      c.Abort("this one only");
      return;
    }
    std::vector<int64_t> values(50'000);
    EXPECT_THAT(c.AllReduceSum(values, {.timeout = kPatience}),
                StatusIs(absl::StatusCode::kUnavailable, _));
    ExpectDead(c, absl::StatusCode::kUnavailable);
  });
  EXPECT_LT(absl::Now() - start, kSoon);
}

TEST_P(CollectiveFaults, AClosedRankIsUnavailableToItsPeers) {
  Group group = NewGroup();
  const absl::Time start = absl::Now();
  OnAllRanks(size(), [&](int r) {
    if (r == 0) {
      group[0].reset();
      return;
    }
    std::vector<int64_t> values(7);
    EXPECT_THAT(group[static_cast<size_t>(r)]->AllReduceSum(values, {.timeout = kPatience}),
                StatusIs(absl::StatusCode::kUnavailable, _));
  });
  EXPECT_LT(absl::Now() - start, kSoon);
}

TEST_P(CollectiveFaults, ACallEndsAtItsDeadline) {
  Group group = NewGroup();
  // Rank 0 never comes. The others have deadlines of their own; whoever is first
  // takes the rest with it.
  OnAllRanks(size(), [&](int r) {
    if (r == 0) return;
    const absl::Duration timeout = absl::Milliseconds(300);
    const absl::Time start = absl::Now();
    std::vector<int64_t> values(50'000);
    EXPECT_THAT(group[static_cast<size_t>(r)]->AllReduceSum(values, {.timeout = timeout}),
                AnyOf(StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("all-reduce")),
                      StatusIs(absl::StatusCode::kUnavailable, _)));
    EXPECT_LT(absl::Now() - start, kSoon);
  });
  int late = 0;
  for (int r = 1; r < size(); ++r) {
    late += absl::IsDeadlineExceeded(group[static_cast<size_t>(r)]->status());
  }
  EXPECT_GE(late, 1);
  // The absent rank learns of it as well.
  EXPECT_THAT(group[0]->Barrier({.timeout = kPatience}),
              StatusIs(absl::StatusCode::kUnavailable, _));
}

TEST_P(CollectiveFaults, RanksThatDisagreeGetErrorsNotBytes) {
  const auto check = [&](bool all_fail,
                         const std::function<absl::Status(Collective&, bool)>& call) {
    Group group = NewGroup();
    OnAllRanks(size(), [&](int r) {
      const absl::Status status = call(*group[static_cast<size_t>(r)], r == 0);
      if (r > 0 && !all_fail && status.ok()) return;
      EXPECT_THAT(status, AnyOf(StatusIs(absl::StatusCode::kFailedPrecondition, _),
                                StatusIs(absl::StatusCode::kDeadlineExceeded, _),
                                StatusIs(absl::StatusCode::kUnavailable, _)));
    });
  };
  const CallOptions options{.timeout = absl::Milliseconds(300)};
  check(true, [&](Collective& c, bool odd) {  // sizes
    std::vector<int64_t> values(odd ? 10 : 11);
    return c.AllReduceSum(values, options);
  });
  check(true, [&](Collective& c, bool odd) {  // kinds
    std::vector<double> values(8);
    return odd ? c.AllReduceMax(values, options)
               : c.Broadcast(std::as_writable_bytes(std::span(values)), 0, options);
  });
  // Roots: ranks that agree with each other may finish with the bytes they agree on.
  check(false, [&](Collective& c, bool odd) {
    std::vector<std::byte> data(8, static_cast<std::byte>(c.rank()));
    const absl::Status status = c.Broadcast(data, odd ? 0 : 1, options);
    if (!odd && status.ok()) {
      EXPECT_EQ(data.back(), std::byte{1});
    }
    return status;
  });
}

TEST_P(CollectiveFaults, ConnectEndsWhenARankDoesNotCome) {
  auto bootstraps = NewBootstraps(backend(), size());
  std::vector<std::string> addresses;
  for (const auto& bootstrap : bootstraps) addresses.push_back(bootstrap->local_address());
  OnAllRanks(size(), [&](int r) {
    if (r == 0) return;
    const absl::Time start = absl::Now();
    EXPECT_THAT(bootstraps[static_cast<size_t>(r)]->Connect(addresses, absl::Milliseconds(300)),
                AnyOf(StatusIs(absl::StatusCode::kDeadlineExceeded, _),
                      StatusIs(absl::StatusCode::kUnavailable, _)));
    EXPECT_LT(absl::Now() - start, kSoon);
  });
}

// --- faults injected into the in-process backend --------------------------------

TEST(LocalGroupTest, InjectedFaultsStrikeAtTheirCall) {
  for (const LocalFault fault : {LocalFault::kAbort, LocalFault::kDie, LocalFault::kHang}) {
    LocalGroup local(3);
    local.Inject(1, 2, fault);
    std::vector<std::unique_ptr<CollectiveBootstrap>> bootstraps;
    for (int r = 0; r < 3; ++r) {
      TUNDRA_ASSERT_OK_AND_ASSIGN(auto bootstrap, local.Bootstrap(r));
      bootstraps.push_back(std::move(bootstrap));
    }
    Group group = ConnectAll(std::move(bootstraps));
    OnAllRanks(3, [&](int r) {
      Collective& c = *group[static_cast<size_t>(r)];
      const CallOptions options{.timeout = fault == LocalFault::kHang ? absl::Milliseconds(100)
                                                                      : kPatience};
      TUNDRA_EXPECT_OK(c.Barrier());
      TUNDRA_EXPECT_OK(c.Barrier());
      const absl::Status status = c.Barrier(options);
      EXPECT_FALSE(status.ok());
      if (fault == LocalFault::kAbort) {
        EXPECT_EQ(absl::IsAborted(status), r == 1) << status;
      }
      if (fault == LocalFault::kDie) {
        EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("killed")));
      }
      EXPECT_EQ(c.Barrier(), status);
    });
  }
}

TEST(LocalGroupTest, AbortEndsAnInjectedHang) {
  LocalGroup local(1);
  local.Inject(0, 0, LocalFault::kHang);
  TUNDRA_ASSERT_OK_AND_ASSIGN(auto bootstrap, local.Bootstrap(0));
  TUNDRA_ASSERT_OK_AND_ASSIGN(auto c, bootstrap->Connect({bootstrap->local_address()}, kPatience));
  std::thread caller([&] {
    EXPECT_THAT(c->Barrier({.timeout = kPatience}),
                StatusIs(absl::StatusCode::kAborted, HasSubstr("enough")));
  });
  c->Abort("enough");
  caller.join();
}

TEST(LocalGroupTest, EachRankIsTakenOnce) {
  LocalGroup local(2);
  TUNDRA_EXPECT_OK(local.Bootstrap(1));
  EXPECT_THAT(local.Bootstrap(1), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("taken")));
  EXPECT_THAT(local.Bootstrap(2), StatusIs(absl::StatusCode::kInvalidArgument, _));
}

}  // namespace
}  // namespace tundra::testing
